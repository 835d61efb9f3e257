"""`download`: good data in place, or a line that says why not; with every fault."""

from __future__ import annotations

import resource
import time

import pytest

from digitkaggle.competition.client import Kaggle, KaggleError
from digitkaggle.competition.download import download
from digitkaggle.core.basics import InputError
from tests.competition import server
from tests.competition.conftest import refused
from tests.conftest import contents


def in_place(files: dict[str, str]) -> dict[str, bytes]:
    return {f"data/{name}": files[name].encode() for name in sorted(files)}


def test_download_puts_the_files_in_place_and_nothing_else(kaggle, folder, files):
    kaggle.data_zip = server.zip_of(files | {"../evil.txt": "x", "/tmp/evil.txt": "x"})
    download()
    assert contents(folder) == in_place(files)
    assert set(contents(folder.parent)) == {f"work/{name}" for name in in_place(files)}


def test_good_data_are_not_downloaded_again_unless_forced(kaggle, folder, files):
    download()
    calls = len(kaggle.calls)
    download()
    assert len(kaggle.calls) == calls
    download(force=True)
    assert len(kaggle.calls) > calls
    (folder / "data/train.csv").write_text("<html>")
    download()
    assert contents(folder) == in_place(files)


def test_faults_that_pass_are_waited_out(kaggle, folder, files):
    kaggle.fail("DownloadDataFiles", server.drop, server.status(503))
    kaggle.fail("DownloadDataFiles", server.status(429))
    kaggle.fail("GET /data.zip", server.cut(40_000))
    download()
    assert contents(folder) == in_place(files)


METHOD, STORED = "DownloadDataFiles", "GET /data.zip"
FAULTS = {
    "unauthorised": (METHOD, server.status(401), "https://www.kaggle.com/settings"),
    "forbidden": (METHOD, server.status(403), "/c/digit-recognizer/rules"),
    "unknown": (METHOD, server.status(404), "check the name"),
    "busy": (METHOD, server.status(429), "too many requests"),
    "refused": (METHOD, server.status(400, "out of reach"), "refused (out of reach"),
    "dropped": (METHOD, server.drop, "check the network"),
    "cut every time": (STORED, server.cut(100), "check the network"),
    "no storage": (STORED, server.content(code=403), "storage refuses it (403)"),
    "web page": (STORED, server.content(), "no good zip"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download_that_fails_says_why_and_leaves_the_data_as_they_were(kaggle, folder, fault):
    download()
    before = contents(folder)
    method, answer, expected = FAULTS[fault]
    kaggle.fail(method, *[answer] * 9)
    with refused(KaggleError, expected):
        download(force=True)
    assert contents(folder) == before


CHANGES = {
    "damaged": lambda data, files: data[:2000] + bytes(50) + data[2050:],
    "bad data": lambda data, files: server.zip_of(files | {"train.csv": "label\nx\n"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_zip_that_is_not_the_data_is_not_believed_by_the_next_call(kaggle, folder, files, change):
    good, kaggle.data_zip = kaggle.data_zip, CHANGES[change](kaggle.data_zip, files)
    with refused(KaggleError, "no good zip"):
        download()
    assert contents(folder) == {}
    kaggle.data_zip = good
    download()


def test_silence_has_an_end_and_a_proxy_that_is_not_there_is_said_so(kaggle, monkeypatch):
    monkeypatch.setattr(Kaggle, "time_limit", 0.3)
    kaggle.fail("DownloadDataFiles", *[lambda handler: time.sleep(1)] * 5)
    with refused(KaggleError, "within 0.3 s"):
        download()
    kaggle.close()
    with refused(KaggleError, "http_proxy"):
        download()


def test_a_full_disk_is_said_so_and_leaves_nothing_half_written(kaggle, folder, files):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with refused(InputError, "train.csv cannot be written"):
            download()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(folder) == {}
    download()
    assert contents(folder) == in_place(files)
