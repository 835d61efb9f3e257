"""Where data is read and results go.

The one place that knows Kaggle's paths and environment."""

from __future__ import annotations

import os
from pathlib import Path

COMPETITION = "digit-recognizer"
RUNS_FOLDER = Path("runs")
DESK_DATA = Path("data")
TRAIN_FILE = "train.csv"
TEST_FILE = "test.csv"


def on_kaggle() -> bool:
    """Whether this is a Kaggle machine: it sets this variable in scripts and notebooks alike."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def kaggle_root() -> Path:
    """Kaggle's own folder, which DIGITKAGGLE_KAGGLE_ROOT can put elsewhere for a test."""
    return Path(os.environ.get("DIGITKAGGLE_KAGGLE_ROOT", "/kaggle"))


def places_of_data() -> list[Path]:
    """The places where data is looked for when none is named, in order."""
    if on_kaggle():
        inputs = kaggle_root() / "input"
        # The competition's mount of today, that of before 2026, then anything below.
        return [inputs / "competitions" / COMPETITION, inputs / COMPETITION, inputs]
    return [DESK_DATA, DESK_DATA / f"{COMPETITION}.zip"]


def find_data() -> Path | None:
    """The first place that has data, be it incomplete (which reading will say), or None."""
    if on_kaggle():
        *mounts, inputs = places_of_data()
        below = sorted(path.parent for path in inputs.rglob(TRAIN_FILE))
        for folder in [*mounts, *below]:
            if (folder / TRAIN_FILE).is_file() and (folder / TEST_FILE).is_file():
                return folder
        return None
    folder, archive = places_of_data()
    if (folder / TRAIN_FILE).exists() or (folder / TEST_FILE).exists():
        return folder
    return archive if archive.exists() else None


def default_run_folder(preset: str, *, sample: bool) -> Path:
    """Where a run goes when no folder is named."""
    if on_kaggle():
        return kaggle_root() / "working"
    return RUNS_FOLDER / (f"{preset}-sample" if sample else preset)
