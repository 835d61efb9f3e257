"""Check a submission, upload it once, and wait for its score."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import requests

from ..core.basics import InputError, logger
from ..core.kaggle import COMPETITION, KAGGLE_TEST_IMAGES
from ..core.results import METRICS, SUBMISSION
from ..runs.files import read_json
from ..runs.folder import RUNS, find_newest_run
from .client import Kaggle, KaggleError, join_lines
from .record import add_to_record, check_record, read_record

SCORING_PAUSES = 300


def submit(file: Path | None = None, message: str = "", force: bool = False) -> None:
    """Upload a submission, by default the newest finished run's, and print its public score.

    Raises InputError for a file that is not worth sending or, without `force`, was sent before;
    KaggleError if Kaggle rejects it.
    """
    path = file or find_newest_run(RUNS) / SUBMISSION
    metrics = read_json(path.parent / METRICS) if (path.parent / METRICS).is_file() else {}
    if "test" in metrics:
        raise InputError(f"{path} comes from a run on the sample, not on the competition's data")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a submission ({error})") from error
    check_submission(text, KAGGLE_TEST_IMAGES, str(path))
    if len({row[-1] for row in text.splitlines()[1:]}) == 1:
        raise InputError(f"{path} predicts one digit for all images, like the sample submission")
    digest = hashlib.sha256(text.encode()).hexdigest()
    for sent in read_record()["submissions"]:
        if sent["sha256"] == digest and not force:
            raise InputError(f"{path} was sent before, as {sent['ref']}: --force sends it again")
    if found := metrics.get("validation"):
        preset, sources = metrics["settings"]["preset"], metrics["source_digest"][:12]
        message = message or f"{preset}, validation {found['accuracy']:.4%}, sources {sources}"
    description = f"{message or path.name} [{digest[:8]}]"
    kaggle = Kaggle()
    known = [entry.ref for entry in list_submissions(kaggle)]
    check_record()
    logger.info("uploading %s: %s", path, description)
    ref = kaggle.call("submit", lambda: upload(kaggle, path, text, description, known))
    entry = {"ref": ref, "file": str(path), "sha256": digest, "message": description}
    add_to_record("submissions", entry)
    wait_for_score(kaggle, ref)


def check_submission(text: str, images: int, name: str) -> None:
    """Raise InputError, with file name and row, unless all rows are `NUMBER,DIGIT`, from 1 on."""
    header, *rows = text.splitlines() or [""]
    if header != "ImageId,Label":
        raise InputError(f"{name}, line 1: the header is {header[:40]!r}, not 'ImageId,Label'")
    if len(rows) != images:
        raise InputError(f"{name} has {len(rows):,} rows for {images:,} test images")
    for number, row in enumerate(rows, start=1):
        if row[:-1] != f"{number}," or row[-1] not in "0123456789":
            raise InputError(f"{name}, row {number}: {row[:40]!r} is not '{number},' and a digit")


def list_submissions(kaggle: Kaggle) -> list[Any]:
    """The account's submissions to the competition."""
    return kaggle.ask("list_submissions", competition_name=COMPETITION).submissions or []


def upload(kaggle: Kaggle, path: Path, text: str, description: str, known: list[int]) -> int:
    """Make a submission and return its number; one attempt, for use within `Kaggle.call`.

    If an earlier attempt made it and only the response was lost, it is not made again.
    """
    for entry in list_submissions(kaggle):
        if entry.ref not in known and entry.description == description:
            return entry.ref
    content = text.encode()
    start = kaggle.send(
        "start_submission_upload",
        competition_name=COMPETITION,
        file_name=path.name,
        content_length=len(content),
        last_modified_epoch_seconds=int(path.stat().st_mtime),
    )
    requests.put(start.create_url, data=content, timeout=kaggle.time_limit).raise_for_status()
    response = kaggle.send(
        "create_submission",
        competition_name=COMPETITION,
        blob_file_tokens=start.token,
        submission_description=description,
    )
    if not response.ref:
        raise KaggleError(f"submit: Kaggle did not accept it: {join_lines(response.message)}")
    return response.ref


def wait_for_score(kaggle: Kaggle, ref: int) -> None:
    """Print the public score of a submission, or a warning if Kaggle takes too long."""
    for _ in range(SCORING_PAUSES):
        entry = next((entry for entry in list_submissions(kaggle) if entry.ref == ref), None)
        state = entry.status.name if entry else "PENDING"
        if state == "COMPLETE":
            print(f"score {entry.public_score or 'unknown'}")
            return
        if state == "ERROR":
            raise KaggleError(f"Kaggle rejected it: {join_lines(entry.error_description)}")
        time.sleep(kaggle.pause)
    logger.warning("submission %d has no score yet: see the competition's page", ref)
