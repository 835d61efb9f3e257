"""Folds.

Which rows a split holds out: all images are shuffled, then sorted by class, so that rows at even
steps hold out the same fraction of every class."""

from __future__ import annotations

import torch
from torch import Tensor

from .basics import InputError
from .split import ADVICE


def split_fold(
    labels: Tensor, folds: int, fold: int, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Hold out one of several equal folds, numbered from 0; as `split_indices`."""
    fewest = int(labels.unique(return_counts=True)[1].min()) if by_class else len(labels)
    if fewest < folds:
        raise InputError(f"{folds} folds need {folds} images of every class: {ADVICE}")
    return split_at_positions(
        labels, torch.arange(fold, len(labels), folds), seed, by_class=by_class
    )


def split_at_positions(
    labels: Tensor, positions: Tensor, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Shuffle all rows and hold out those at the given positions of the shuffled sequence.

    With `by_class` the shuffled sequence is sorted by class first, so that positions at even steps
    take the same fraction of every class. Both results keep the shuffled order.
    """
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    sequence = labels[rows].argsort(stable=True) if by_class else torch.arange(len(labels))
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    is_held_out[sequence[positions]] = True
    return rows[~is_held_out], rows[is_held_out]
