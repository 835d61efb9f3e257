"""The data.

`train.csv` has the columns `label` and `pixel0` to `pixel783`; `test.csv` has only the pixels.
numpy reads them, and every cell is checked: a bad one ends the run with its row and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .basics import IMAGE_SIZE, Digits

TRAIN_FILE, TEST_FILE = "train.csv", "test.csv"
PIXEL_COLUMNS = [f"pixel{number}" for number in range(IMAGE_SIZE**2)]


def read_digits(folder: Path) -> Digits:
    """The images in a folder with both CSVs; InputError for a wrong file, column or value."""
    from .parsing import read_table

    table = read_table(folder / TRAIN_FILE, ["label", *PIXEL_COLUMNS])
    labels = torch.from_numpy(table[:, 0].astype(np.int64))
    # A copy, because the pixels are a view of the table, with the labels between its rows.
    images = torch.from_numpy(table[:, 1:].copy()).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)
    return Digits(images, labels, read_images(folder / TEST_FILE), origin=str(folder))


def read_images(file: Path) -> Tensor:
    """The images of a CSV without labels, uint8, N x 1 x 28 x 28, in its order."""
    from .parsing import read_table

    return torch.from_numpy(read_table(file, PIXEL_COLUMNS)).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)
