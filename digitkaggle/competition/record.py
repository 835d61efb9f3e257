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
    found = read_json(RECORD) if RECORD.exists() else {}
    try:
        return {part: [*map(dict, found.get(part, []))] for part in ("pushes", "submissions")}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{RECORD} is no record of pushes and submissions: move it away"
        ) from error


def write_record(part: str = "pushes", **entry: Any) -> None:
    """Add an entry, with the time, in the place of one of the same `ref`; without one, as it is."""
    record = read_record()
    if entry:
        entry["time"] = datetime.now(UTC).isoformat()
        others = [old for old in record[part] if old.get("ref", old) != entry.get("ref")]
        record[part] = [*others, entry]
    write_json(RECORD, record)
