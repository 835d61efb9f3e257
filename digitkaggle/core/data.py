"""Reading the digits.

`train.csv` has the columns `label` and `pixel0` to `pixel783`, `test.csv` the pixels alone. They
are read by numpy, and checked: what is no pixel ends the run with its row and column."""

from __future__ import annotations

import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
import torch

from .basics import CLASSES, IMAGE_SIZE, Digits, InputError, progress

COMPETITION = "digit-recognizer"
KAGGLE_TEST_IMAGES = 28_000
TRAIN_FILE, TEST_FILE = "train.csv", "test.csv"
PIXEL_COLUMNS = [f"pixel{number}" for number in range(IMAGE_SIZE**2)]
GET_IT_AGAIN = f"download it from https://www.kaggle.com/c/{COMPETITION}/data again"


def on_kaggle() -> bool:
    """Whether this is a Kaggle machine: it sets this variable in scripts and notebooks alike."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def kaggle_folder(name: str) -> Path:
    """Kaggle's `input` or `working`; DIGITKAGGLE_KAGGLE_ROOT stands in for `/kaggle` in a test."""
    return Path(os.environ.get("DIGITKAGGLE_KAGGLE_ROOT", "/kaggle")) / name


def find_data() -> Path | None:
    """The usual place that has data, or None."""
    if on_kaggle():
        inputs = kaggle_folder("input")
        places = [p.parent for p in inputs.rglob(TRAIN_FILE) if (p.parent / TEST_FILE).is_file()]
        # The mount has changed before: /kaggle/input/digit-recognizer until 2026.
        return min(places, key=lambda path: (COMPETITION not in path.parts, path), default=None)
    return Path("data") if Path("data", TRAIN_FILE).exists() else None


def read_digits(folder: Path) -> Digits:
    """Training and test images from a folder, or a `zipfile.Path`, with both CSVs.

    Raises:
        InputError: something is missing or wrong; names file, row and column.
    """
    table = read_table(folder / TRAIN_FILE, ["label", *PIXEL_COLUMNS])
    labels = torch.from_numpy(table[:, 0].astype(np.int64))
    if len(labels.unique()) == 1:
        raise InputError(f"{folder / TRAIN_FILE}: every label is {labels[0]}: {GET_IT_AGAIN}")
    images = torch.from_numpy(table[:, 1:].copy()).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)
    return Digits(images, labels, read_images(folder / TEST_FILE), origin=str(folder))


def read_images(file: Path) -> torch.Tensor:
    """The images of a CSV without labels, uint8, N x 1 x 28 x 28, in its order."""
    return torch.from_numpy(read_table(file, PIXEL_COLUMNS)).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)


def read_table(path: Path, columns: list[str]) -> np.ndarray:
    """A CSV's columns, which may stand in any order, as uint8, rows x columns; checked."""
    names: list[str] = []
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a file without rows, refused below
            # numpy before 2.3 takes 300 for 44, -1 for 255 and 3.7 for 3, with a warning only.
            warnings.simplefilter("error", DeprecationWarning)
            lines = filter(str.strip, io.TextIOWrapper(file, "utf-8-sig"))
            header = next(lines, "")
            if header.lstrip()[:1] == "<":
                raise ValueError("a web page, not the data: sign in and accept the rules")
            names = [name.strip().strip('"') for name in header.split(",")]
            for name in [*columns, *names]:
                if name not in columns or names.count(name) != 1:
                    raise ValueError(f"line 1: column {name!r:.40} is missing, strange or twice")
            # It takes two thirds of the time of pandas, and nothing but whole numbers up to 255.
            how = {"delimiter": ",", "quotechar": '"', "comments": None, "ndmin": 2}
            bar = progress(lines, desc=f"reading {path.name}", unit=" rows")
            table = np.loadtxt(bar, np.uint8, **how)
        if not table.size:
            raise ValueError("it has a header but no rows")
        if table.shape[1] != len(names):
            raise ValueError(f"a row has {table.shape[1]} values, not {len(names)}")
        if names != columns:
            table = table[:, [names.index(name) for name in columns]]
        for row in np.flatnonzero(table[:, 0] >= CLASSES)[:1] if columns[0] == "label" else []:
            raise ValueError(f"row {row + 1}, column label: {table[row, 0]} is no digit")
        return table
    except ValueError as error:
        raise InputError(f"{path}: {cell_named(str(error), names)}: {GET_IT_AGAIN}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {GET_IT_AGAIN}") from error


def cell_named(fault: str, names: list[str]) -> str:
    """What numpy says of a cell that is no pixel, by the name of its column."""
    found = re.match(r"could not convert string (.*) to .* at row (\d+), column (\d+)", fault)
    if not found:
        return fault.partition(";")[0]
    row, column = int(found[2]) + 1, dict(enumerate(names, 1)).get(int(found[3]), "surplus")
    return f"row {row}, column {column}: {found[1]:.40} is no whole number from 0 to 255"
