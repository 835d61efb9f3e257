"""`submit`: a valid submission is sent once, and its score printed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from digitkaggle.competition.client import KaggleError
from digitkaggle.competition.record import read_record
from digitkaggle.competition.submit import check_submission, submit
from digitkaggle.core.basics import InputError
from tests.competition import server
from tests.competition.conftest import METRICS, SUBMISSION, expect_error

DIGEST = hashlib.sha256(SUBMISSION.encode()).hexdigest()


def test_submit_sends_the_newest_run_and_prints_the_score(kaggle, run, capsys):
    submit()
    assert capsys.readouterr().out.endswith("score 0.99400\n")
    assert kaggle.uploads == [SUBMISSION.encode()]
    for part in ("balanced", "99.6250%", "abcdef012345"):
        assert part in kaggle.submissions[0]["description"]
    sent = read_record()["submissions"]
    assert [(entry["ref"], entry["sha256"]) for entry in sent] == [(1000, DIGEST)]
    assert sent[0]["file"] == "runs/balanced/submission.csv"


def test_another_file_is_sent_with_a_message_and_not_again_unless_forced(kaggle, folder):
    (folder / "mine.csv").write_text(SUBMISSION)
    submit(Path("mine.csv"), message="my idea")
    assert kaggle.submissions[0]["description"].startswith("my idea")
    with expect_error(InputError, "sent before, as 1000"):
        submit(Path("mine.csv"))
    assert len(kaggle.submissions) == 1
    submit(Path("mine.csv"), force=True)
    assert len(kaggle.submissions) == 2


WRONG_ROWS = {
    "": "line 1",
    "id,Label\n1,7\n2,0\n": "line 1",
    "ImageId,Label\n1,7\n2,0\n3,0\n": "3 rows for 2",
    "ImageId,Label\n0,7\n1,0\n": "row 1",
    "ImageId,Label\n1,7\n2,10\n": "row 2",
    "ImageId,Label\n1,7\n\n": "row 2",
}


@pytest.mark.parametrize("text", WRONG_ROWS)
def test_a_wrong_submission_is_refused_with_the_row(text):
    with expect_error(InputError, WRONG_ROWS[text]):
        check_submission(text, 2, "submission.csv")


INVALID_FILES = {
    "one digit": "".join(["ImageId,Label\n", *(f"{i},0\n" for i in range(1, 28_001))]).encode(),
    "no text": b"\xff\x00\x01",
    "no file": None,
}


@pytest.mark.parametrize("kind", INVALID_FILES)
def test_an_invalid_file_is_not_sent(kaggle, folder, kind):
    if INVALID_FILES[kind] is not None:
        (folder / "mine.csv").write_bytes(INVALID_FILES[kind])
    with expect_error(InputError, "mine.csv"):
        submit(Path("mine.csv"))
    assert kaggle.calls == []


def test_a_run_on_the_sample_is_not_sent(kaggle, run):
    (run / "submission.csv").rename(run / "not-for-kaggle.csv")
    (run / "metrics.json").write_text(json.dumps(METRICS | {"test": {"accuracy": 0.99}}))
    with expect_error(InputError, "sample"):
        submit()
    assert kaggle.calls == []


CREATE = "CreateSubmission"
NOT_ACCEPTED = server.reply(b'{"message": "Could not submit to competition", "ref": 0}')
SUBMIT_FAILURES = {
    "rejected": (lambda k: setattr(k, "rejected", "Wrong columns"), "Wrong columns"),
    "no storage": (lambda k: k.fail("PUT /upload", *[server.reply(code=403)] * 9), "storage"),
    "none left": (lambda k: k.fail(CREATE, server.fail_with(400, "None left")), "None left"),
    "not accepted": (lambda k: k.fail(CREATE, NOT_ACCEPTED), "Could not submit"),
}


@pytest.mark.parametrize("failure", SUBMIT_FAILURES)
def test_a_submission_that_fails_says_why(kaggle, run, failure):
    change, expected = SUBMIT_FAILURES[failure]
    change(kaggle)
    with expect_error(KaggleError, expected):
        submit()
    assert kaggle.calls.count(CREATE) <= 1


@pytest.mark.parametrize("lose_response", [server.hang_up, server.fail_with(502), server.reply()])
@pytest.mark.parametrize("accepted", [True, False])
def test_a_submission_whose_answer_was_lost_is_sent_again_only_if_it_is_not_listed(
    kaggle, run, lose_response, accepted
):
    request = {"submissionDescription": f"mine [{DIGEST[:8]}]"}
    kaggle.create_submission(request)  # by an earlier call
    kaggle.fail(
        CREATE,
        lambda handler: (accepted and kaggle.create_submission(request), lose_response(handler)),
    )
    submit(message="mine")
    assert len(kaggle.submissions) == 2
    assert kaggle.calls.count(CREATE) == (1 if accepted else 2)
