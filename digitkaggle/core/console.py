"""The console.

What a reader sees while the program runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator

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


def log_epoch(row: dict[str, float], training: Training) -> None:
    """Log one aligned line for an epoch."""
    best = "  best" if training.best_epoch == row["epoch"] else ""
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
