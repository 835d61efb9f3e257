"""`runs/kaggle.json`: the `pushes` and `submissions` from here, oldest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..runs.files import read_json, write_json
from ..runs.folder import RUNS

RECORD = RUNS / "kaggle.json"


def read_record() -> dict[str, list[dict[str, Any]]]:
    """All entries, by kind; InputError if the file is damaged."""
    found = read_json(RECORD) if RECORD.exists() else {}
    return {"pushes": [], "submissions": []} | found


def check_record() -> None:
    """Raise InputError if the record is damaged or cannot be written."""
    write_json(RECORD, read_record())


def add_to_record(kind: str, entry: dict[str, Any]) -> None:
    """Add an entry, with the time; raises like `check_record`."""
    record = read_record()
    record[kind].append(entry | {"time": datetime.now(UTC).isoformat()})
    write_json(RECORD, record)
