"""The published recipe.

Where this project started, kept faithfully as the preset `classic`: seven fixed copies of every
image and a network of two wide convolutions with dropout. It reaches 99.4 % on Kaggle, after more
than a day on two CPU cores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .basics import CLASSES, Digits, LabeledImages
from .layers import SeededDropout
from .settings import Settings

# The original, four shifts in pixels (down, right), two rotations in degrees.
CLASSIC_SHIFTS, CLASSIC_ROTATIONS = ((0, -1), (0, 1), (-1, 0), (1, 0)), (-10, 10)
CLASSIC_COPIES = 1 + len(CLASSIC_SHIFTS) + len(CLASSIC_ROTATIONS)


def expand_classic_set(data: LabeledImages) -> LabeledImages:
    """Every image seven times: as it is, shifted by one pixel four ways, rotated by -10 and +10.

    One whole set follows another. From uint8, N x 1 x 28 x 28, to float32, 7N x 1 x 28 x 28.
    """
    from scipy import ndimage

    from .console import show_progress

    pixels = data.images.squeeze(1).numpy().astype(np.float32) / np.float32(255)
    # Values go a little beyond 0 and 1: splines of order 3 overshoot, and the recipe never clips.
    expanded = np.empty((CLASSIC_COPIES, *pixels.shape), dtype=np.float32)
    expanded[0] = pixels
    copies = iter(show_progress(expanded[1:], desc="augmenting"))
    for down, right in CLASSIC_SHIFTS:
        ndimage.shift(pixels, (0, down, right), output=next(copies), order=3, cval=0.0)
    for degrees in CLASSIC_ROTATIONS:
        # From axis 2 towards 1: what rotate() does by default to a single image.
        ndimage.rotate(
            pixels, degrees, axes=(2, 1), reshape=False, output=next(copies), order=3, cval=0.0
        )
    images = torch.from_numpy(expanded.reshape(-1, 1, *pixels.shape[1:]))
    return LabeledImages(images, data.labels.repeat(CLASSIC_COPIES))


def select_training_images(digits: Digits, rows: Tensor, settings: Settings) -> LabeledImages:
    """The images of these rows to train on: as they are, or with the classic recipe's copies."""
    data = LabeledImages(digits.train_images[rows], digits.train_labels[rows])
    if settings.augmentation == "expanded":
        data = expand_classic_set(data)
    return data


def build_classic_network(dropout: float, generator: torch.Generator) -> nn.Sequential:
    """1,805,130 parameters, dropout after every layer; from N x 1 x 28 x 28 to logits, N x 10."""
    return nn.Sequential(
        nn.Conv2d(1, 64, kernel_size=5),  # 64 x 24 x 24
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.MaxPool2d(2),  # 64 x 12 x 12
        nn.Conv2d(64, 256, kernel_size=3),  # 256 x 10 x 10
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.MaxPool2d(2),  # 256 x 5 x 5
        nn.Flatten(),  # 6400
        nn.Linear(6400, 256),  # 256
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.Linear(256, 64),  # 64
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.Linear(64, CLASSES),  # 10
    )


def make_adam(network: nn.Module, rate: float, decay: float) -> torch.optim.Adam:
    """Adam for all parameters of a network."""
    on_gpu = next(network.parameters()).is_cuda  # there `fused` handles overflows by itself
    return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay, fused=on_gpu or None)
