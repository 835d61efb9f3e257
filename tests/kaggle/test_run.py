"""`status` and `output`: how the run stands, and what it made."""

from __future__ import annotations

from pathlib import Path

import pytest

from digitkaggle.cli import main
from tests import kaggle_server as server
from tests.conftest import contents
from tests.kaggle.conftest import SUBMISSION, refused


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "COMPLETE"])
def test_status_prints_the_state(pushed, capsys, state):
    pushed.states = [state]
    assert main(["status"]) == 0
    assert capsys.readouterr().out == (
        f"anna/digitkaggle-digit-recognizer version 1: {state.lower()}\n"
    )


@pytest.mark.parametrize("state", ["ERROR", "CANCEL_ACKNOWLEDGED"])
def test_a_failed_run_exits_3_with_the_reason_and_the_end_of_the_log(pushed, capsys, state):
    pushed.states = [state]
    pushed.failure = "Your notebook\nwas killed"
    pushed.log = [{"data": f"line {number}\n"} for number in range(100)]
    assert main(["status"]) == 3
    captured = capsys.readouterr()
    assert "Your notebook was killed" in captured.err
    assert "line 99" in captured.err
    assert "line 20" not in captured.err


@pytest.mark.parametrize("command", ["status", "output"])
def test_before_a_push_there_is_nothing_to_ask_for(kaggle, desk, capsys, command):
    assert main([command]) == 2
    refused(capsys, 2, "make push")


def test_output_puts_the_checked_files_into_a_folder_of_the_version(pushed, repository, capsys):
    pushed.states = ["COMPLETE"]
    assert main(["output"]) == 0
    assert capsys.readouterr().out == "runs/kaggle-1\n"
    folder = repository / "runs/kaggle-1"
    assert sorted(contents(folder)) == ["kaggle.log", "metrics.json", "submission.csv"]
    assert (folder / "submission.csv").read_text() == SUBMISSION
    assert (folder / "kaggle.log").read_text() == "epoch 1\n"


def test_output_replaces_an_older_copy_of_itself_even_east_of_utc(pushed, repository, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    pushed.states = ["COMPLETE"]
    stale = repository / "runs/kaggle-1"
    stale.mkdir()
    (stale / "submission.csv").write_text("stale")
    (stale / "old.txt").write_text("stale")
    assert main(["output"]) == 0
    assert (stale / "submission.csv").read_text() == SUBMISSION
    assert not (stale / "old.txt").exists()


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
def test_nothing_is_written_outside_the_folder_whatever_its_name(pushed, repository, capsys, name):
    pushed.states = ["COMPLETE"]
    pushed.output["evil"] = b"x"
    pushed.output_names["evil"] = name
    before = set(contents(repository.parent))
    assert main(["output"]) == 0
    assert "left out" in capsys.readouterr().err
    new = set(contents(repository.parent)) - before
    assert all(path.startswith("desk/runs/kaggle-1/") for path in new)
    assert not any(Path(path).name == "e" or "evil" in path for path in new)


def test_files_in_folders_keep_their_folders(pushed, repository):
    pushed.states = ["COMPLETE"]
    pushed.output["curves"] = b"x"
    pushed.output_names["curves"] = "figures/curves.png"
    assert main(["output"]) == 0
    assert (repository / "runs/kaggle-1/figures/curves.png").exists()


OUTPUT_FAULTS = {
    "running": (lambda k: setattr(k, "states", ["RUNNING"]), "still running"),
    "no submission": (lambda k: k.output.pop("submission.csv"), "no submission.csv"),
    "short submission": (
        lambda k: k.output.update({"submission.csv": b"ImageId,Label\n1,2\n"}),
        "1 rows for 28,000",
    ),
    "error page": (lambda k: k.output.update({"submission.csv": b"<html>403"}), "not good"),
    "older version": (
        lambda k: k.output.update({"metrics.json": b'{"source_digest": "0ld"}'}),
        "of another version (sources 0ld)",
    ),
    "no metrics": (lambda k: k.output.pop("metrics.json"), "metrics.json cannot be read"),
    "address refused": (
        lambda k: k.fail("GET /output/submission.csv", *[server.page(403)] * 9),
        "storage refuses it (403)",
    ),
    "dropped": (
        lambda k: k.fail("GET /output/submission.csv", *[server.drop] * 9),
        "the connection failed",
    ),
    "not ours": (
        lambda k: k.fail("ListKernelSessionOutput", server.status(403, "Permission denied")),
        "see that the credentials in KAGGLE_KEY are yours",
    ),
}


@pytest.mark.parametrize("fault", OUTPUT_FAULTS)
def test_an_output_that_is_not_good_is_refused_and_the_folder_stays_as_it_was(
    pushed, repository, capsys, fault
):
    pushed.states = ["COMPLETE"]
    change, expected = OUTPUT_FAULTS[fault]
    change(pushed)
    before = contents(repository)
    assert main(["output"]) == 3
    refused(capsys, 3, expected)
    assert contents(repository) == before


def test_output_after_another_push_does_not_believe_the_earlier_runs_end(pushed):
    assert main(["push"]) == 0
    pushed.states = ["COMPLETE", "COMPLETE", "RUNNING", "COMPLETE"]
    assert main(["output"]) == 0
    assert pushed.calls.count("GetKernelSessionStatus") == 4
