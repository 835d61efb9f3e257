"""`runs/kaggle.json`: what was pushed and submitted from here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..core.basics import InputError
from ..runs.files import read_json, write_json
from ..runs.folder import RUNS

RECORD = RUNS / "kaggle.json"


def read_record() -> dict[str, list[dict[str, Any]]]:
    """The `pushes` and `submissions`, oldest first; InputError if the file is no such record."""
    record = read_json(RECORD) if RECORD.exists() else {"pushes": [], "submissions": []}
    if not isinstance(record, dict) or not all(isinstance(part, list) for part in record.values()):
        raise InputError(f"{RECORD} is no record of pushes and submissions: move it away")
    return record


def write_record(part: str = "pushes", *entries: dict[str, Any]) -> None:
    """Add entries, with the time; with none only see to it that they can be written."""
    record, time = read_record(), datetime.now(UTC).isoformat()
    record[part] += [entry | {"time": time} for entry in entries]
    write_json(RECORD, record)
