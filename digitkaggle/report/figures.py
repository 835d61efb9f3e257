"""The figures of a report, drawn by matplotlib: PNG for files, SVG that follows a page's theme.

Colours are those of LIGHT, so a PNG looks like the light page; in an SVG they become the page's CSS
variables, so one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.basics import CLASSES, IMAGE_SIZE
from ..runs.results import HeldOutAnswers, Results

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1d2027",
    "muted": "#5f6775",
    "line": "#d9dce3",
    "first": "#2563c9",
    "second": "#c2510c",
    "wrong": "#c8281e",
}
DARK = {
    "paper": "#15171c",
    "ink": "#e7e9ee",
    "muted": "#9ba3b1",
    "line": "#353a45",
    "first": "#7fabff",
    "second": "#ff9f5a",
    "wrong": "#ff6f66",
}
TIMES = " \u00d7 "
PNG_DPI = 120
# Inches that still read when a phone shrinks them to its width.
NARROW = 4.5
ACCURACY_TICKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Sheet:
    """Small images in rows and columns, each with two short lines below."""

    images: np.ndarray  # uint8, N x 28 x 28
    captions: Sequence[tuple[str, str]]
    columns: int = 8


def empty_figure(width: float, height: float, layout: str = "constrained") -> Any:
    """A figure of so many inches, which needs no display and touches no global state.

    The layout that keeps labels inside takes time; `none` is for figures that do without axes.
    """
    # Imported here, for it costs a second that asking for help need not wait.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout, facecolor="none")


def png_bytes(figure: Any, title: str = "") -> bytes:
    """A figure as PNG on white, below a title; it goes again, for a page has titles of its own."""
    heading = figure.suptitle(title, color=LIGHT["ink"], fontsize=11) if title else None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor=LIGHT["paper"])
    if heading:
        heading.set(text="", in_layout=False)
    return buffer.getvalue()


def svg_text(figure: Any, name: str, title: str) -> str:
    """A figure as SVG to stand in a page: its text is text, its colours are the page's variables.

    Args:
        name: unique in the page; every id in the drawing starts with it.
        title: what the drawing shows, for whoever cannot see it.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def curves_figure(results: Results, quantities: Sequence[str] = ("loss", "accuracy")) -> Any:
    """Training and validation over epochs, a panel for each quantity, the chosen epochs marked."""
    figure = empty_figure(NARROW * len(quantities), 3.4)
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    for axes, quantity in zip(panels, quantities, strict=True):
        _draw_curves(axes, results, quantity)
    return figure


