"""Drawing.

The pictures of a run, each drawn into the matplotlib axes that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .basics import CLASSES, IMAGE_SIZE, Digits
from .console import find_size_changes
from .results import HeldOutPredictions, collect_held_out, make_history_table
from .run import Result

# For a report's figures and for the one picture of a run.
STYLE = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "font.size": 9,
    "grid.alpha": 0.4,
    "legend.frameon": False,
    "savefig.dpi": 130,
}
QUICK_PNG = {"compress_level": 1}  # a third of the time of savefig's own
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


def draw_curves(
    axes: Any, history: np.ndarray, quantity: str, image_sizes: Sequence[int] = ()
) -> None:
    """`loss`, or `accuracy` as the error rate on a logarithmic scale, over epochs.

    A line marks each epoch from which on images of another size are trained and validated on.
    """
    from matplotlib.ticker import MaxNLocator

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
    axes.set(xlabel="epoch", ylabel="loss" if is_loss else "error rate")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not is_loss:
        format_error_axis(axes)
    for epoch, size in find_size_changes(image_sizes, int(history["epoch"].max()))[1:]:
        axes.axvline(epoch - 0.5, linestyle="--", color="grey", linewidth=1)
        above = axes.get_xaxis_transform()  # x in epochs, y from 0 to 1, the top of the axes
        text = f"{size} x {size}"
        axes.text(epoch - 0.5, 1.01, text, transform=above, ha="center", fontsize=8, color="grey")
    axes.legend(loc="upper right")


def format_error_axis(axes: Any) -> None:
    """Give error rates a logarithmic scale with ticks such as 1 % and 0.5 %."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, position: f"{100 * value:g} %")


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
    axes.grid(visible=False)


def draw_mistakes(axes: Any, digits: Digits, held_out: HeldOutPredictions, most: int = 40) -> None:
    """The misclassified held-out images, the most confident first, with prediction and truth."""
    wrong = np.flatnonzero(~held_out.correct)
    first = wrong[np.argsort(-held_out.confidence[wrong], kind="stable")][:most]
    captions = [
        f"{held_out.predicted[i]}, {held_out.confidence[i]:.0%}\nis a {held_out.label[i]}"
        for i in first
    ]
    columns = 10 if len(first) > 20 else 5  # a few are drawn larger
    draw_images(axes, digits.train_images[held_out.row[first]], captions, columns)
    axes.set_title(f"most confident of {len(wrong)} errors on {len(held_out):,} held-out images")


def draw_result(result: Result, digits: Digits) -> Any:
    """Curves, confusion matrix and mistakes, as one matplotlib figure."""
    # Imported here because it takes a second. A Figure of its own needs no display.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    held_out = collect_held_out(result, digits)
    with rc_context(STYLE):
        # Fixed places: matplotlib's layouts draw everything twice to find them.
        figure = Figure(figsize=(13, 10 if len(held_out) else 4))
        curves, *below = figure.subfigures(2 if len(held_out) else 1, 1, squeeze=False).flat
        edges = {"left": 0.05, "right": 0.99, "bottom": 0.12, "top": 0.92, "wspace": 0.15}
        losses, errors = curves.subplots(1, 2, gridspec_kw=edges)
        history = make_history_table(result)
        draw_curves(losses, history, "loss", result.settings.image_sizes)
        draw_curves(errors, history, "accuracy", result.settings.image_sizes)
        for part in below:
            edges = {"left": 0.05, "right": 0.99, "bottom": 0.1, "top": 0.95, "wspace": 0.05}
            confusion, mistakes = part.subplots(1, 2, width_ratios=(1, 1.7), gridspec_kw=edges)
            draw_confusion(confusion, held_out)
            draw_mistakes(mistakes, digits, held_out)
    return figure
