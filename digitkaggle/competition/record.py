"""`runs/kaggle.json`: the `pushes` and `submissions` from here, oldest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..runs.files import read_json, write_json
from ..runs.folder import RUNS

RECORD = RUNS / "kaggle.json"


def read_record() -> dict[str, list[dict[str, Any]]]:
    """All entries, by kind."""
    recorded = read_json(RECORD) if RECORD.exists() else {}
    return {"pushes": [], "submissions": []} | recorded


def write_record(kind: str = "pushes", *entries: dict[str, Any]) -> None:
    """Add entries, with the time; with none only see to it that they can be written."""
    record, time = read_record(), datetime.now(UTC).isoformat()
    record[kind] += [entry | {"time": time} for entry in entries]
    write_json(RECORD, record)
