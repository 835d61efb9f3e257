"""Reading the digits.

`train.csv` has the columns `label` and `pixel0` to `pixel783`, `test.csv` the pixels alone. They
are read by pandas, and checked: what is no pixel ends the run with its row and column."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .basics import CLASSES, IMAGE_SIZE, Digits, InputError, progress

COMPETITION = "digit-recognizer"
KAGGLE_TEST_IMAGES = 28_000
TRAIN_FILE, TEST_FILE = "train.csv", "test.csv"
PIXEL_COLUMNS = [f"pixel{number}" for number in range(IMAGE_SIZE**2)]
ROWS_AT_ONCE, SURPLUS = 5000, "surplus"
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
    import pandas as pd

    chunks = [np.empty((0, len(columns)), np.uint8)]
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            if file.peek().lstrip()[:1] == b"<":
                raise ValueError("a web page, not the data: sign in and accept the rules")
            # Of a row with a value too many pandas but warns, or cuts it where a chunk begins: it
            # would shift the columns. So there is one column more, which has to stay empty.
            warnings.simplefilter("error")
            names = [*pd.read_csv(file, index_col=False, nrows=0), SURPLUS]
            file.seek(0)
            how = {"index_col": False, "header": None, "names": names, "skiprows": 1}
            reader = pd.read_csv(file, **how, low_memory=False, chunksize=ROWS_AT_ONCE)
            for chunk in progress(reader, desc=f"reading {path.name}", unit_scale=ROWS_AT_ONCE):
                chunks.append(checked_bytes(chunk, columns))
    except (ValueError, Warning) as error:  # all that pandas raises is a ValueError
        raise InputError(f"{path}: {str(error).strip()}: {GET_IT_AGAIN}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {GET_IT_AGAIN}") from error
    if len(chunks) == 1 or not len(chunks[1]):
        raise InputError(f"{path} has a header but no rows: {GET_IT_AGAIN}")
    return np.concatenate(chunks)


def checked_bytes(chunk: Any, columns: list[str]) -> np.ndarray:
    """Some rows of a CSV as uint8; ValueError, with row and column, if a value is none."""
    import pandas as pd

    strange = sorted({*chunk} - {*columns, SURPLUS})
    wrong = [*(name for name in columns if name not in chunk), *strange]
    if wrong:
        raise ValueError(f"line 1: column {wrong[0]!r:.40} is missing, strange or twice there")
    for row in chunk.index[chunk[SURPLUS].notna()][:1]:
        raise ValueError(f"row {row + 1} has a value too many")
    values = chunk.drop(columns=SURPLUS)
    if any(dtype.kind not in "iuf" for dtype in values.dtypes):
        values = values.apply(pd.to_numeric, errors="coerce")
    values = values.to_numpy()[:, values.columns.get_indexer(columns)]
    with np.errstate(invalid="ignore"):
        table = values.astype(np.uint8)
    right = table == values  # not of 300, which pandas 2 turns into 44 silently, -1, 1.5 or NaN
    if columns[0] == "label":
        right[:, 0] &= table[:, 0] < CLASSES
    for row, column in np.argwhere(~right)[:1] if not right.all() else []:
        text = str(chunk[columns[column]].iloc[row])
        place = f"row {chunk.index[row] + 1}, column {columns[column]}"
        raise ValueError(f"{place}: {text!r:.40} is no whole number in the range allowed")
    return table
