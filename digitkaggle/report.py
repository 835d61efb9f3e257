"""What people look at after a run: curves, the confusion matrix, the mistakes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .files import write_bytes
from .networks import CLASSES

MOST_MISTAKES = 40


def draw_figures(
    folder: Path,
    history: Sequence[dict[str, float]],
    best_epoch: int,
    images: torch.Tensor,
    labels: torch.Tensor,
    probabilities: torch.Tensor,
) -> list[Path]:
    """Write `curves.png`, `confusion.png` and `mistakes.png` into a folder.

    Args:
        history: the rows of one member, as training yields them.
        best_epoch: the epoch whose weights are kept.
        images: the held-out images, uint8, N x 1 x 28 x 28.
        labels: their true classes, N.
        probabilities: what the network says of them, N x 10.

    Returns:
        The files, in the order in which one looks at them.
    """
    figures = {
        "curves.png": curves_figure(history, best_epoch),
        "confusion.png": confusion_figure(labels, probabilities.argmax(dim=1)),
        "mistakes.png": mistakes_figure(images, labels, probabilities),
    }
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        write_bytes(folder / name, buffer.getvalue())
    return [folder / name for name in figures]


def curves_figure(history: Sequence[dict[str, float]], best_epoch: int) -> Any:
    """Training and validation loss and accuracy over epochs, the chosen epoch marked."""
    figure = _figure(10, 4)
    epochs = [row["epoch"] for row in history]
    panels = figure.subplots(1, 2)
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            values = [row[f"{part}_{quantity}"] for row in history]
            axes.plot(epochs, values, marker="o", markersize=3, label=label)
        axes.axvline(best_epoch, color="gray", linestyle=":", label=f"epoch {best_epoch}, kept")
        axes.set(xlabel="epoch", title=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def confusion_figure(labels: torch.Tensor, predicted: torch.Tensor) -> Any:
    """How often each true class (row) was taken for each other (column), as counts.

    The colours are those of the mistakes alone; the diagonal would drown them.
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels.numpy(), predicted.numpy(), labels=range(CLASSES))
    mistakes = counts.copy()
    for digit in range(CLASSES):
        mistakes[digit, digit] = 0
    figure = _figure(6, 6)
    axes = figure.subplots()
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=max(1, mistakes.max()) * 1.6)
    for true in range(CLASSES):
        for guess in range(CLASSES):
            if counts[true, guess]:
                weight = "normal" if true == guess else "bold"
                axes.text(guess, true, counts[true, guess], ha="center", va="center", weight=weight)
    axes.set(
        xticks=range(CLASSES),
        yticks=range(CLASSES),
        xlabel="predicted",
        ylabel="true",
        title=f"{mistakes.sum():,} of {counts.sum():,} held-out images wrong",
    )
    return figure


def mistakes_figure(images: torch.Tensor, labels: torch.Tensor, probabilities: torch.Tensor) -> Any:
    """The held-out images that were classified wrong, the surest mistakes first."""
    confidence, predicted = probabilities.max(dim=1)
    wrong = (predicted != labels).nonzero().flatten()
    shown = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MOST_MISTAKES]
    columns = 8
    rows = max(1, -(-len(shown) // columns))
    figure = _figure(10, 0.6 + 1.5 * rows)
    some = f", the {len(shown)} surest" if len(shown) < len(wrong) else ""
    figure.suptitle(f"{len(wrong)} mistakes of {len(labels):,}{some}")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels:
        axes.axis("off")
    for axes, place in zip(panels, shown.tolist(), strict=False):
        axes.imshow(images[place, 0].numpy(), cmap="gray_r", vmin=0, vmax=255)
        said = f"{predicted[place]} ({confidence[place]:.0%})"
        axes.set_title(f"true {labels[place]}, said {said}", fontsize=8)
    return figure


def _figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, which needs no display and touches no global state."""
    # Imported here, for it costs a second that asking for help need not wait.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
