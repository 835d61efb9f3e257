"""The figures of a report, drawn by matplotlib within `rc_context(STYLE)`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.augment import augment
from ..core.basics import CLASSES, Digits, LabeledImages
from ..core.classic import expand_classic_set
from ..core.drawing import (
    QUICK_PNG,
    TRAIN_COLOR,
    draw_confusion,
    draw_curves,
    draw_images,
    draw_mistakes,
)
from ..core.results import HeldOutPredictions
from ..core.settings import Settings
from ..runs.finished import FinishedRun

NARROW, WIDE = 4.5, 9  # inches
CALIBRATION_BINS = 15
TEST_IMAGES_SHOWN = 40
AUGMENTED_VERSIONS = 5


def make_axes(width: float, height: float, columns: int = 1) -> Any:
    """The axes of a new figure, in inches, that needs no display and no global state."""
    # Imported here, because it takes a second that `--help` need not wait for.
    from matplotlib.figure import Figure

    # Fixed margins, in inches: to measure what fits would draw everything twice.
    sides = {"left": 0.7 / width, "right": 1 - 0.15 / width}
    ends = {"bottom": 0.5 / height, "top": 1 - 0.35 / height}
    return Figure(figsize=(width, height)).subplots(1, columns, gridspec_kw=sides | ends)


def render_png(figure: Any) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs=QUICK_PNG)
    return buffer.getvalue()


def plot_curves(run: FinishedRun) -> Any:
    """Loss and error rate over the epochs, with dotted lines at the epochs of the weights."""
    loss, errors = make_axes(WIDE, 3.4, columns=2)
    image_sizes = run.metrics["settings"].get("image_sizes", ())
    for axes, quantity in ((loss, "loss"), (errors, "accuracy")):
        draw_curves(axes, run.history, quantity, image_sizes)
        for epoch in run.best_epochs:
            axes.axvline(epoch, linestyle=":", color="black", linewidth=1)
    return loss.figure


def plot_confusion(held_out: HeldOutPredictions) -> Any:
    """The confusion matrix of the held-out images, as counts."""
    axes = make_axes(NARROW, NARROW)
    draw_confusion(axes, held_out)
    axes.set_title("Confusion matrix: true digit by predicted digit")
    return axes.figure


def plot_recall(held_out: HeldOutPredictions) -> Any:
    """The recall of each class, with its 95 % interval (Wilson's)."""
    axes = make_axes(NARROW, NARROW)
    for digit in np.unique(held_out.label):
        correct = held_out.correct[held_out.label == digit]
        recall, images, z = correct.mean(), len(correct), 1.96
        center = (recall + z**2 / (2 * images)) / (1 + z**2 / images)
        margin = z * np.sqrt(recall * (1 - recall) / images + (z / (2 * images)) ** 2)
        ends = center + np.array([-1, 1]) * margin / (1 + z**2 / images)
        axes.plot(ends, [digit] * 2, color="lightgrey", linewidth=5)
        axes.plot(recall, digit, "o", color=TRAIN_COLOR)
    axes.set(title="Recall of each digit, with its 95 % interval", xlabel="recall", ylabel="digit")
    axes.set_yticks(range(CLASSES))
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter("{x:.1%}")
    return axes.figure


def bin_by_confidence(held_out: HeldOutPredictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of images of every bin of confidence that has any."""
    bins = np.minimum((held_out.confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    _, bins, counts = np.unique(bins, return_inverse=True, return_counts=True)
    confidence = np.bincount(bins, weights=held_out.confidence) / counts
    accuracy = np.bincount(bins, weights=held_out.correct) / counts
    return confidence, accuracy, counts


def compute_calibration_error(held_out: HeldOutPredictions) -> float:
    """The expected calibration error, 0 to 1: the mean distance of confidence from accuracy.

    Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, 2015.
    """
    confidence, accuracy, counts = bin_by_confidence(held_out)
    return float(np.average(np.abs(accuracy - confidence), weights=counts))


def undo_calibration(
    held_out: HeldOutPredictions, temperatures: Sequence[float]
) -> HeldOutPredictions:
    """Approximately the predictions before the logits were divided by these temperatures."""
    powers = held_out.probabilities.astype(float) ** np.mean(temperatures)
    return replace(held_out, probabilities=powers / powers.sum(axis=1, keepdims=True))


def plot_reliability(held_out: HeldOutPredictions) -> Any:
    """Accuracy against confidence; larger points stand for more images."""
    confidence, accuracy, counts = bin_by_confidence(held_out)
    axes = make_axes(NARROW, NARROW)
    axes.axline((1, 1), slope=1, linestyle=":", color="grey")
    axes.plot(confidence, accuracy, color=TRAIN_COLOR)
    axes.scatter(confidence, accuracy, s=20 + 130 * counts / counts.max(), color=TRAIN_COLOR)
    axes.set(title="Reliability: accuracy by confidence", xlabel="confidence", ylabel="accuracy")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    return axes.figure


def plot_mistakes(digits: Digits, held_out: HeldOutPredictions) -> Any:
    """The most confident errors: prediction, confidence and true class."""
    axes = make_axes(WIDE, WIDE)
    draw_mistakes(axes, digits, held_out)
    return fit_height(axes)


def plot_augmentation(digits: Digits, settings: Settings) -> Any:
    """The first image of each class, and below it augmented versions."""
    _, first = np.unique(digits.train_labels, return_index=True)
    data = LabeledImages(digits.train_images[first], digits.train_labels[first])
    if settings.augmentation == "expanded":
        pixels = expand_classic_set(data).images  # begins with the images as they are
    else:
        plain, generator = data.images.float() / 255, torch.Generator().manual_seed(0)
        versions = [augment(plain, settings, generator) for _ in range(AUGMENTED_VERSIONS)]
        pixels = torch.cat([plain, *versions])
    images = (pixels.clamp(0, 1) * 255).round().byte()
    return plot_images("Training images and augmented versions", images, columns=len(data))


def plot_least_certain(digits: Digits, probabilities: np.ndarray) -> Any:
    """The test images whose two most likely classes are closest."""
    likely, classes = torch.from_numpy(probabilities).topk(2)
    closest = (likely[:, 0] - likely[:, 1]).argsort(stable=True)[:TEST_IMAGES_SHOWN]
    captions = [
        f"{classes[i, 0]}, {likely[i, 0]:.0%}\nor {classes[i, 1]}, {likely[i, 1]:.0%}"
        for i in closest
    ]
    title = f"The {len(closest)} least certain predictions for test images"
    return plot_images(title, digits.test_images[closest], captions)


def plot_images(title: str, images: Tensor, captions: Sequence[str] = (), columns: int = 10) -> Any:
    """Small images in rows, uint8, N x 1 x 28 x 28, with captions below or without."""
    axes = make_axes(WIDE, WIDE)
    draw_images(axes, images, captions, columns)
    axes.set_title(title)
    return fit_height(axes)


def fit_height(axes: Any) -> Any:
    """The figure of axes with images only, as high as they and their title need."""
    rows, columns = axes.images[0].get_size()
    height = WIDE * rows / columns + 0.4  # inches
    axes.figure.set_size_inches(WIDE, height)
    axes.set_position((0, 0, 1, 1 - 0.4 / height))
    return axes.figure
