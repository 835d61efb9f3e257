"""The console.

What a reader sees while the program runs."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from .basics import Digits, logger
from .run import Member
from .training import Training


def configure_logging(level: int = logging.INFO) -> None:
    """Print messages of `level` and above: warnings to standard error, others to output."""
    output, errors = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    output.addFilter(lambda record: record.levelno < logging.WARNING)
    errors.setLevel(logging.WARNING)
    logger.handlers, logger.propagate = [output, errors], False
    logger.setLevel(level)


def show_progress(items: Any = None, **options: Any) -> tqdm:
    """A progress bar around `items`, on a terminal only, once it takes over two seconds."""
    disabled = bool(os.environ.get("TQDM_DISABLE")) or None  # None: tqdm asks if it is a terminal
    return tqdm(items, disable=disabled, **({"leave": False, "delay": 2} | options))


def find_size_changes(image_sizes: Sequence[int], epochs: int) -> list[tuple[int, int]]:
    """The size that each epoch ends at, as pairs: the first epoch with a size, and the size."""
    changes: list[tuple[int, int]] = []
    if not image_sizes:  # of a run that another version made
        return changes
    for epoch in range(1, epochs + 1):
        size = image_sizes[math.ceil(epoch / epochs * len(image_sizes)) - 1]
        if not changes or changes[-1][1] != size:
            changes.append((epoch, size))
    return changes


def log_plan(training: Training, images: int, held_out: int) -> None:
    """Log how many images train, and at which sizes."""
    logger.info(f"{images:,} images to train on, {held_out:,} held out to validate on")
    epochs = training.epochs
    changes = find_size_changes(training.settings.image_sizes, epochs)
    parts = []
    for (first, size), following in zip(changes, [*changes[1:], (epochs + 1, 0)], strict=True):
        last = following[0] - 1
        span = f"epochs {first} to {last}" if last > first else f"epoch {first}"
        parts.append(f"{span} of {epochs} on {size} x {size} pixels")
    if len(parts) > 1:
        logger.info("Small images first: " + ", ".join(parts) + "; validation uses the same sizes.")


def log_epoch(row: dict[str, float], training: Training) -> None:
    """Log one aligned line for an epoch."""
    # Epochs at smaller sizes cannot be the best.
    comparable = training.best_loss < math.inf
    best = "  best" if training.best_epoch == row["epoch"] and comparable else ""
    logger.info(
        f"epoch {row['epoch']:3}/{training.epochs}  loss {row['train_loss']:.4f}  "
        f"accuracy {row['train_accuracy']:7.2%}  validation loss {row['val_loss']:.4f}  "
        f"accuracy {row['val_accuracy']:7.2%}  {row['seconds']:5.1f} s{best}"
    )


def log_members(members: Iterable[Member], digits: Digits) -> Iterator[Member]:
    """The members, and for each a line about the images that it held out."""
    for member in members:
        labels = digits.train_labels[member.held_out_rows]
        errors = (member.held_out_probabilities.argmax(dim=1) != labels).sum()
        logger.info(
            f"member {member.number}: {errors} of {len(labels)} held-out images misclassified, "
            f"weights of epoch {member.best_epoch} of {len(member.history)}, "
            f"{member.seconds['train']:.0f} s"
        )
        yield member
