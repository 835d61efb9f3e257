"""The figures of a report, drawn by matplotlib: PNG as files, SVG that follows a page's theme.

They are drawn inside `rc_context(STYLE)`, in the colours of LIGHT: so a PNG looks like the light
page. In an SVG these become the page's CSS variables, so one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from torch import Tensor

from ..core.basics import CLASSES, IMAGE_SIZE
from ..core.results import FIRST, SECOND, draw_confusion, draw_curves, draw_images
from ..runs.results import HeldOutAnswers, Results

LIGHT = {"paper": "#ffffff", "ink": "#1d2027", "muted": "#5f6775", "line": "#d9dce3"}
LIGHT |= {"first": FIRST, "second": SECOND, "wrong": "#c8281e"}
DARK = {"paper": "#15171c", "ink": "#e7e9ee", "muted": "#9ba3b1", "line": "#353a45"}
DARK |= {"first": "#7fabff", "second": "#ff9f5a", "wrong": "#ff6f66"}
STYLE = {
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["muted"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "axes.edgecolor": LIGHT["line"],
    "grid.color": LIGHT["line"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "font.size": 9,
    "legend.frameon": False,
    "savefig.dpi": 120,
    "svg.fonttype": "none",  # text stays text
}
NARROW = 4.5  # inches that still read when a phone shrinks them to its width
CALIBRATION_BINS = 15
TIMES = " \u00d7 "
# Layers that a picture of the network can do without.
SMALL_LAYERS = ("BatchNorm2d", "ReLU", "SeededDropout", "Flatten", "MomentNormalisation")


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches, which needs no display and touches no global state."""
    # Imported here, for it costs a second that asking for help need not wait.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png_bytes(figure: Any) -> bytes:
    """A figure as PNG on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=LIGHT["paper"])
    return buffer.getvalue()


def svg_text(figure: Any, name: str) -> str:
    """A figure as SVG to stand in a page; every id in it starts with `name`, unique in the page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name}):  # the same drawing has the same ids
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role})")
    title = escape(figure.axes[0].get_title("left"))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def percent(value: float, _: object = None) -> str:
    """A share as an axis has it."""
    return f"{100 * value:.4g}%"


def curves_figure(results: Results, quantities: Sequence[str] = ("loss", "accuracy")) -> Any:
    """Training and validation over epochs, a panel a quantity."""
    figure = new_figure(NARROW * len(quantities), 3.4)
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    for axes, quantity in zip(panels, quantities, strict=True):
        draw_curves(axes, results.history, quantity)
        finish_curves(axes, results, quantity, LIGHT["ink"])
    return figure


def finish_curves(axes: Any, results: Results, quantity: str, colour: str) -> None:
    """Put rings around the epochs of the weights, and readable numbers on the axes."""
    from matplotlib.ticker import LogLocator

    members = results.history.groupby("member")
    for (_, rows), best in zip(members, results.best_epochs, strict=False):
        value = rows[rows["epoch"] == best][f"val_{quantity}"]
        value = value if quantity == "loss" else (1 - value).clip(lower=2e-4)
        axes.plot([best] * len(value), value, "o", color=colour, markersize=9, fillstyle="none")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if quantity == "accuracy":  # drawn as the share named wrong
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(percent)


def confusion_figure(answers: HeldOutAnswers) -> Any:
    """How often each true class (row) was taken for each other (column), as counts."""
    figure = new_figure(NARROW, NARROW)
    axes = figure.subplots()
    draw_confusion(axes, {"label": answers.label, "probabilities": answers.probabilities})
    axes.set_title("Confusions: true digit by predicted digit")
    axes.grid(visible=False)
    for text in axes.texts:
        text.set_visible(text.get_text() != "0")
    return figure


def recall_figure(answers: HeldOutAnswers) -> Any:
    """The share of each class that was named right, with its 95 % interval (Wilson's)."""
    from scipy.stats import binomtest

    figure = new_figure(NARROW, NARROW)
    axes = figure.subplots()
    for digit in np.unique(answers.label):
        right = answers.right[answers.label == digit]
        interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        axes.plot([interval.low, interval.high], [digit] * 2, color=LIGHT["line"], linewidth=5)
        axes.plot(right.mean(), digit, "o", color=FIRST, clip_on=False)
        wrong = f"{(~right).sum():,} of {len(right):,} wrong"
        axes.text(interval.low, digit - 0.2, wrong, color=LIGHT["muted"], fontsize=7.5)
    axes.set_title("Recall of each digit, with its 95 % interval")
    axes.set(xlabel="recall", ylabel="digit", yticks=range(CLASSES), ylim=(CLASSES - 0.4, -0.7))
    axes.set_xlim(right=min(1.0, axes.get_xlim()[1]))
    axes.xaxis.set_major_formatter(percent)
    axes.locator_params(axis="x", nbins=5)
    return figure


