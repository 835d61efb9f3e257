"""The data.

`train.csv` has the columns `label` and `pixel0` to `pixel783`; `test.csv` has only the pixels.
numpy reads them, and every cell is checked: a bad one ends the run with its row and column."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .basics import IMAGE_SIZE, Digits, InputError, show_progress

TRAIN_FILE, TEST_FILE = "train.csv", "test.csv"
PIXEL_COLUMNS = [f"pixel{number}" for number in range(IMAGE_SIZE**2)]


def read_digits(folder: Path) -> Digits:
    """The images in a folder with both CSVs; InputError for a wrong file, column or value."""
    table = read_table(folder / TRAIN_FILE, ["label", *PIXEL_COLUMNS])
    labels = torch.from_numpy(table[:, 0].astype(np.int64))
    # A copy, because the pixels are a view of the table, with the labels between its rows.
    images = torch.from_numpy(table[:, 1:].copy()).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)
    return Digits(images, labels, read_images(folder / TEST_FILE), origin=str(folder))


def read_images(file: Path) -> Tensor:
    """The images of a CSV without labels, uint8, N x 1 x 28 x 28, in its order."""
    return torch.from_numpy(read_table(file, PIXEL_COLUMNS)).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)


def read_table(path: Path, columns: list[str], rows: np.ndarray | None = None) -> np.ndarray:
    """These columns of a CSV, which has them in any order, as uint8, rows x columns.

    `rows`: what `parse_rows` returned for the file, if somebody has called it already.
    """
    from .parsing import check_header, check_table, name_cell, parse_rows

    header: list[str] = []
    try:
        with path.open("rb") as file:
            lines = filter(str.strip, io.TextIOWrapper(file, "utf-8-sig"))  # without blank lines
            header = [name.strip().strip('"') for name in next(lines, "").split(",")]
            check_header(header, columns)
            if rows is None:
                rows = parse_rows(show_progress(lines, desc=f"reading {path.name}", unit=" rows"))
        check_table(rows, header)
    except ValueError as error:
        raise InputError(f"{path}: {name_cell(str(error), header)}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    return rows if header == columns else rows[:, [header.index(name) for name in columns]]
