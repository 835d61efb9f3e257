"""What people look at after a run: figures of loss and accuracy over epochs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from .files import write_bytes


def draw_curves(history: Sequence[dict[str, float]], best_epoch: int, path: Path) -> None:
    """Write a PNG of training and validation loss and accuracy, the chosen epoch marked.

    Args:
        history: the rows of one member, as training yields them.
    """
    # Imported here, for it costs a second; Figure alone needs no display and no global state.
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            values = [row[f"{part}_{quantity}"] for row in history]
            axes.plot(epochs, values, marker="o", markersize=3, label=label)
        axes.axvline(best_epoch, color="gray", linestyle=":", label=f"epoch {best_epoch}, kept")
        axes.set_xlabel("epoch")
        axes.set_title(quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())
