"""JSON files, and the settings that a run left in one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core.basics import InputError
from ..core.checks import check_settings
from ..core.results import write_file
from ..core.settings import Settings


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, in one step; raises as `write_file` does."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # A file name that is not UTF-8 has surrogates, which JSON takes as escapes.
    write_file(path, text.encode(errors="backslashreplace"))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError, with line and column, if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object with a value for each name")
    return value


def restore_settings(values: Mapping[str, Any]) -> Settings:
    """The settings of an earlier run, also of an older version: unknown fields are left out."""
    known = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: values[name] for name in known if name in values})
    return check_settings(settings)


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """InputError if a file that is to be written is one of the inputs, whatever it is called."""
    existing = [file for file in inputs if file.exists()]
    for output in outputs:
        if output.exists() and any(output.samefile(file) for file in existing):
            raise InputError(f"{output} is an input, which would be overwritten: name another one")
