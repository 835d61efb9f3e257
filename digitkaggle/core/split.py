"""The split.

A tenth of the images of each class is held out and never trained on. The accuracy on them is the
only one claimed; its standard error at 99.6 % is 0.1 points on 4,200 images, so a single split
decides nothing. Several members hold out one fold each, so that together they validate every
image, each by a network that never saw it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .basics import InputError
from .settings import Settings


def member_rows(labels: Tensor, settings: Settings, number: int) -> tuple[Tensor, Tensor]:
    """The rows that a member, from 1, trains on, and those it holds out: all of them, each once."""
    fraction, by_class = settings.validation_fraction, settings.split_by_class
    if fraction == 0:
        return torch.arange(len(labels)), torch.empty(0, dtype=torch.int64)
    if settings.members == 1:
        return split_rows(labels, fraction, settings.split_seed, by_class=by_class)
    folds = max(2, round(1 / fraction))
    # When all folds have had their turn, the images are shuffled anew.
    turn, fold = divmod(number - 1, folds)
    seed = (settings.split_seed + turn) % 2**32
    return fold_rows(labels, folds, fold, seed, by_class=by_class)


def split_rows(
    labels: Tensor, fraction: float, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Rows to train on and a share of them to hold out, at random, of every class the same."""
    # Imported here, for it costs most of a second that a help text need not wait for.
    from sklearn.model_selection import train_test_split

    classes = labels.numpy() if by_class else None
    rows = np.arange(len(labels))
    try:
        parts = train_test_split(rows, test_size=fraction, stratify=classes, random_state=seed)
    except ValueError as error:
        raise InputError(f"too few images to hold out {fraction:g} of them: {error}") from error
    return torch.from_numpy(parts[0]), torch.from_numpy(parts[1])


def fold_rows(
    labels: Tensor, folds: int, fold: int, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Rows outside and inside one fold, from 0, of so many that share the images out evenly."""
    from sklearn.model_selection import KFold, StratifiedKFold

    fewest = int(labels.unique(return_counts=True)[1].min()) if by_class else len(labels)
    if fewest < folds:
        raise InputError(f"{folds} folds need as many images (of every class), not {fewest}")
    shuffled = (StratifiedKFold if by_class else KFold)(folds, shuffle=True, random_state=seed)
    parts = list(shuffled.split(np.zeros(len(labels)), labels.numpy()))[fold]
    return torch.from_numpy(parts[0]), torch.from_numpy(parts[1])
