"""JSON, and the competition's data in a folder or a zip."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..core import data
from ..core.basics import Digits, InputError
from ..core.data import COMPETITION, GET_IT_AGAIN, TEST_FILE, TRAIN_FILE, read_digits, read_images
from ..core.results import write_file
from ..core.settings import Settings

# What a damaged, encrypted or oddly packed zip raises.
ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


def write_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as indented JSON in one step; raises as `write_file` does."""
    write_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError if there is none, with line and column."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON that can be read ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is no JSON object, with a value for each name")
    return value


def recorded_settings(values: Mapping[str, Any]) -> Settings:
    """The settings that a run left, of an older version too: unknown fields are left out."""
    known = [field.name for field in dataclasses.fields(Settings)]
    return Settings(**{name: values[name] for name in known if name in values})


def find_data() -> Path | None:
    """The first usual place that has data, a zip in `data` too, or None."""
    archive = Path("data") / f"{COMPETITION}.zip"
    return data.find_data() or (archive if archive.exists() else None)


def read_data(location: Path) -> Digits:
    """The digits in a folder or a zip; raises as core's `read_digits`."""
    with opened(location, TRAIN_FILE, TEST_FILE) as folder:
        return dataclasses.replace(read_digits(folder), origin=str(location))


def read_test_images(location: Path) -> torch.Tensor:
    """The images of test.csv, uint8, in a folder or a zip, or in a CSV that is named itself."""
    if location.suffix == ".csv" and location.is_file():
        return read_images(location)
    with opened(location, TEST_FILE) as folder:
        return read_images(folder / TEST_FILE)


@contextlib.contextmanager
def opened(location: Path, *names: str) -> Iterator[Path]:
    """A folder with these files, or a zip with them as if it were one."""
    try:
        if location.is_dir():
            yield location
        elif zipfile.is_zipfile(location):
            with zipfile.ZipFile(location) as archive:
                yield folder_in_zip(archive, location, names)
        else:
            advice = f"name one by --data, or {GET_IT_AGAIN}"
            raise InputError(f"{location} is no folder or zip: {advice}")
    except (*ZIP_FAULTS, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{location} cannot be read ({reason}): {GET_IT_AGAIN}") from error


def folder_in_zip(archive: zipfile.ZipFile, location: Path, names: tuple[str, ...]) -> Path:
    """The one folder inside a zip that holds all of these files."""
    entries = archive.namelist()
    folders = {entry[: entry.rfind("/") + 1] for entry in entries}
    whole = [folder for folder in folders if all(folder + name in entries for name in names)]
    if len(whole) != 1:
        needed = " and ".join(names)
        raise InputError(f"{location} holds {needed} in {len(whole)} folders: {GET_IT_AGAIN}")
    return zipfile.Path(archive, at=whole[0])