def _draw_curves(axes: Any, results: Results, quantity: str) -> None:
    history = results.history
    members = [rows for _, rows in history.groupby("member", sort=True)]
    # A training on all images goes on numbering, but starts anew: no line joins the two.
    lines = [rows for _, rows in history.groupby(["member", history["val_loss"].isna()])]
    few = history["epoch"].max() <= 30
    for part, label, colour in (("train", "training", "first"), ("val", "validation", "second")):
        for number, rows in enumerate(lines):
            axes.plot(
                rows["epoch"],
                rows[f"{part}_{quantity}"],
                color=LIGHT[colour],
                alpha=1 if len(members) == 1 else 0.6,
                linewidth=1.4,
                marker="o" if few else None,
                markersize=3,
                label=label if number == 0 else None,
            )
    for number, (rows, best) in enumerate(zip(members, results.best_epochs, strict=False)):
        kept = rows[rows["epoch"] == best][f"val_{quantity}"]
        axes.plot(
            [best] * len(kept),
            kept,
            linestyle="none",
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=LIGHT["ink"],
            label="epoch kept" if number == 0 and len(kept) else None,
        )
        if len(members) == 1:
            axes.axvline(best, color=LIGHT["muted"], linestyle=":", linewidth=1)
    if quantity == "accuracy":
        values = history[["train_accuracy", "val_accuracy"]].to_numpy()
        spread_near_one(axes, float(np.nanmin(values)), float(np.nanmax(values)))
    dress(axes, title=quantity, xlabel="epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, labelcolor=LIGHT["ink"], fontsize=9)


def spread_near_one(axes: Any, lowest: float, highest: float) -> None:
    """An axis of accuracy on which 99 % and 99.9 % stand as far apart as 90 % and 99 %."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    least = 0.0003  # keeps 100 % on the axis

    def forward(values: Any) -> Any:
        return -np.log10(np.maximum(1 - np.asarray(values, dtype=float), 0) + least)

    def backward(values: Any) -> Any:
        return 1 + least - 10 ** -np.asarray(values, dtype=float)

    axes.set_yscale("function", functions=(forward, backward))
    low = max((tick for tick in ACCURACY_TICKS if tick <= lowest), default=0)
    axes.set_ylim(low, 1 if highest > ACCURACY_TICKS[-1] else min(1, (1 + highest) / 2))
    axes.yaxis.set_major_locator(FixedLocator([*ACCURACY_TICKS, 1]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def confusion_figure(answers: HeldOutAnswers) -> Any:
    """How often each true class (row) was taken for each other (column), as counts.

    The red is that of the mistakes alone, on the scale of the most frequent one; the diagonal would
    drown them, and stays pale.
    """
    from matplotlib.patches import Rectangle
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(answers.label, answers.predicted, labels=range(CLASSES))
    mistakes = counts - np.diag(counts.diagonal())
    most = max(1, mistakes.max())
    figure = empty_figure(NARROW, NARROW)
    axes = figure.subplots()
    for true in range(CLASSES):
        for guess in range(CLASSES):
            count = counts[true, guess]
            if not count:
                continue
            on_diagonal = true == guess
            axes.add_patch(
                Rectangle(
                    (guess - 0.47, true - 0.47),
                    0.94,
                    0.94,
                    facecolor=LIGHT["first" if on_diagonal else "wrong"],
                    alpha=0.1 if on_diagonal else 0.2 + 0.5 * count / most,
                    linewidth=0,
                )
            )
            axes.text(
                guess,
                true,
                str(count),
                ha="center",
                va="center",
                fontsize=8 if count < 1000 else 7,
                color=LIGHT["muted" if on_diagonal else "ink"],
                weight="normal" if on_diagonal else "bold",
            )
    dress(axes, title="", xlabel="predicted", ylabel="true", grid=False)
    axes.set(
        xticks=range(CLASSES),
        yticks=range(CLASSES),
        xlim=(-0.5, CLASSES - 0.5),
        ylim=(CLASSES - 0.5, -0.5),
        aspect="equal",
    )
    axes.tick_params(length=0)
    return figure


def recall_figure(answers: HeldOutAnswers) -> Any:
    """The share of each class that was named right, with its 95 % interval (Wilson's)."""
    from scipy.stats import binomtest
    from sklearn.metrics import recall_score

    recalls = recall_score(
        answers.label, answers.predicted, labels=range(CLASSES), average=None, zero_division=np.nan
    )
    figure = empty_figure(NARROW, NARROW)
    axes = figure.subplots()
    for digit, recall in enumerate(recalls):
        of_class = answers.label == digit
        images, hits = int(of_class.sum()), int(answers.right[of_class].sum())
        if not images:
            continue
        interval = binomtest(hits, images).proportion_ci(method="wilson")
        axes.plot([interval.low, interval.high], [digit] * 2, color=LIGHT["line"], linewidth=5)
        axes.plot(recall, digit, marker="o", markersize=6, color=LIGHT["first"], clip_on=False)
        axes.annotate(
            f"{images - hits:,} of {images:,} wrong" if images > hits else f"all {images:,} right",
            (interval.low, digit),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=7.5,
            color=LIGHT["muted"],
        )
    dress(axes, title="", xlabel="recall", ylabel="digit")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axes.locator_params(axis="x", nbins=5)
    axes.set(yticks=range(CLASSES), ylim=(CLASSES - 0.4, -0.7))
    axes.set_xlim(right=min(1.0, axes.get_xlim()[1]) + 0.0002)
    return figure


def reliability_bins(answers: HeldOutAnswers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of images of every bin of confidence that has any."""
    place = np.minimum((answers.confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(place, minlength=CALIBRATION_BINS)
    sums = np.bincount(place, weights=answers.confidence, minlength=CALIBRATION_BINS)
    hits = np.bincount(place, weights=answers.right, minlength=CALIBRATION_BINS)
    filled = counts > 0
    counts = counts[filled]
    return sums[filled] / counts, hits[filled] / counts, counts


def expected_calibration_error(answers: HeldOutAnswers) -> float:
    """How far confidence lies from accuracy, 0 to 1: the mean over 15 equal bins, by their images.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning
    (2015).
    """
    confidence, accuracy, counts = reliability_bins(answers)
    return float((np.abs(accuracy - confidence) * counts).sum() / counts.sum())


def reliability_figure(answers: HeldOutAnswers) -> Any:
    """Accuracy against confidence, and below it how many images are how sure."""
    confidence, accuracy, counts = reliability_bins(answers)
    figure = empty_figure(NARROW, NARROW)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=LIGHT["muted"], linestyle=":", linewidth=1)
    upper.plot(confidence, accuracy, color=LIGHT["first"], linewidth=1)
    sizes = 20 + 130 * counts / counts.max()
    upper.scatter(confidence, accuracy, s=sizes, color=LIGHT["first"], alpha=0.75, linewidth=0)
    centres = (np.ceil(confidence * CALIBRATION_BINS) - 0.5) / CALIBRATION_BINS
    lower.bar(centres, counts, width=0.8 / CALIBRATION_BINS, color=LIGHT["first"], alpha=0.75)
    lower.set_yscale("log")
    dress(upper, title="", xlabel="", ylabel="accuracy")
    dress(lower, title="", xlabel="confidence", ylabel="images")
    lower.minorticks_off()
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    low = max(0.0, min(confidence.min(), accuracy.min()) - 0.08)
    upper.set(xlim=(low, 1.03), ylim=(max(-0.03, low - 0.05), 1.05))
    upper.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    lower.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    return figure


def shares_figure(predicted: np.ndarray, reference: np.ndarray, reference_name: str) -> Any:
    """How often each class is predicted for the test images, against how often it occurs.

    Args:
        predicted: the classes of the test images, N.
        reference: the classes to compare with, M.
        reference_name: what those are.
    """
    shares = [
        100 * np.bincount(classes, minlength=CLASSES) / max(1, len(classes))
        for classes in (predicted, reference)
    ]
    figure = empty_figure(NARROW, 3.4)
    axes = figure.subplots()
    digits = np.arange(CLASSES)
    axes.bar(digits, shares[0], width=0.66, color=LIGHT["first"], alpha=0.75, label="predicted")
    axes.hlines(
        shares[1], digits - 0.42, digits + 0.42, color=LIGHT["second"], label=reference_name
    )
    dress(axes, title="", xlabel="digit", ylabel="share in %")
    axes.set(xticks=digits, ylim=(0, 1.3 * max(shares[0].max(), shares[1].max())))
    axes.legend(frameon=False, labelcolor=LIGHT["ink"], fontsize=9, ncols=2, loc="upper center")
    return figure


def sheet_figure(sheet: Sheet, title: str) -> Any:
    """A sheet as one drawing, dark ink on white as one reads."""
    columns = sheet.columns
    rows = max(1, -(-len(sheet.images) // columns))
    high, wide = IMAGE_SIZE + 13, IMAGE_SIZE + 8
    canvas = np.zeros((rows * high, columns * wide), dtype=np.uint8)
    height = 0.4 + 1.1 * high / wide * rows
    figure = empty_figure(1.1 * columns, height, layout="none")
    figure.text(0.5, 1 - 0.2 / height, title, ha="center", va="center", color=LIGHT["ink"])
    axes = figure.add_axes((0, 0, 1, 1 - 0.4 / height))
    for place, (image, caption) in enumerate(zip(sheet.images, sheet.captions, strict=True)):
        top, left = place // columns * high, place % columns * wide + 4
        canvas[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE] = image
        middle = left + IMAGE_SIZE / 2
        for line, (text, tone) in enumerate(zip(caption, ("ink", "muted"), strict=True)):
            y = top + IMAGE_SIZE + 3 + 4.5 * line
            axes.text(middle, y, text, ha="center", va="center", fontsize=7, color=LIGHT[tone])
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)
    axes.axis("off")
    return figure


def network_figure(shapes: Sequence[tuple[str, Sequence[int]]]) -> Any:
    """The network from top to bottom: what comes out of its layers, as stacks of maps.

    Args:
        shapes: for each step, the layers that make it, in words, and the output's sizes, which are
            channels x height x width, or one number.
    """
    from matplotlib.patches import Rectangle

    figure = empty_figure(NARROW, 0.3 + 0.62 * len(shapes), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    for step, (layers, sizes) in enumerate(shapes):
        channels, side = (sizes[0], sizes[1]) if len(sizes) == 3 else (sizes[0], 1)
        height = 0.2 + 0.55 * side / IMAGE_SIZE
        sheets = 1 if channels == 1 else min(12, 1 + round(np.log2(channels) * 1.4))
        if len(sizes) != 3:  # numbers in a row
            height, sheets = 0.12, 1
        width = height if len(sizes) == 3 else 0.25 + 0.22 * np.log2(channels)
        for number in reversed(range(sheets)):
            offset = 0.055 * (number - (sheets - 1) / 2)
            axes.add_patch(
                Rectangle(
                    (1 - width / 2 + offset, -step - height / 2 + offset * 0.35),
                    width,
                    height,
                    facecolor=LIGHT["paper"],
                    edgecolor=LIGHT["first"],
                    linewidth=0.8,
                )
            )
        shape = TIMES.join(map(str, sizes))
        axes.text(2.15, -step + 0.13, shape, fontsize=10, va="center", color=LIGHT["ink"])
        axes.text(2.15, -step - 0.2, layers, fontsize=7.5, va="center", color=LIGHT["muted"])
    axes.set(xlim=(0.1, 5.9), ylim=(-len(shapes) + 0.4, 0.6), aspect="equal")
    axes.axis("off")
    return figure


def dress(axes: Any, *, title: str, xlabel: str, ylabel: str = "", grid: bool = True) -> None:
    """The look that all axes share."""
    axes.set_title(title, color=LIGHT["ink"], fontsize=11, loc="left")
    axes.set_xlabel(xlabel, color=LIGHT["muted"])
    axes.set_ylabel(ylabel, color=LIGHT["muted"])
    axes.tick_params(colors=LIGHT["muted"], labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LIGHT["line"])
    axes.set_facecolor("none")
    if grid:
        axes.grid(color=LIGHT["line"], linewidth=0.6, alpha=0.7)
        axes.set_axisbelow(True)
