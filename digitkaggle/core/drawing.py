"""Drawing.

The pictures of a run, each drawn into the matplotlib axes that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .basics import CLASSES, IMAGE_SIZE, Digits
from .results import HeldOutPredictions, collect_held_out, make_history_table
from .run import Result

TRAIN_COLOR, VALIDATION_COLOR = "#2563c9", "#c2510c"


def draw_images(axes: Any, images: Tensor, captions: Sequence[str] = (), columns: int = 10) -> None:
    """Small images, uint8, N x 1 x 28 x 28, in rows, dark on white, with captions below them."""
    height, width = IMAGE_SIZE + (16 if captions else 4), IMAGE_SIZE + 4
    rows = max(1, -(-len(images) // columns))
    canvas = np.zeros((rows * columns, height, width), dtype=np.uint8)
    canvas[: len(images), :IMAGE_SIZE, 2:-2] = images.squeeze(1).numpy()
    canvas = canvas.reshape(rows, columns, height, width).swapaxes(1, 2)
    axes.imshow(canvas.reshape(rows * height, -1), cmap="gray_r", vmin=0, vmax=255)
    axes.axis("off")
    for place, caption in enumerate(captions):
        x, y = place % columns * width + width / 2, place // columns * height + IMAGE_SIZE + 1
        axes.text(x, y, caption, ha="center", va="top", fontsize=7)


def draw_curves(axes: Any, history: np.ndarray, quantity: str) -> None:
    """`loss`, or `accuracy` as the error rate on a logarithmic scale, over epochs."""
    is_loss = quantity == "loss"
    for part, label, color in (
        ("train", "training", TRAIN_COLOR),
        ("val", "validation", VALIDATION_COLOR),
    ):
        for number in np.unique(history["member"]):
            rows = history[history["member"] == number]
            values = rows[f"{part}_{quantity}"]
            # A logarithmic scale has no zero.
            values = values if is_loss else (1 - values).clip(min=2e-4)
            label_once = label if number == history["member"].min() else None
            axes.plot(rows["epoch"], values, ".-", color=color, alpha=0.8, label=label_once)
    axes.set(xlabel="epoch", title="loss" if is_loss else "error rate")
    axes.set_yscale("linear" if is_loss else "log")
    axes.legend()


def draw_confusion(axes: Any, held_out: HeldOutPredictions) -> None:
    """The confusion matrix as counts; colors on a logarithmic scale."""
    pairs = CLASSES * held_out.label + held_out.predicted
    counts = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    # Half an image more in each cell, because a logarithmic scale has no zero.
    axes.imshow(counts + 0.5, cmap="Blues", norm="log")
    for row, column in np.argwhere(counts):
        color = "white" if row == column else "black"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    axes.set(
        xlabel="predicted digit",
        ylabel="true digit",
        xticks=range(CLASSES),
        yticks=range(CLASSES),
    )


def draw_mistakes(axes: Any, digits: Digits, held_out: HeldOutPredictions, most: int = 40) -> None:
    """The misclassified held-out images, the most confident first, with prediction and truth."""
    wrong = np.flatnonzero(~held_out.correct)
    first = wrong[np.argsort(-held_out.confidence[wrong], kind="stable")][:most]
    captions = [
        f"{held_out.predicted[i]}, {held_out.confidence[i]:.0%}\nis a {held_out.label[i]}"
        for i in first
    ]
    draw_images(axes, digits.train_images[held_out.row[first]], captions)
    axes.set_title(f"most confident of {len(wrong)} errors on {len(held_out):,} held-out images")


def draw_result(result: Result, digits: Digits) -> Any:
    """Curves, confusion matrix and mistakes, as one matplotlib figure."""
    # Imported here because it takes a second. A Figure of its own needs no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 10))
    losses, errors, confusion, mistakes = figure.subplots(2, 2).flat
    history = make_history_table(result)
    draw_curves(losses, history, "loss")
    draw_curves(errors, history, "accuracy")
    held_out = collect_held_out(result, digits)
    if len(held_out):
        draw_confusion(confusion, held_out)
        draw_mistakes(mistakes, digits, held_out)
    return figure
