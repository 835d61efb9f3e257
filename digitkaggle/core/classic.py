"""The published recipe.

What this grew out of, kept faithfully as the preset `classic`: every image seven times, made once
before training, and a network of two wide convolutions with much dropout. 99.4 % on Kaggle, in a
day and more on two CPU cores, so this chapter is history; ours come next."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .basics import CLASSES, progress

# The original, four shifts in pixels (down, right), two rotations in degrees.
CLASSIC_SHIFTS, CLASSIC_ROTATIONS = ((0, -1), (0, 1), (-1, 0), (1, 0)), (-10, 10)
CLASSIC_COPIES = 1 + len(CLASSIC_SHIFTS) + len(CLASSIC_ROTATIONS)


def classic_expanded_set(images: Tensor) -> Tensor:
    """Every image seven times: as it is, shifted by one pixel four ways, rotated by -10 and +10.

    The copies lie one whole set after another, so labels go with them by `labels.repeat(7)`.
    From uint8, N x 1 x 28 x 28, to float32, 7N x 1 x 28 x 28, about 0 to 1: the recipe never
    clipped what splines of order 3 overshoot.
    """
    from scipy import ndimage

    pixels = images.squeeze(1).numpy().astype(np.float32) / np.float32(255)
    expanded = np.empty((CLASSIC_COPIES, *pixels.shape), dtype=np.float32)
    expanded[0] = pixels
    copies = iter(progress(expanded[1:], desc="augmenting"))
    for down, right in CLASSIC_SHIFTS:
        ndimage.shift(pixels, (0, down, right), output=next(copies), order=3, cval=0.0)
    for degrees in CLASSIC_ROTATIONS:
        # From axis 2 towards 1: of a stack what rotate() does by default of a single image.
        options = {"axes": (2, 1), "reshape": False, "order": 3, "cval": 0.0}
        ndimage.rotate(pixels, degrees, output=next(copies), **options)
    return torch.from_numpy(expanded.reshape(-1, 1, *pixels.shape[1:]))


def classic_network(dropout: float, generator: torch.Generator) -> nn.Sequential:
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


class SeededDropout(nn.Module):
    """Dropout whose randomness comes from a generator that is passed in, not from global state."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability = probability
        self.generator = generator

    def forward(self, values: Tensor) -> Tensor:
        """In training some values become zero, and the others grow to make up."""
        if not self.training or self.probability == 0:
            return values
        keep = 1 - self.probability
        if values.device.type == "cpu":
            # torch spends a double on each value, one after the other: nearly a third of the
            # recipe's time. Four values out of each 64-bit number take a quarter of that.
            words = torch.empty(-(-values.numel() // 4), dtype=torch.int64)
            words.random_(-(2**63), None, generator=self.generator)
            shorts = words.view(torch.int16)[: values.numel()]
            shorts = shorts.as_strided(values.shape, values.stride())
            mask = shorts < round(keep * 2**16) - 2**15
        else:
            mask = torch.empty_like(values).bernoulli_(keep, generator=self.generator)
        return values * mask.to(values.dtype).div_(keep)
