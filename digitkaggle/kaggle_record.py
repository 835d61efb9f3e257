"""`runs/kaggle.json`: what was pushed and sent from here."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_json, write_json
from .locations import RUNS_FOLDER

RECORD = RUNS_FOLDER / "kaggle.json"


def read_record() -> dict[str, list[dict[str, Any]]]:
    """The `pushes` and `submissions`, oldest first.

    Raises:
        InputError: there is a file of that name that is no such record.
    """
    empty: dict[str, list[dict[str, Any]]] = {"pushes": [], "submissions": []}
    if not RECORD.exists():
        return empty
    found = read_json(RECORD)
    good = isinstance(found, dict) and all(
        isinstance(found.get(part, []), list)
        and all(isinstance(entry, dict) for entry in found.get(part, []))
        for part in empty
    )
    if not good:
        raise InputError(f"{RECORD} is not the record that we keep: move it away")
    return empty | found


def prove_record() -> None:
    """Write the record as it is: what cannot be recorded must not be sent.

    Raises:
        InputError: it cannot be written.
    """
    write_json(RECORD, read_record())


def record_push(**entry: Any) -> None:
    """Add a push: its `id` (owner/slug), `kind`, `url`, `version` and `source_digest`."""
    _add("pushes", entry)


def record_submission(ref: int, path: Path, digest: str, message: str, score: str = "") -> None:
    """Add a submission, or its score once that is known."""
    entry = {"ref": ref, "file": str(path), "sha256": digest, "message": message, "score": score}
    _add("submissions", entry)


def age(entry: dict[str, Any]) -> float:
    """Seconds since an entry was recorded, to the next whole one; never more than it is."""
    recorded = datetime.datetime.fromisoformat(entry["time"])
    return (datetime.datetime.now(datetime.UTC) - recorded).total_seconds() - 1


def _add(part: str, entry: dict[str, Any]) -> None:
    record = read_record()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    kept = [old for old in record[part] if "ref" not in entry or old.get("ref") != entry["ref"]]
    record[part] = [*kept, {**entry, "time": now}]
    write_json(RECORD, record)
