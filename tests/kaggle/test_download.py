"""`download`: good data in place, or a line that says why not; with every fault."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from digitkaggle.cli import main
from tests import kaggle_server as server
from tests.conftest import contents
from tests.kaggle.conftest import DATA_FILES, refused
from tests.kaggle_server import zip_of


def test_download_puts_checked_files_in_place_and_nothing_else(kaggle, desk, files):
    assert main(["download"]) == 0
    assert contents(desk) == {f"data/{name}": files[name].encode() for name in DATA_FILES}


def test_download_does_nothing_when_good_data_are_there_unless_forced(kaggle, desk, capsys):
    assert main(["download"]) == 0
    calls = len(kaggle.calls)
    assert main(["download"]) == 0
    assert len(kaggle.calls) == calls
    assert "good data already" in capsys.readouterr().out
    assert main(["download", "--force"]) == 0
    assert len(kaggle.calls) > calls


def test_download_replaces_data_that_are_not_good(kaggle, desk, files):
    (desk / "data").mkdir()
    for name in DATA_FILES:
        (desk / "data" / name).write_text("<html>")
    assert main(["download"]) == 0
    assert (desk / "data/train.csv").read_text() == files["train.csv"]


def test_a_cut_download_goes_on_where_it_stopped(kaggle, desk):
    assert len(kaggle.data_zip) > 40_000
    kaggle.fail("GET /data.zip", server.cut(40_000))
    assert main(["download"]) == 0
    ranges = [h["Range"] for h in kaggle.headers if "Range" in h]
    assert ranges == ["bytes=32768-"]


def test_a_partial_download_of_an_earlier_try_is_completed(kaggle, desk, files):
    (desk / "data").mkdir()
    (desk / "data/.digit-recognizer.zip.part").write_bytes(kaggle.data_zip[:7000])
    assert main(["download"]) == 0
    assert any(h.get("Range") == "bytes=7000-" for h in kaggle.headers)
    assert sorted(path.name for path in (desk / "data").iterdir()) == DATA_FILES


@pytest.mark.parametrize("partial", [b"rubbish" * 1000, b"<html>", b"x" * 10_000_000])
def test_a_partial_download_of_something_else_is_thrown_away(kaggle, desk, files, partial):
    (desk / "data").mkdir()
    (desk / "data/.digit-recognizer.zip.part").write_bytes(partial)
    assert main(["download"]) == 0
    assert (desk / "data/train.csv").read_text() == files["train.csv"]


def test_an_address_that_has_expired_is_asked_for_anew(kaggle, desk):
    kaggle.fail("GET /data.zip", server.page(403))
    assert main(["download"]) == 0


def test_too_many_requests_and_faults_of_the_server_are_waited_out(kaggle, desk):
    kaggle.fail("ListDataFiles", server.status(429, Retry_After="0"), server.status(503))
    kaggle.fail("DownloadDataFiles", server.drop, server.status(500))
    assert main(["download"]) == 0


DOWNLOAD_FAULTS = {
    "unauthorised": ("ListDataFiles", [server.status(401)], "does not accept the credentials"),
    "rules": (
        "DownloadDataFiles",
        [server.status(403, "You must accept this competition's rules")],
        "https://www.kaggle.com/c/digit-recognizer/rules",
    ),
    "unknown": ("ListDataFiles", [server.status(404)], "does not know it"),
    "conflict": ("ListDataFiles", [server.status(409)], "wait a minute"),
    "busy": ("ListDataFiles", [server.status(429)] * 9, "too many requests"),
    "busy for long": (
        "ListDataFiles",
        [server.status(429, Retry_After="86400")],
        "too many requests",
    ),
    "broken": ("ListDataFiles", [server.status(500)] * 9, "try later"),
    "dropped": ("ListDataFiles", [server.drop] * 9, "the connection failed"),
    "cut every time": ("GET /data.zip", [server.cut(100)] * 9, "the connection failed"),
    "no storage": ("GET /data.zip", [server.page(403)] * 9, "storage refuses it (403)"),
    "web page": ("GET /data.zip", [server.page()] * 9, "no good zip"),
    "web page as answer": ("ListDataFiles", [server.page()] * 9, "makes no sense"),
    "nonsense": ("ListDataFiles", [server.content(b'{"files": [7]}')] * 9, "makes no sense"),
    "empty list": ("ListDataFiles", [server.content(b"{}")] * 9, "lists no train.csv"),
}


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
@pytest.mark.parametrize("before", ["nothing", "data"])
def test_a_download_that_fails_says_why_and_leaves_what_was_there(
    kaggle, desk, capsys, files, fault, before
):
    if before == "data":
        assert main(["download"]) == 0
        capsys.readouterr()
    there = contents(desk)
    method, faults, expected = DOWNLOAD_FAULTS[fault]
    kaggle.fail(method, *faults)
    assert main(["download", "--force"]) == 3
    refused(capsys, 3, expected)
    after = contents(desk)
    after.pop("data/.digit-recognizer.zip.part", None)  # for the next try to go on from
    assert after == there
    kaggle.faults.clear()
    assert main(["download", "--force"]) == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda files: {"readme.txt": "no data"}, "no good zip"),
        (
            lambda files: files | {"train.csv": files["train.csv"] + "1\n"},
            "where Kaggle lists",
        ),
        (
            lambda files: files | {"train.csv": files["train.csv"].replace(",0,0,", ",0,x,", 1)},
            "not good: ",
        ),
    ],
)
def test_a_zip_that_is_not_the_data_is_not_kept(kaggle, desk, capsys, files, change, expected):
    kaggle.data_zip = zip_of(change(files))
    assert main(["download"]) == 3
    refused(capsys, 3, expected)
    assert contents(desk) == {}


def test_a_damaged_zip_is_not_believed_by_the_next_call(kaggle, desk, capsys, files):
    good = kaggle.data_zip
    kaggle.data_zip = good[:2000] + bytes(50) + good[2050:]
    assert main(["download"]) == 3
    refused(capsys, 3, "no good zip")
    assert contents(desk) == {}
    kaggle.data_zip = good
    assert main(["download"]) == 0


def test_names_in_the_zip_cannot_climb_out(kaggle, desk, files):
    kaggle.data_zip = zip_of(files | {"../evil.txt": "x", "/tmp/evil.txt": "x"})
    assert main(["download"]) == 0
    assert sorted(contents(desk.parent)) == [f"desk/data/{name}" for name in DATA_FILES]


def test_silence_has_an_end(kaggle, desk, capsys, monkeypatch):
    monkeypatch.setenv("DIGITKAGGLE_KAGGLE_TIMEOUT", "0.3")
    kaggle.fail("ListDataFiles", *[server.silence] * 5)
    assert main(["download"]) == 3
    refused(capsys, 3, "no answer within 0.3 s")


def test_no_network_is_said_so(kaggle, desk, capsys):
    kaggle.close()
    assert main(["download"]) == 3
    assert "proxy" in refused(capsys, 3, "check ")


IMPATIENT = """
import os, resource, signal, sys
from digitkaggle.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
limit = int(sys.argv.pop(1))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_is_said_so_and_the_download_goes_on_once_there_is_room(kaggle, desk, files):
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, "20000", "download"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: data cannot be written")
    assert set(contents(desk)) == {"data/.digit-recognizer.zip.part"}
    assert main(["download"]) == 0
    assert contents(desk) == {f"data/{name}": files[name].encode() for name in DATA_FILES}


def test_ctrl_c_leaves_only_what_the_next_call_goes_on_from(kaggle, desk):
    begun = threading.Event()

    def part_and_silence(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(kaggle.data_zip)))
        handler.end_headers()
        handler.wfile.write(kaggle.data_zip[:40_000])
        handler.wfile.flush()
        begun.set()
        return server.silence(handler)

    kaggle.fail("GET /data.zip", part_and_silence)
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, "0", "download"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert begun.wait(60)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("interrupted; this goes on where it stopped: ")
    assert said.endswith(" -m digitkaggle download\n")
    assert set(contents(desk)) == {"data/.digit-recognizer.zip.part"}
    assert main(["download"]) == 0
