"""`status` and `output`: how the run on Kaggle stands, and what it made."""

from __future__ import annotations

from pathlib import Path

import pytest

from digitkaggle.competition.client import KaggleError
from digitkaggle.competition.download import download
from digitkaggle.competition.kernel import output, push, status
from digitkaggle.core.basics import InputError
from tests.competition import server
from tests.competition.conftest import SUBMISSION, refused
from tests.conftest import contents

RUN = "anna/digitkaggle-digit-recognizer version"


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "COMPLETE"])
def test_status_prints_the_state(pushed, capsys, state):
    pushed.states = [state]
    status()
    assert capsys.readouterr().out == f"{RUN} 1: {state.lower()}\n"


@pytest.mark.parametrize("state", ["ERROR", "CANCEL_ACKNOWLEDGED"])
def test_of_a_failed_run_the_reason_and_the_end_of_the_log_are_shown(pushed, capsys, state):
    pushed.states = [state]
    pushed.failure = "Your notebook\nwas killed"
    pushed.log = [{"data": f"line {number}\n"} for number in range(100)]
    with refused(KaggleError, "Your notebook was killed"):
        status()
    assert capsys.readouterr().err == "".join(f"line {number}\n" for number in range(80, 100))


@pytest.mark.parametrize("command", [status, output])
def test_before_a_push_there_is_nothing_to_ask_for(kaggle, command):
    with refused(InputError, "make push"):
        command()


def test_output_puts_the_checked_files_alone_into_a_folder_of_the_version(
    pushed, repository, capsys, caplog, monkeypatch
):
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # where Kaggle's own client would keep the stale file
    stale = repository / "runs/kaggle-1"
    stale.mkdir()
    for name in ("submission.csv", "old.txt"):
        (stale / name).write_text("stale")
    pushed.output["result.png"] = b"x"
    pushed.metrics = {"warnings": ["two members were left out"]}
    assert output() == Path("runs/kaggle-1")
    assert capsys.readouterr().out == f"{RUN} 1: complete\nruns/kaggle-1\n"
    assert caplog.messages == ["two members were left out"]
    there = contents(stale)
    assert set(there) == {"result.png", "kaggle.log", "metrics.json", "submission.csv"}
    assert there["submission.csv"] == SUBMISSION.encode()
    assert there["kaggle.log"] == b"epoch 1\n"


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:evil.txt", ".."]
)
def test_nothing_is_written_outside_the_folder_whatever_its_name(pushed, repository, caplog, name):
    pushed.output[name] = b"x"
    before = set(contents(repository.parent))
    output()
    assert "left out" in caplog.text
    new = {f"work/runs/kaggle-1/{n}" for n in ("kaggle.log", "metrics.json", "submission.csv")}
    assert set(contents(repository.parent)) - before == new


LISTED, STATE = "ListKernelSessionOutput", "GetKernelSessionStatus"
STORED = "GET /output/0"
OUTPUT_FAULTS = {
    "running": (lambda k: setattr(k, "states", ["RUNNING"]), "still running"),
    "no submission": (lambda k: k.output.pop("submission.csv"), "submission.csv"),
    "short": (lambda k: k.output.update({"submission.csv": b"ImageId,Label\n1,2\n"}), "1 rows"),
    "no metrics": (lambda k: k.output.pop("metrics.json"), "metrics.json"),
    "other version": (lambda k: k.metrics.update(source_digest="0ld"), "sources 0ld"),
    "refused": (lambda k: k.fail(STORED, *[server.content(code=403)] * 9), "storage refuses it"),
    "web page": (lambda k: k.fail(LISTED, *[server.content()] * 9), "makes no sense"),
    "nonsense": (lambda k: k.fail(STATE, *[server.content(b'{"status": 7}')] * 9), "no sense"),
}


@pytest.mark.parametrize("fault", OUTPUT_FAULTS)
def test_an_output_that_is_not_good_is_refused_and_the_folder_stays_as_it_was(
    pushed, repository, fault
):
    change, expected = OUTPUT_FAULTS[fault]
    change(pushed)
    before = contents(repository)
    with refused(KaggleError, expected):
        output()
    assert contents(repository) == before


def test_a_file_that_is_cut_is_fetched_again(pushed, repository):
    pushed.fail(STORED, server.cut(1000), server.status(503))
    output()
    assert (repository / "runs/kaggle-1/submission.csv").read_text() == SUBMISSION


BLOCKED = [(download, "data"), (push, "runs"), (output, "runs/kaggle-1")]


@pytest.mark.parametrize(("command", "place"), BLOCKED)
def test_a_folder_that_cannot_be_written_is_said_so(pushed, repository, command, place):
    if place == "runs":
        (repository / "runs").rename(repository / "before")
    (repository / place).write_text("no folder")
    with refused(InputError, place):
        command()
    assert len(pushed.pushes) == 1
