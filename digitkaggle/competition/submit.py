"""A submission: checked, sent once, and its score."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import requests

from ..core.basics import InputError, logger
from ..core.data import COMPETITION, KAGGLE_TEST_IMAGES
from ..core.results import METRICS, SUBMISSION
from ..runs.files import read_json
from ..runs.folder import RUNS, newest_run
from .client import Kaggle, KaggleError, one_line
from .record import read_record, write_record

LONGEST_SCORING = 300  # pauses


def submit(file: Path | None = None, message: str = "", force: bool = False) -> None:
    """Send a submission, by default the newest finished run's, and print its score."""
    path = file or newest_run(RUNS) / SUBMISSION
    metrics = read_json(path.parent / METRICS) if (path.parent / METRICS).is_file() else {}
    if "test" in metrics:
        raise InputError(f"{path} is of a run on the sample, not on the competition's data")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no submission that can be read ({error})") from error
    check_submission(text, KAGGLE_TEST_IMAGES, str(path))
    if len({row[-1] for row in text.splitlines()[1:]}) == 1:
        raise InputError(f"{path} says the same for every image, as the sample submission does")
    digest = hashlib.sha256(text.encode()).hexdigest()
    for sent in read_record()["submissions"]:
        if sent["sha256"] == digest and not force:
            raise InputError(f"{path} was sent before, as {sent['ref']}: --force sends it again")
    if found := metrics.get("validation"):
        preset, sources = metrics["settings"]["preset"], metrics["source_digest"][:12]
        message = message or f"{preset}, validation {found['accuracy']:.4%}, sources {sources}"
    description = f"{message or path.name} [{digest[:8]}]"
    kaggle = Kaggle()
    known = [entry.ref for entry in submissions(kaggle)]
    write_record()
    logger.info("sending %s: %s", path, description)
    ref = kaggle.call("submit", lambda: send(kaggle, path, text, description, known))
    entry = {"ref": ref, "file": str(path), "sha256": digest, "message": description}
    write_record("submissions", entry)
    wait_for_score(kaggle, ref)


def check_submission(text: str, images: int, name: str) -> None:
    """Refuse, naming the row, all but a header and a row for every image: 1, 2, … and a digit."""
    header, *rows = text.splitlines() or [""]
    if header != "ImageId,Label":
        raise InputError(f"{name}, line 1: the header is {header[:40]!r}, not 'ImageId,Label'")
    if len(rows) != images:
        raise InputError(f"{name} has {len(rows):,} rows for {images:,} test images")
    for number, row in enumerate(rows, start=1):
        if row[:-1] != f"{number}," or row[-1] not in "0123456789":
            raise InputError(f"{name}, row {number}: {row[:40]!r} is not '{number},' and a digit")


def submissions(kaggle: Kaggle) -> list[Any]:
    """What was submitted to the competition, as Kaggle lists it."""
    return kaggle.ask("list_submissions", competition_name=COMPETITION).submissions or []


def send(kaggle: Kaggle, path: Path, text: str, description: str, known: list[int]) -> int:
    """Make a file a submission, unless a try whose answer was lost did; the submission's number."""
    for entry in submissions(kaggle):
        if entry.ref not in known and entry.description == description:
            return entry.ref
    to, content = {"competition_name": COMPETITION}, text.encode()
    about = {"file_name": path.name, "content_length": len(content)}
    about["last_modified_epoch_seconds"] = int(path.stat().st_mtime)
    start = kaggle.send("start_submission_upload", **to, **about)
    requests.put(start.create_url, data=content, timeout=kaggle.time_limit).raise_for_status()
    fields = {"blob_file_tokens": start.token, "submission_description": description}
    answer = kaggle.send("create_submission", **to, **fields)
    if not answer.ref:
        raise KaggleError(f"submit: Kaggle did not take it: {one_line(answer.message)}")
    return answer.ref


def wait_for_score(kaggle: Kaggle, ref: int) -> None:
    """Print the public score, unless Kaggle takes too long."""
    for _ in range(LONGEST_SCORING):
        entry = next((entry for entry in submissions(kaggle) if entry.ref == ref), None)
        state = entry.status.name if entry else "PENDING"
        if state == "COMPLETE":
            print(f"score {entry.public_score or 'unknown'}")
            return
        if state == "ERROR":
            raise KaggleError(f"Kaggle rejected it: {one_line(entry.error_description)}")
        time.sleep(kaggle.pause)
    logger.warning("submission %d has no score yet: see the competition's page", ref)
