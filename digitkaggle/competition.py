"""The competition from the desk: a submission is checked, sent once, and its score told."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from .digits import KAGGLE_TEST_IMAGES
from .errors import InputError, KaggleError
from .files import read_json
from .kaggle_client import COMPETITION_PAGE, Kaggle, first_pause, one_line
from .kaggle_record import prove_record, read_record, record_submission
from .locations import COMPETITION, RUNS_FOLDER
from .log import logger
from .run_folder import CHECKPOINT, METRICS, SUBMISSION
from .submission import check_submission, read_submission

LONGEST_SCORING = 300  # pauses that a score is waited for


def submit(file: Path | None = None, *, message: str = "", force: bool = False) -> None:
    """Send a submission to the competition and print its score.

    Args:
        file: what to send; None takes the submission of the run that ended last.
        message: stands with the submission; left empty, preset, validation accuracy and sources do.
        force: send even what was sent before.

    Raises:
        InputError: no valid submission, or one that was sent before.
        KaggleError: Kaggle refused it, or failed.
    """
    path = file or _newest_submission()
    text = read_submission(path)
    _check_worth_sending(path, text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    for sent in read_record()["submissions"]:
        if sent["sha256"] == digest and not force:
            score = f", score {sent['score']}" if sent.get("score") else ""
            raise InputError(
                f"{path} was sent before (submission {sent['ref']}{score}): --force sends it again"
            )
    kaggle = Kaggle()
    description = f"{message or describe(path)} [{digest[:8]}]"
    known = {entry.ref for entry in _submissions(kaggle)}
    _tell_allowance(kaggle)
    prove_record()
    logger.info("sending %s: %s", path, description)
    token = _upload(kaggle, path, text)
    ref = _create(kaggle, token, description, known)
    record_submission(ref, path, digest, description)
    score = _wait_for_score(kaggle, ref)
    if score:
        record_submission(ref, path, digest, description, score)
        print(f"score {score}")


def _newest_submission() -> Path:
    # The metrics are what a run writes last, and what an output is checked by.
    runs = [path.parent for path in RUNS_FOLDER.glob(f"*/{METRICS}")]
    found = [
        run for run in runs if (run / SUBMISSION).is_file() and not (run / CHECKPOINT).exists()
    ]
    if not found:
        raise InputError(f"{RUNS_FOLDER} holds no finished run with a {SUBMISSION}: make run first")
    newest = max(found, key=lambda run: (run / METRICS).stat().st_mtime)
    logger.info("taking the newest run's: %s", newest / SUBMISSION)
    return newest / SUBMISSION


def _check_worth_sending(path: Path, text: str) -> None:
    check_submission(text, KAGGLE_TEST_IMAGES, str(path))
    labels = {line.partition(",")[2] for line in text.splitlines()[1:]}
    if len(labels) == 1:
        raise InputError(
            f"{path} says {labels.pop()} for every image, as the sample submission does: not sent"
        )
    metrics = path.parent / METRICS
    if metrics.is_file() and "test" in (read_json(metrics) or {}):
        raise InputError(f"{path} is of a run on the sample, not on the competition's data")


def describe(path: Path) -> str:
    """The message that goes with a submission: preset, validation accuracy, sources."""
    try:
        metrics = read_json(path.parent / METRICS)
        return (
            f"digitkaggle {metrics['settings']['preset']}, "
            f"validation {metrics['validation']['accuracy']:.4%}, "
            f"sources {metrics['source_digest'][:12]}"
        )
    except (InputError, KeyError, TypeError, ValueError):
        return f"digitkaggle, {path.name}"


def _submissions(kaggle: Kaggle) -> list[Any]:
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    request = ApiListSubmissionsRequest()
    request.competition_name = COMPETITION
    return kaggle.call(
        "list the submissions",
        lambda: kaggle.competitions.list_submissions(request).submissions or [],
    )


def _tell_allowance(kaggle: Kaggle) -> None:
    """Say how many submissions are left today, where Kaggle tells."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionLimitsRequest

    request = ApiGetSubmissionLimitsRequest()
    request.competition_name = COMPETITION
    try:
        limits = kaggle.competitions.get_submission_limits(request)
    except Exception:
        return  # a courtesy, which older servers do not know
    if limits.num_allowed_now:
        logger.info("%d submissions are left today, this one included", limits.num_allowed_now)
    elif limits.num_today:
        raise KaggleError(
            f"all of today's submissions are used ({limits.num_today}): wait until midnight UTC"
        )


def _upload(kaggle: Kaggle, path: Path, text: str) -> str:
    from kagglesdk.competitions.types.competition_api_service import (
        ApiStartSubmissionUploadRequest,
    )

    content = text.encode()
    request = ApiStartSubmissionUploadRequest()
    request.competition_name = COMPETITION
    request.file_name = path.name
    request.content_length = len(content)
    request.last_modified_epoch_seconds = int(path.stat().st_mtime)

    def upload() -> str:
        start = kaggle.competitions.start_submission_upload(request)
        kaggle.put(start.create_url, content)
        return start.token

    return kaggle.call("upload the submission", upload)


def _create(kaggle: Kaggle, token: str, description: str, known: set[int]) -> int:
    """Make the uploaded file a submission, once: after a doubtful failure the list is asked first.

    Returns:
        The submission's number.
    """
    from kagglesdk.competitions.types.competition_api_service import ApiCreateSubmissionRequest

    request = ApiCreateSubmissionRequest()
    request.competition_name = COMPETITION
    request.blob_file_tokens = token
    request.submission_description = description

    for last_try in (False, True):
        try:
            answer = kaggle.call(
                "submit", lambda: kaggle.competitions.create_submission(request), repeatable=False
            )
        except KaggleError:
            time.sleep(first_pause())
            for entry in _submissions(kaggle):
                if entry.ref not in known and entry.description == description:
                    return entry.ref
            if last_try:
                raise
        else:
            if answer.ref:
                return answer.ref
            raise KaggleError(f"submit: Kaggle did not take it: {one_line(answer.message)}")
    raise AssertionError("the last try returns or raises")


def _wait_for_score(kaggle: Kaggle, ref: int) -> str:
    """The public score; empty if Kaggle takes too long."""
    for _ in range(LONGEST_SCORING):
        entry = next((entry for entry in _submissions(kaggle) if entry.ref == ref), None)
        state = entry.status.name if entry else "PENDING"
        if state == "COMPLETE":
            return entry.public_score or "unknown"
        if state == "ERROR":
            reason = one_line(entry.error_description or "no reason given")
            raise KaggleError(f"Kaggle rejected submission {ref}: {reason}")
        time.sleep(first_pause())
    logger.warning(
        "submission %d is in, its score still to come: see %s/submissions", ref, COMPETITION_PAGE
    )
    return ""
