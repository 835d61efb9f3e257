"""What a finished run left in its folder, read back: for its report, and to compare it with others.

Folders of one network and of an ensemble read alike; so do runs that held no images out.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .digits import CLASSES
from .errors import InputError
from .files import read_json
from .run_folder import HISTORY, MEMBERS, METRICS, PROBABILITIES, VALIDATION

HISTORY_COLUMNS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")

# What reading damaged files raises, all told.
UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class HeldOutAnswers:
    """What a run said of the images that it held out."""

    row: np.ndarray  # int64, N: places in train.csv
    label: np.ndarray  # int64, N: the true classes
    probabilities: np.ndarray  # float32, N x 10

    @property
    def predicted(self) -> np.ndarray:
        """The most likely class of each image, int64, N."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of that class, float32, N."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether that class is the true one, bool, N."""
        return self.predicted == self.label


@dataclass(frozen=True)
class Results:
    """A finished run, as its folder tells it."""

    folder: Path
    metrics: Mapping[str, Any]
    history: Any  # a pandas DataFrame: a row for each epoch and member
    probabilities: np.ndarray  # float32, test images x 10
    held_out: HeldOutAnswers | None  # None: the run trained on all images
    member_digits: np.ndarray | None  # uint8, members x test images; None: one network

    @property
    def best_epochs(self) -> list[int]:
        """The epoch whose weights were kept, of each member."""
        best = self.metrics["best_epoch"]
        return [int(epoch) for epoch in best] if isinstance(best, list) else [int(best)]


def read_results(folder: Path) -> Results:
    """Everything that a report or a comparison needs of a run's folder.

    Raises:
        InputError: the folder holds no finished run, or one whose files are damaged.
    """
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder} holds no finished run: name the folder of one")
    metrics = read_json(folder / METRICS)
    try:
        for part in ("settings", "data", "device", "seconds", "versions"):
            if not isinstance(metrics[part], dict):
                raise ValueError(f"{part} is no object")
        results = Results(
            folder=folder,
            metrics=metrics,
            history=_read_history(folder / HISTORY),
            probabilities=np.load(folder / PROBABILITIES, allow_pickle=False),
            held_out=_read_held_out(folder / VALIDATION),
            member_digits=_read_member_digits(folder / MEMBERS),
        )
        _check_answers(results)
    except UNREADABLE as error:
        raise InputError(
            f"{folder} holds a run that cannot be read ({_first_line(error)}): do it again with "
            "--fresh"
        ) from error
    return results


def merged_by_row(answers: HeldOutAnswers) -> HeldOutAnswers:
    """One answer an image, in the order of `row`: where members share an image, their mean."""
    row, first, place = np.unique(answers.row, return_index=True, return_inverse=True)
    total = np.zeros((len(row), CLASSES))
    np.add.at(total, place, answers.probabilities)
    shared = np.bincount(place)[:, None]
    return HeldOutAnswers(row, answers.label[first], (total / shared).astype(np.float32))


def _read_history(path: Path) -> Any:
    import pandas as pd

    history = pd.read_csv(path)
    if "member" not in history:
        history["member"] = 1
    missing = [name for name in ("epoch", *HISTORY_COLUMNS) if name not in history]
    if missing:
        raise ValueError(f"{path.name} has no column {missing[0]}")
    if history[["epoch", "train_loss", "train_accuracy"]].isna().any(axis=None) or history.empty:
        raise ValueError(f"{path.name} is cut off")
    return history


def _read_held_out(path: Path) -> HeldOutAnswers | None:
    if not path.exists():
        return None
    # Through memory: np.load leaves a damaged zip's file open.
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        found = HeldOutAnswers(arrays["row"], arrays["label"], arrays["probabilities"])
    return found if len(found.row) else None


def _read_member_digits(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return arrays["digits"]


def _check_answers(results: Results) -> None:
    """Raise ValueError where arrays do not fit each other."""
    images = len(results.probabilities)
    if results.probabilities.shape != (images, CLASSES) or not images:
        raise ValueError(f"{PROBABILITIES} is not N x {CLASSES}")
    found = results.held_out
    if found is not None:
        count = len(found.row)
        if found.label.shape != (count,) or found.probabilities.shape != (count, CLASSES):
            raise ValueError(f"{VALIDATION} does not fit together")
    digits = results.member_digits
    if digits is not None and (digits.ndim != 2 or digits.shape[1] != images):
        raise ValueError(f"{MEMBERS} does not fit {PROBABILITIES}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
