"""`download`: valid data in place, or a line that says why not, for every failure."""

from __future__ import annotations

import resource
import time

import pytest

from digitkaggle.competition.client import Kaggle, KaggleError
from digitkaggle.competition.download import download
from digitkaggle.core.basics import InputError
from tests.competition import server
from tests.competition.conftest import expect_error
from tests.conftest import read_folder


def list_downloaded(files: dict[str, str]) -> dict[str, bytes]:
    return {f"data/{name}": files[name].encode() for name in sorted(files)}


def test_download_writes_the_files_and_nothing_else(kaggle, folder, files):
    kaggle.data_zip = server.make_zip(files | {"../evil.txt": "x", "/tmp/evil.txt": "x"})
    download()
    assert read_folder(folder) == list_downloaded(files)
    assert set(read_folder(folder.parent)) == {f"work/{name}" for name in list_downloaded(files)}


def test_valid_data_are_not_downloaded_again_unless_forced(kaggle, folder, files):
    download()
    calls = len(kaggle.calls)
    download()
    assert len(kaggle.calls) == calls
    download(force=True)
    assert len(kaggle.calls) > calls
    (folder / "data/train.csv").write_text("<html>")
    download()
    assert read_folder(folder) == list_downloaded(files)


def test_download_retries_after_failures_that_may_pass(kaggle, folder, files):
    kaggle.fail("DownloadDataFiles", server.hang_up, server.fail_with(503))
    kaggle.fail("DownloadDataFiles", server.fail_with(429))
    kaggle.fail("GET /data.zip", server.cut_off(40_000))
    download()
    assert read_folder(folder) == list_downloaded(files)


METHOD, STORED = "DownloadDataFiles", "GET /data.zip"
FAILURES = {
    "unauthorized": (METHOD, server.fail_with(401), "https://www.kaggle.com/settings"),
    "forbidden": (METHOD, server.fail_with(403), "/c/digit-recognizer/rules"),
    "unknown": (METHOD, server.fail_with(404), "check the name"),
    "busy": (METHOD, server.fail_with(429), "too many requests"),
    "refused": (METHOD, server.fail_with(400, "out of reach"), "refused (out of reach"),
    "hung up": (METHOD, server.hang_up, "check the network"),
    "cut every time": (STORED, server.cut_off(100), "check the network"),
    "no storage": (STORED, server.reply(code=403), "storage refuses it (403)"),
    "web page": (STORED, server.reply(), "not a valid zip"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_download_that_fails_says_why_and_leaves_the_data_as_they_were(kaggle, folder, failure):
    download()
    before = read_folder(folder)
    method, response, expected = FAILURES[failure]
    kaggle.fail(method, *[response] * 9)
    with expect_error(KaggleError, expected):
        download(force=True)
    assert read_folder(folder) == before


CHANGES = {
    "damaged": lambda data, files: data[:2000] + bytes(50) + data[2050:],
    "bad data": lambda data, files: server.make_zip(files | {"train.csv": "label\nx\n"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_zip_that_is_not_the_data_leaves_nothing_for_the_next_call(kaggle, folder, files, change):
    valid_zip, kaggle.data_zip = kaggle.data_zip, CHANGES[change](kaggle.data_zip, files)
    with expect_error(KaggleError, "not a valid zip"):
        download()
    assert read_folder(folder) == {}
    kaggle.data_zip = valid_zip
    download()


def test_a_silent_server_and_a_missing_proxy_are_reported(kaggle, monkeypatch):
    monkeypatch.setattr(Kaggle, "time_limit", 0.3)
    kaggle.fail("DownloadDataFiles", *[lambda handler: time.sleep(1)] * 5)
    with expect_error(KaggleError, "within 0.3 s"):
        download()
    kaggle.close()
    with expect_error(KaggleError, "http_proxy"):
        download()


def test_an_error_of_our_own_is_not_reported_as_kaggles(kaggle):
    with pytest.raises(TypeError, match="unsupported operand"):
        Kaggle().call("add", lambda: 1 + "1")


def test_a_full_disk_is_reported_and_leaves_no_partial_file(kaggle, folder, files):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with expect_error(InputError, "train.csv cannot be written"):
            download()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_folder(folder) == {}
    download()
    assert read_folder(folder) == list_downloaded(files)
