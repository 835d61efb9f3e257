"""Which training images are held out to validate on: a share of them, or a fold for each member."""

from __future__ import annotations

import numpy as np
import torch

from .digits import CLASSES
from .errors import InputError
from .settings import Settings


def member_rows(
    labels: torch.Tensor, settings: Settings, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows that a member of a run trains on, and those it holds out.

    The only member holds out a random share. Several hold out one fold each, so that together they
    validate every image; when all folds have had their turn, the images are shuffled anew.

    Args:
        labels: int64, N.
        number: of the member, from 1.

    Returns:
        Two int64 tensors that share no row and together have them all.

    Raises:
        InputError: too few images, in all or of one class.
    """
    if settings.members == 1:
        return split_rows(
            labels,
            settings.validation_fraction,
            settings.split_seed,
            by_class=settings.split_by_class,
        )
    folds = max(2, round(1 / settings.validation_fraction))
    turn, fold = divmod(number - 1, folds)
    seed = (settings.split_seed + turn) % 2**32
    return fold_rows(labels, folds, fold, seed, by_class=settings.split_by_class)


def fold_rows(
    labels: torch.Tensor, folds: int, fold: int, seed: int, *, by_class: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows outside and inside one fold, from 0, of so many that share the images out evenly.

    Raises:
        InputError: fewer images than folds, in all or of one class.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    counts = labels.bincount(minlength=CLASSES)
    fewest = int(counts[counts > 0].min()) if by_class else len(labels)
    if fewest < folds:
        raise InputError(
            f"{fewest} training images{' of one class' if by_class else ''} cannot be shared out "
            f"among {folds} folds: add more, or raise --validation-fraction"
        )
    shuffled = (StratifiedKFold if by_class else KFold)(folds, shuffle=True, random_state=seed)
    train_rows, held_rows = list(shuffled.split(np.zeros(len(labels)), labels.numpy()))[fold]
    return torch.from_numpy(train_rows), torch.from_numpy(held_rows)


def split_rows(
    labels: torch.Tensor, validation_fraction: float, seed: int, *, by_class: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to train on and rows to hold out, drawn at random from `seed`.

    Args:
        labels: int64, N.
        validation_fraction: share to hold out, rounded up to whole images.
        by_class: hold out the same share of every class.

    Returns:
        Two int64 tensors that share no row and together have them all.

    Raises:
        InputError: too few images, in all or of one class.
    """
    # Imported here, for it costs most of a second that reading a help text need not wait for.
    from sklearn.model_selection import train_test_split

    counts = labels.bincount(minlength=CLASSES)
    if by_class and bool((counts == 1).any()):
        lonely = int((counts == 1).int().argmax())
        raise InputError(
            f"class {lonely} has a single training image, too few to split: add more, or "
            "take it out"
        )
    try:
        train_rows, validation_rows = train_test_split(
            np.arange(len(labels)),
            test_size=validation_fraction,
            stratify=labels.numpy() if by_class else None,
            random_state=seed,
        )
    except ValueError as error:
        raise InputError(
            f"{len(labels)} training images of {int((counts > 0).sum())} classes are too few to "
            f"hold out {validation_fraction:g} of them: add more, or change --validation-fraction"
        ) from error
    return torch.from_numpy(train_rows), torch.from_numpy(validation_rows)
