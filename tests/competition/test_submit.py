"""`submit`: what is worth sending, sent once, and its score."""

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
from tests.competition.conftest import METRICS, SUBMISSION, refused

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


def test_a_file_of_ones_own_is_sent_with_a_message_and_not_again_unless_forced(kaggle, folder):
    (folder / "mine.csv").write_text(SUBMISSION)
    submit(Path("mine.csv"), message="my idea")
    assert kaggle.submissions[0]["description"].startswith("my idea")
    with refused(InputError, "sent before, as 1000"):
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
def test_a_wrong_submission_is_refused_with_its_row(text):
    with refused(InputError, WRONG_ROWS[text]):
        check_submission(text, 2, "submission.csv")


WORTHLESS = {
    "one digit": "".join(["ImageId,Label\n", *(f"{i},0\n" for i in range(1, 28_001))]).encode(),
    "no text": b"\xff\x00\x01",
    "nothing": None,
}


@pytest.mark.parametrize("kind", WORTHLESS)
def test_a_file_that_is_worth_nothing_is_not_sent(kaggle, folder, kind):
    if WORTHLESS[kind] is not None:
        (folder / "mine.csv").write_bytes(WORTHLESS[kind])
    with refused(InputError, "mine.csv"):
        submit(Path("mine.csv"))
    assert kaggle.calls == []


def test_a_run_on_the_sample_is_not_sent(kaggle, run):
    (run / "submission.csv").rename(run / "not-for-kaggle.csv")
    (run / "metrics.json").write_text(json.dumps(METRICS | {"test": {"accuracy": 0.99}}))
    with refused(InputError, "sample"):
        submit()
    assert kaggle.calls == []


CREATE = "CreateSubmission"
NOT_TAKEN = server.content(b'{"message": "Could not submit to competition", "ref": 0}')
SUBMIT_FAULTS = {
    "rejected": (lambda k: setattr(k, "rejected", "Wrong columns"), "Wrong columns"),
    "no storage": (lambda k: k.fail("PUT /upload", *[server.content(code=403)] * 9), "storage"),
    "none left": (lambda k: k.fail(CREATE, server.status(400, "None left")), "None left"),
    "not taken": (lambda k: k.fail(CREATE, NOT_TAKEN), "Could not submit"),
}


@pytest.mark.parametrize("fault", SUBMIT_FAULTS)
def test_a_submission_that_fails_says_why(kaggle, run, fault):
    change, expected = SUBMIT_FAULTS[fault]
    change(kaggle)
    with refused(KaggleError, expected):
        submit()
    assert kaggle.calls.count(CREATE) <= 1


@pytest.mark.parametrize("lost", [server.drop, server.status(502), server.content()])
@pytest.mark.parametrize("taken", [True, False])
def test_a_submission_whose_answer_was_lost_is_sent_again_only_if_it_is_not_listed(
    kaggle, run, lost, taken
):
    request = {"submissionDescription": f"mine [{DIGEST[:8]}]"}
    kaggle.create_submission(request)  # by an earlier call
    kaggle.fail(
        CREATE, lambda handler: (taken and kaggle.create_submission(request), lost(handler))
    )
    submit(message="mine")
    assert len(kaggle.submissions) == 2
    assert kaggle.calls.count(CREATE) == (1 if taken else 2)
