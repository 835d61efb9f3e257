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

from torch import Tensor

from ..core.basics import Digits, InputError
from ..core.data import DOWNLOAD_ADVICE, TEST_FILE, TRAIN_FILE, read_digits, read_images
from ..core.kaggle import COMPETITION, find_data
from ..core.results import write_file
from ..core.settings import Settings

# What zipfile raises over a damaged, encrypted or unusual zip.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, in one step; raises as `write_file` does."""
    write_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; InputError, with line and column, if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object with a value for each name")
    return value


def restore_settings(values: Mapping[str, Any]) -> Settings:
    """The settings of an earlier run, also of an older version: unknown fields are left out."""
    known = [field.name for field in dataclasses.fields(Settings)]
    return Settings(**{name: values[name] for name in known if name in values})


def find_default_data() -> Path | None:
    """Where data are without `--data`: a folder with both CSVs, or a zip in `data`, or None."""
    archive = Path("data") / f"{COMPETITION}.zip"
    return find_data() or (archive if archive.exists() else None)


def read_data(location: Path) -> Digits:
    """The digits in a folder or a zip; raises as core's `read_digits`."""
    with open_location(location, TRAIN_FILE, TEST_FILE) as folder:
        return dataclasses.replace(read_digits(folder), origin=str(location))


def read_test_images(location: Path) -> Tensor:
    """The images of test.csv, uint8, in a folder or a zip, or of a CSV itself."""
    if location.suffix == ".csv" and location.is_file():
        return read_images(location)
    with open_location(location, TEST_FILE) as folder:
        return read_images(folder / TEST_FILE)


@contextlib.contextmanager
def open_location(location: Path, *names: str) -> Iterator[Path]:
    """A folder with these files, or a zip with them as if it were a folder."""
    try:
        if location.is_dir():
            yield location
        elif zipfile.is_zipfile(location):
            with zipfile.ZipFile(location) as archive:
                yield find_folder_in_zip(archive, location, names)
        else:
            advice = f"name one by --data, or {DOWNLOAD_ADVICE}"
            raise InputError(f"{location} is not a folder or zip: {advice}")
    except (*ZIP_ERRORS, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{location} cannot be read ({reason}): {DOWNLOAD_ADVICE}") from error


def find_folder_in_zip(archive: zipfile.ZipFile, location: Path, names: tuple[str, ...]) -> Path:
    """The one folder inside a zip that holds all of these files."""
    entries = archive.namelist()
    folders = {entry[: entry.rfind("/") + 1] for entry in entries}
    complete = [folder for folder in folders if all(folder + name in entries for name in names)]
    if len(complete) != 1:
        needed = " and ".join(names)
        raise InputError(f"{location} holds {needed} in {len(complete)} folders: {DOWNLOAD_ADVICE}")
    return zipfile.Path(archive, at=complete[0])
