"""What a run shows on the terminal: rows that never wrap, colour only where somebody looks.

NO_COLOR (https://no-color.org) is respected, COLUMNS too; in a pipe or a file all is plain.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from .augment import CLASSIC_COPIES
from .digits import IMAGE_SIZE
from .locations import RUNS_FOLDER, on_kaggle
from .log import logger
from .run_folder import METRICS, MODEL, REPORT, SUBMISSION
from .settings import Settings
from .summary import accuracy_in_words
from .training_state import Training

LABEL_WIDTH = 11
# The columns of an epoch: title, width, and which go first where a terminal is narrow.
EPOCH_COLUMNS = (
    ("epoch", 7, 0),
    ("train loss", 10, 2),
    ("train acc", 9, 3),
    ("val loss", 8, 0),
    ("val acc", 8, 0),
    ("rate", 8, 4),
    ("seconds", 7, 1),
)
BEST_MARK = "best"


def screen_width() -> int:
    """Columns of the terminal; in a pipe or a file there is no end to them."""
    return shutil.get_terminal_size((10_000, 24)).columns


def has_colour() -> bool:
    """Whether colour is wanted: a terminal, and nobody who said no."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.stdout.isatty()


def emphasised(text: str) -> str:
    """Bold green where there is colour."""
    return f"\033[1;32m{text}\033[0m" if has_colour() else text


def epoch_header() -> str:
    """The titles above the rows of `epoch_row`."""
    return "  ".join(f"{title:>{width}}" for title, width, _ in _shown_columns())


def epoch_row(row: Mapping[str, float], epochs: int, *, best: bool) -> str:
    """One row of the history, aligned; the best so far is marked.

    Args:
        row: as `train` yields it; values that are NaN or missing stay blank.
        epochs: how many there will be.
        best: whether its weights are kept for now.
    """

    def percent(value: float) -> str:
        return f"{100 * value:.2f}%"

    formats = {
        "train loss": ("train_loss", "{:.4f}".format),
        "train acc": ("train_accuracy", percent),
        "val loss": ("val_loss", "{:.4f}".format),
        "val acc": ("val_accuracy", percent),
        "rate": ("learning_rate", "{:.2g}".format),
        "seconds": ("seconds", "{:.1f}".format),
    }
    cells = []
    for title, width, _ in _shown_columns():
        if title == "epoch":
            text = f"{row['epoch']:.0f}/{epochs}"
        else:
            name, form = formats[title]
            value = row.get(name)
            text = "" if value is None or value != value else form(value)
        cells.append(f"{text:>{width}}")
    return "  ".join(cells) + (f"  {emphasised(BEST_MARK)}" if best else "")


def tell(label: str, what: str) -> None:
    """A line of the log: a label, and what there is to say of it, folded to the terminal."""
    folded = textwrap.fill(
        what,
        width=max(40, screen_width()),
        initial_indent=f"{label:<{LABEL_WIDTH - 1}} ",
        subsequent_indent=" " * LABEL_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )
    logger.info("%s", folded)


def tell_member(number: int, settings: Settings, trained_on: int, held_out: int) -> None:
    """Which member's turn it is, if there are several, and how many images it has."""
    if settings.members > 1:
        logger.info("\nmember %d of %d", number, settings.members)
    if any(settings.digit_widths):
        width = settings.digit_widths[0]
        tell("digits", f"upright, {width} pixels wide" if width else "as they stand")
    tell("split", f"{trained_on:,} to train on, {held_out:,} held out to validate")


def augmentation_in_words(settings: Settings, images: int) -> str:
    """What augmentation does, for the log."""
    if settings.augmentation == "expanded":
        return f"the classic set, {CLASSIC_COPIES} versions of each: {images:,} images"
    if settings.augmentation == "affine":
        words = (
            f"every image anew each epoch: turned by up to {settings.rotation:g} degrees, "
            f"shifted {settings.shift:g} pixels, zoomed {settings.zoom:.0%}, "
            f"sheared {settings.shear:g} degrees"
        )
        if set(settings.image_sizes) != {IMAGE_SIZE}:
            sizes = ", then ".join(str(size) for size, _ in groupby(settings.image_sizes))
            words += f"; at {sizes} pixels a side"
        return words
    return "none"


def tell_how_it_ended(training: Training, epochs: int) -> None:
    """Whether a training was cut short, and which epoch's weights it keeps."""
    if training.out_of_time:
        logger.warning("Out of time: %s.", cut_in_words(training, epochs))
    elif training.epoch < epochs:
        logger.info(
            "Stopped early: %d epochs without a lower validation loss.",
            training.epoch - training.best_epoch,
        )
    logger.info(
        "Keeping the weights of epoch %d of %d, the one with the lowest validation loss.",
        training.best_epoch,
        training.epoch,
    )


def cut_in_words(training: Training, epochs: int) -> str:
    """What the time budget took from a training of so many epochs; nothing is the empty text."""
    if not training.out_of_time:
        return ""
    return f"training stopped within or after epoch {training.epoch} of {epochs}"


def last_screen(metrics: Mapping[str, Any], folder: Path, submission: str) -> None:
    """How well it went, where the files are, and what to do next."""
    logger.info("")
    for part in ("validation", "test"):
        if figures := metrics.get(part):
            wrong = round((1 - figures["accuracy"]) * figures["images"])
            accuracy = emphasised(f"{100 * figures['accuracy']:.2f}%")
            tell(
                part,
                f"accuracy {accuracy} (standard error {100 * figures['standard_error']:.2f}; "
                f"{wrong:,} of {figures['images']:,} images wrong)",
            )
    tell("", accuracy_in_words(metrics)[0])
    if metrics.get("refit"):
        tell("refit", metrics["refit"])
    spent = [f"{stage} {value:.1f}" for stage, value in metrics["seconds"].items()]
    tell("seconds", ", ".join(spent))
    drawn = f"{REPORT}, figures" if (folder / REPORT).exists() else "no report"
    tell("files", f"{folder}: {submission}, {MODEL}, {METRICS}, {drawn}")
    if on_kaggle():
        return
    usual = folder.parent == RUNS_FOLDER
    if submission == SUBMISSION:
        named = "" if usual else f" FILE={shlex.quote(str(folder / submission))}"
        tell("next", f"make submit{named}: to Kaggle, and its score back")
    named = "" if usual else f" RUN={shlex.quote(str(folder))}"
    tell("" if submission == SUBMISSION else "next", f"make demo{named}: a page to draw digits on")


def _shown_columns() -> list[tuple[str, int, int]]:
    """As many columns as the terminal holds, the mark of the best included."""
    shown = list(EPOCH_COLUMNS)
    room = screen_width() - len(BEST_MARK)
    while sum(width + 2 for _, width, _ in shown) > room:
        first_to_go = max(shown, key=lambda column: column[2])
        if not first_to_go[2]:
            break
        shown.remove(first_to_go)
    return shown
