"""`submit`: what is worth sending, sent once, and its score."""

from __future__ import annotations

import hashlib
import json

import pytest

from digitkaggle.cli import main
from tests import kaggle_server as server
from tests.kaggle.conftest import METRICS, SUBMISSION, record, refused

SAMPLE_SUBMISSION = "ImageId,Label\n" + "".join(f"{i},0\n" for i in range(1, 28_001))


def test_submit_sends_the_newest_run_and_prints_the_score(kaggle, desk, run, capsys):
    assert main(["submit"]) == 0
    captured = capsys.readouterr()
    assert "taking the newest run's: runs/balanced/submission.csv" in captured.out
    assert "4 submissions are left today" in captured.out
    assert captured.out.endswith("score 0.99400\n")
    assert list(kaggle.uploads.values()) == [SUBMISSION.encode()]
    message = kaggle.submissions[0]["description"]
    for part in ("balanced", "99.6250%", "abcdef012345"):
        assert part in message
    sent = record(desk)["submissions"]
    assert [(entry["ref"], entry["score"]) for entry in sent] == [(1000, "0.99400")]
    assert sent[0]["sha256"] == hashlib.sha256(SUBMISSION.encode()).hexdigest()


def test_quiet_leaves_the_score_alone_on_standard_output(kaggle, run, capsys):
    assert main(["submit", "--quiet"]) == 0
    assert capsys.readouterr().out == "score 0.99400\n"


def test_a_file_and_a_message_of_ones_own_can_be_sent(kaggle, desk):
    (desk / "mine.csv").write_text(SUBMISSION)
    assert main(["submit", "mine.csv", "--message", "my idea"]) == 0
    assert kaggle.submissions[0]["description"].startswith("my idea")


def test_the_same_file_is_not_sent_twice_unless_forced(kaggle, desk, run, capsys):
    assert main(["submit"]) == 0
    capsys.readouterr()
    assert main(["submit"]) == 2
    refused(capsys, 2, "sent before (submission 1000, score 0.99400)")
    assert len(kaggle.submissions) == 1
    assert main(["submit", "--force"]) == 0
    assert len(kaggle.submissions) == 2


WORTHLESS = {
    "empty": ("", "line 1"),
    "short": (SUBMISSION[:-20], "rows for 28,000"),
    "sample": (SAMPLE_SUBMISSION, "says 0 for every image"),
    "wrong order": (SUBMISSION.replace("\n1,1\n2,2\n", "\n2,2\n1,1\n"), "ImageId is '2', not 1"),
    "no digit": (SUBMISSION.replace("\n5,5\n", "\n5,15\n"), "Label '15' is no digit"),
    "binary": ("\x00\x01", "line 1"),
}


@pytest.mark.parametrize("kind", WORTHLESS)
def test_a_file_that_is_worth_nothing_is_not_sent(kaggle, desk, capsys, kind):
    text, expected = WORTHLESS[kind]
    (desk / "mine.csv").write_text(text)
    assert main(["submit", "mine.csv"]) == 2
    refused(capsys, 2, expected)
    assert kaggle.calls == []


def test_a_run_on_the_sample_is_not_sent(kaggle, run, capsys):
    (run / "metrics.json").write_text(json.dumps(METRICS | {"test": {"accuracy": 0.99}}))
    assert main(["submit"]) == 2
    refused(capsys, 2, "run on the sample")
    assert kaggle.calls == []


def test_missing_files_and_runs_are_said_so(kaggle, desk, capsys):
    assert main(["submit"]) == 2
    refused(capsys, 2, "make run first")
    assert main(["submit", "nothing.csv"]) == 2
    refused(capsys, 2, "nothing.csv cannot be read")


SUBMIT_FAULTS = {
    "rejected": (
        lambda k: setattr(k, "rejected", "Wrong columns"),
        "submission 1000: Wrong columns",
    ),
    "no more today": (
        lambda k: setattr(k, "limits", {"numToday": 5, "numAllowedNow": 0}),
        "all of today's submissions are used (5)",
    ),
    "upload refused": (lambda k: k.fail("PUT", *[server.page(403)] * 9), "upload the submission"),
    "upload dropped": (lambda k: k.fail("PUT", *[server.drop] * 9), "the connection failed"),
    "rules": (lambda k: k.fail("StartSubmissionUpload", server.status(403)), "accept the rules"),
    "not taken": (
        lambda k: k.fail(
            "CreateSubmission",
            server.content(b'{"message": "Could not submit to competition", "ref": 0}'),
        ),
        "Could not submit",
    ),
    "create fails": (
        lambda k: k.fail("CreateSubmission", *[server.status(500)] * 9),
        "submit: Kaggle has a fault",
    ),
}


@pytest.mark.parametrize("fault", SUBMIT_FAULTS)
def test_a_submission_that_fails_says_why(kaggle, desk, run, capsys, fault):
    change, expected = SUBMIT_FAULTS[fault]
    change(kaggle)
    assert main(["submit"]) == 3
    refused(capsys, 3, expected)
    assert len(kaggle.submissions) <= 1


def test_a_submission_whose_answer_was_lost_is_found_and_not_sent_again(kaggle, run, capsys):
    def takes_it_and_drops(handler):
        digest = hashlib.sha256(SUBMISSION.encode()).hexdigest()[:8]
        kaggle.create_submission({"submissionDescription": f"mine [{digest}]"})
        return server.drop(handler)

    kaggle.fail("CreateSubmission", takes_it_and_drops)
    assert main(["submit", "--message", "mine"]) == 0
    assert capsys.readouterr().out.endswith("score 0.99400\n")
    assert len(kaggle.submissions) == 1
    assert kaggle.calls.count("CreateSubmission") == 1


def test_a_submission_that_surely_did_not_go_through_is_sent_again(kaggle, run):
    kaggle.fail("CreateSubmission", server.drop)
    assert main(["submit"]) == 0
    assert len(kaggle.submissions) == 1


def test_a_server_that_knows_no_limits_is_no_hindrance(kaggle, run):
    kaggle.limits = None
    assert main(["submit"]) == 0