def reliability_bins(answers: HeldOutAnswers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of images of every bin of confidence that has any."""
    place = np.minimum((answers.confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    _, place, counts = np.unique(place, return_inverse=True, return_counts=True)
    sums = [np.bincount(place, weights=of) for of in (answers.confidence, answers.right)]
    return sums[0] / counts, sums[1] / counts, counts


def expected_calibration_error(answers: HeldOutAnswers) -> float:
    """How far confidence lies from accuracy, 0 to 1: the mean over 15 equal bins, by their images.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning
    (2015).
    """
    confidence, accuracy, counts = reliability_bins(answers)
    return float(np.average(np.abs(accuracy - confidence), weights=counts))


def reliability_figure(answers: HeldOutAnswers) -> Any:
    """Accuracy against confidence, and below it how many images are how sure."""
    confidence, accuracy, counts = reliability_bins(answers)
    figure = new_figure(NARROW, NARROW)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.set_title("Reliability: accuracy by confidence")
    upper.plot([0, 1], [0, 1], ":", color=LIGHT["muted"])
    upper.plot(confidence, accuracy, color=FIRST)
    upper.scatter(confidence, accuracy, s=20 + 130 * counts / counts.max(), color=FIRST)
    lower.bar(confidence, counts, width=0.6 / CALIBRATION_BINS, color=FIRST)
    low = max(0.0, min(confidence.min(), accuracy.min()) - 0.08)
    upper.set(ylabel="accuracy", xlim=(low, 1.03), ylim=(low - 0.03, 1.05))
    lower.set(xlabel="confidence", ylabel="images", yscale="log")
    lower.minorticks_off()
    for axis in (upper.xaxis, upper.yaxis):
        axis.set_major_formatter(percent)
    return figure


def shares_figure(predicted: np.ndarray, labels: np.ndarray, labels_name: str) -> Any:
    """How often each class is predicted for the test images, against how often it occurs."""
    shares, others = [
        np.bincount(classes, minlength=CLASSES) / len(classes) for classes in (predicted, labels)
    ]
    figure, digits = new_figure(NARROW, 3.4), np.arange(CLASSES)
    axes = figure.subplots()
    axes.set_title("How often each digit is predicted, and occurs")
    axes.bar(digits, shares, width=0.66, color=FIRST, alpha=0.75, label="predicted")
    axes.hlines(others, digits - 0.42, digits + 0.42, color=SECOND, label=labels_name)
    axes.set(xlabel="digit", xticks=digits, ylim=(0, 1.3 * max(shares.max(), others.max())))
    axes.yaxis.set_major_formatter(percent)
    axes.legend(ncols=2, loc="upper center")
    return figure


def images_figure(
    title: str, images: Tensor, captions: Sequence[tuple[str, str]], columns: int
) -> Any:
    """Small images in rows, uint8, N x 1 x 28 x 28, with two short lines below each, or none."""
    rows = -(-len(images) // columns)
    figure = new_figure(columns, 0.5 + rows * (1.4 if captions else 1))
    axes = figure.subplots()
    draw_images(axes, images, ["\n".join(lines) for lines in captions], columns)
    axes.set_title(title)
    return figure


def network_figure(layers: Sequence[tuple[str, Sequence[int], int]]) -> Any:
    """The network from top to bottom: what comes out of its layers (`network_layers`), as boxes.

    A box is as high as its maps, and the wider the more of them there are.
    """
    from matplotlib.patches import Rectangle

    steps = [("input", (1, IMAGE_SIZE, IMAGE_SIZE))]
    for sizes, same in groupby(layers, key=lambda layer: layer[1]):
        if names := [name for name, *_ in same if not name.startswith(SMALL_LAYERS)]:
            steps.append((", ".join(names), sizes))
    figure = new_figure(NARROW, 0.5 + 0.62 * len(steps))
    axes = figure.subplots()
    axes.set_title("What comes out of its layers")
    for step, (names, sizes) in enumerate(steps):
        height = 0.1 + 0.6 * (sizes[1] if len(sizes) > 1 else 1) / IMAGE_SIZE
        width = 0.1 + 0.2 * np.log2(sizes[0])
        corner = 1 - width / 2, step - height / 2
        axes.add_patch(Rectangle(corner, width, height, color=FIRST, alpha=0.6, linewidth=0))
        axes.text(2.2, step - 0.05, TIMES.join(map(str, sizes)), fontsize=10)
        axes.text(2.2, step + 0.25, names, fontsize=7.5, color=LIGHT["muted"])
    axes.set(xlim=(0.1, 5.9), ylim=(len(steps) - 0.4, -0.6), aspect="equal")
    axes.axis("off")
    return figure
