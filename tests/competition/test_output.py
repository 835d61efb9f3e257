"""`status` and `output`: the state of the run on Kaggle, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from digitkaggle.competition.client import KaggleError
from digitkaggle.competition.download import download
from digitkaggle.competition.kernel import output, push, status
from digitkaggle.core.basics import InputError
from tests.competition import server
from tests.competition.conftest import SUBMISSION, expect_error
from tests.conftest import read_folder

RUN = "anna/digitkaggle-digit-recognizer version"


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "COMPLETE"])
def test_status_prints_the_state(kaggle_after_push, capsys, state):
    kaggle_after_push.states = [state]
    status()
    assert capsys.readouterr().out == f"{RUN} 1: {state.lower()}\n"


@pytest.mark.parametrize("state", ["ERROR", "CANCEL_ACKNOWLEDGED"])
def test_status_shows_the_reason_and_the_end_of_the_log_of_a_failed_run(
    kaggle_after_push, capsys, state
):
    kaggle_after_push.states = [state]
    kaggle_after_push.failure_message = "Your notebook\nwas killed"
    kaggle_after_push.log = [{"data": f"line {number}\n"} for number in range(100)]
    with expect_error(KaggleError, "Your notebook was killed"):
        status()
    assert capsys.readouterr().err == "".join(f"line {number}\n" for number in range(80, 100))


@pytest.mark.parametrize("command", [status, output])
def test_before_a_push_status_and_output_ask_for_one(kaggle, command):
    with expect_error(InputError, "make push"):
        command()


def test_output_puts_only_the_checked_files_into_the_versions_folder(
    kaggle_after_push, repository, capsys, caplog, monkeypatch
):
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # where Kaggle's own client keeps the stale file
    stale = repository / "runs/kaggle-1"
    stale.mkdir()
    for name in ("submission.csv", "old.txt"):
        (stale / name).write_text("stale")
    kaggle_after_push.output["result.png"] = b"x"
    kaggle_after_push.metrics = {"warnings": ["two members were left out"]}
    assert output() == Path("runs/kaggle-1")
    assert capsys.readouterr().out == f"{RUN} 1: complete\nruns/kaggle-1\n"
    assert caplog.messages == ["two members were left out"]
    found = read_folder(stale)
    assert set(found) == {"result.png", "kaggle.log", "metrics.json", "submission.csv"}
    assert found["submission.csv"] == SUBMISSION.encode()
    assert found["kaggle.log"] == b"epoch 1\n"


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:evil.txt", ".."]
)
def test_no_file_name_makes_output_write_outside_the_folder(
    kaggle_after_push, repository, caplog, name
):
    kaggle_after_push.output[name] = b"x"
    before = set(read_folder(repository.parent))
    output()
    assert "left out" in caplog.text
    new = {f"work/runs/kaggle-1/{n}" for n in ("kaggle.log", "metrics.json", "submission.csv")}
    assert set(read_folder(repository.parent)) - before == new


LISTED, STATE = "ListKernelSessionOutput", "GetKernelSessionStatus"
STORED = "GET /output/0"
OUTPUT_FAILURES = {
    "running": (lambda k: setattr(k, "states", ["RUNNING"]), "still running"),
    "no submission": (lambda k: k.output.pop("submission.csv"), "submission.csv"),
    "short": (lambda k: k.output.update({"submission.csv": b"ImageId,Label\n1,2\n"}), "1 rows"),
    "no metrics": (lambda k: k.output.pop("metrics.json"), "metrics.json"),
    "other version": (lambda k: k.metrics.update(source_digest="0ld"), "sources 0ld"),
    "refused": (lambda k: k.fail(STORED, *[server.reply(code=403)] * 9), "storage refuses it"),
    "web page": (lambda k: k.fail(LISTED, *[server.reply()] * 9), "response cannot be read"),
    "no state": (lambda k: k.fail(STATE, *[server.reply(b'{"status": 7}')] * 9), "cannot be read"),
}


@pytest.mark.parametrize("failure", OUTPUT_FAILURES)
def test_an_output_that_is_not_valid_is_refused_and_the_folder_stays_as_it_was(
    kaggle_after_push, repository, failure
):
    change, expected = OUTPUT_FAILURES[failure]
    change(kaggle_after_push)
    before = read_folder(repository)
    with expect_error(KaggleError, expected):
        output()
    assert read_folder(repository) == before


def test_a_file_that_is_cut_off_is_fetched_again(kaggle_after_push, repository):
    kaggle_after_push.fail(STORED, server.cut_off(1000), server.fail_with(503))
    output()
    assert (repository / "runs/kaggle-1/submission.csv").read_text() == SUBMISSION


UNWRITABLE = [(download, "data"), (push, "runs"), (output, "runs/kaggle-1")]


@pytest.mark.parametrize(("command", "place"), UNWRITABLE)
def test_a_folder_that_cannot_be_written_is_reported(kaggle_after_push, repository, command, place):
    if place == "runs":
        (repository / "runs").rename(repository / "before")
    (repository / place).write_text("no folder")
    with expect_error(InputError, place):
        command()
    assert len(kaggle_after_push.pushes) == 1
