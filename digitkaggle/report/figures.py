"""The figures of a report, drawn by matplotlib within `rc_context(STYLE)`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.augment import augmented
from ..core.basics import CLASSES, Digits
from ..core.classic import classic_expanded_set
from ..core.results import FIRST, draw_confusion, draw_curves, draw_images, draw_mistakes
from ..core.settings import Settings
from ..runs.results import HeldOutAnswers, Results

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
    "savefig.bbox": "tight",
    "savefig.dpi": 130,
}
NARROW, WIDE = 4.5, 9  # inches
CALIBRATION_BINS = 15
MOST_SHOWN = 40
AUGMENTED_VERSIONS = 5


def new_axes(width: float, height: float, columns: int = 1) -> Any:
    """The axes of a new figure of so many inches, which needs no display and no global state."""
    # Imported here, for it costs a second that asking for help need not wait.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height)).subplots(1, columns, gridspec_kw={"wspace": 0.25})


def rendered(figure: Any) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})  # a third of the time
    return buffer.getvalue()


def curves_figure(results: Results) -> Any:
    """Training and validation over epochs, with dotted lines at the epochs of the weights."""
    loss, errors = new_axes(WIDE, 3.4, columns=2)
    draw_curves(loss, results.history, "loss")
    draw_curves(errors, results.history, "accuracy")
    show_errors(errors)
    for axes in (loss, errors):
        axes.xaxis.get_major_locator().set_params(integer=True)
        for epoch in results.best_epochs:
            axes.axvline(epoch, linestyle=":", color="black", linewidth=1)
    return loss.figure


def show_errors(axes: Any) -> None:
    """Show shares on a logarithmic scale that can be read where all lie within a decade."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:.2%}")


def confusion_figure(answers: HeldOutAnswers) -> Any:
    """How often each true class (row) was taken for each other (column), as counts."""
    axes = new_axes(NARROW, NARROW)
    draw_confusion(axes, vars(answers))
    axes.set_title("Confusions: true digit by predicted digit")
    axes.grid(visible=False)
    return axes.figure


def recall_figure(answers: HeldOutAnswers) -> Any:
    """The share of each class that was named right, with its 95 % interval (Wilson's)."""
    axes = new_axes(NARROW, NARROW)
    for digit in np.unique(answers.label):
        right = answers.right[answers.label == digit]
        share, images, z = right.mean(), len(right), 1.96
        middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
        reach = z * np.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
        ends = middle + np.array([-1, 1]) * reach / (1 + z**2 / images)
        axes.plot(ends, [digit] * 2, color="lightgrey", linewidth=5)
        axes.plot(share, digit, "o", color=FIRST)
    axes.set(title="Recall of each digit, with its 95 % interval", xlabel="recall", ylabel="digit")
    axes.set_yticks(range(CLASSES))
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter("{x:.1%}")
    return axes.figure


def reliability_bins(answers: HeldOutAnswers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of images of every bin of confidence that has any."""
    place = np.minimum((answers.confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    _, place, counts = np.unique(place, return_inverse=True, return_counts=True)
    sums = [np.bincount(place, weights=of) for of in (answers.confidence, answers.right)]
    return sums[0] / counts, sums[1] / counts, counts


def expected_calibration_error(answers: HeldOutAnswers) -> float:
    """How far confidence lies from accuracy, on average (Naeini, Cooper, Hauskrecht 2015)."""
    confidence, accuracy, counts = reliability_bins(answers)
    return float(np.average(np.abs(accuracy - confidence), weights=counts))


def uncalibrated(answers: HeldOutAnswers, temperatures: Sequence[float]) -> HeldOutAnswers:
    """About the answers as they were before their logits were divided by such temperatures."""
    powers = answers.probabilities.astype(float) ** np.mean(temperatures)
    return replace(answers, probabilities=powers / powers.sum(axis=1, keepdims=True))


def reliability_figure(answers: HeldOutAnswers) -> Any:
    """Accuracy against confidence; larger points stand for more images."""
    confidence, accuracy, counts = reliability_bins(answers)
    axes = new_axes(NARROW, NARROW)
    axes.axline((1, 1), slope=1, linestyle=":", color="grey")
    axes.plot(confidence, accuracy, color=FIRST)
    axes.scatter(confidence, accuracy, s=20 + 130 * counts / counts.max(), color=FIRST)
    axes.set(title="Reliability: accuracy by confidence", xlabel="confidence", ylabel="accuracy")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    return axes.figure


def mistakes_figure(digits: Digits, answers: HeldOutAnswers) -> Any:
    """The surest of the mistakes: what was said, how surely, and what it is."""
    axes = new_axes(WIDE, WIDE)
    draw_mistakes(axes, digits, vars(answers))
    return axes.figure


def augmentation_figure(digits: Digits, settings: Settings) -> Any:
    """The first digit of each class in the top row, and below it versions that training sees."""
    _, first = np.unique(digits.train_labels, return_index=True)
    images, draws = digits.train_images[first], torch.Generator().manual_seed(0)
    plain = images.float() / 255
    seen = [plain, *(augmented(plain, settings, draws) for _ in range(AUGMENTED_VERSIONS))]
    if settings.augmentation == "expanded":
        seen = [classic_expanded_set(images)]  # which begins with the images as they are
    pixels = (torch.cat(seen).clamp(0, 1) * 255).round().byte()
    return images_figure("Digits and their versions", pixels, columns=len(images))


def least_certain_figure(digits: Digits, probabilities: np.ndarray) -> Any:
    """The test images whose two most likely classes are closest."""
    shares, classes = torch.from_numpy(probabilities).topk(2)
    doubtful = (shares[:, 0] - shares[:, 1]).argsort(stable=True)[:MOST_SHOWN]
    captions = [
        f"{classes[i, 0]}, {shares[i, 0]:.0%}\nor {classes[i, 1]}, {shares[i, 1]:.0%}"
        for i in doubtful
    ]
    title = f"The {len(doubtful)} test images it is least certain of"
    return images_figure(title, digits.test_images[doubtful], captions)


def images_figure(
    title: str, images: Tensor, captions: Sequence[str] = (), columns: int = 10
) -> Any:
    """Small images in rows, uint8, N x 1 x 28 x 28, with captions below or without."""
    axes = new_axes(WIDE, WIDE)
    draw_images(axes, images, captions, columns)
    axes.set_title(title)
    return axes.figure
