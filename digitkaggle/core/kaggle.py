"""Kaggle.

Where the data and the results are on Kaggle's machines, and here."""

from __future__ import annotations

import os
from pathlib import Path

from .basics import InputError
from .data import TEST_FILE, TRAIN_FILE

COMPETITION = "digit-recognizer"
KAGGLE_TEST_IMAGES = 28_000


def on_kaggle() -> bool:
    """Whether this is a Kaggle machine."""
    # Kaggle sets this variable in scripts and in notebooks.
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def get_kaggle_folder(name: str) -> Path:
    """Kaggle's `input` or `working`; in tests DIGITKAGGLE_KAGGLE_ROOT replaces `/kaggle`."""
    return Path(os.environ.get("DIGITKAGGLE_KAGGLE_ROOT", "/kaggle")) / name


def find_data() -> Path | None:
    """The folder with both CSVs, below Kaggle's input folder or below `data`; None without one."""
    root = get_kaggle_folder("input") if on_kaggle() else Path("data")
    folders = [p.parent for p in root.rglob(TRAIN_FILE) if (p.parent / TEST_FILE).is_file()]
    # Searched, not named, because Kaggle moved the folder in 2026. Where other data sets are
    # attached too, the folder of the competition comes first.
    return min(folders, key=lambda path: (COMPETITION not in path.parts, path), default=None)


def require_data(explicit: Path | None = None) -> Path:
    """The explicit folder, or the one that `find_data` finds; InputError without either."""
    location = explicit or find_data()
    if location is None:
        place = get_kaggle_folder("input") if on_kaggle() else "data"
        raise InputError(f"no data in {place}: add the competition's, or name a folder by --data")
    return location
