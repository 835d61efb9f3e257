"""Basics.

Data classes that all chapters share, two exceptions and the logger."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

VERSION = "0.4.0"
IMAGE_SIZE = 28  # pixels along a side
CLASSES = 10

logger = logging.getLogger("digitkaggle")
logger.addHandler(logging.NullHandler())  # a library stays silent until its user asks for a log


class InputError(Exception):
    """Wrong use or bad input: one line that says what is wrong, where, and what to do next."""


class TrainingError(InputError):
    """Training cannot continue because the loss is NaN or infinite."""


@dataclass(frozen=True)
class LabeledImages:
    """Images N x 1 x 28 x 28, uint8 (or float32, 0 to 1); labels N, int64."""

    # All 42,000 images take 33 MB as uint8, so they live on the device as one tensor. A batch is a
    # slice of a shuffled index: no data loader, no worker processes.
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> LabeledImages:
        """The same images and labels on another device."""
        return LabeledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Digits:
    """The competition's images. Labels of test images are known only for the sample."""

    train_images: Tensor  # uint8, N x 1 x 28 x 28
    train_labels: Tensor  # int64, N
    test_images: Tensor  # uint8, M x 1 x 28 x 28
    test_labels: Tensor | None = None  # int64, M
    origin: str = ""  # the folder or file they were read from


@dataclass(frozen=True)
class Compute:
    """The device a network runs on, the dtype its layers compute in, and the reason for both."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    # Channels last: with channels first, every layer is slower by up to a third.
    memory_format: torch.memory_format = torch.channels_last
    cuda_graphs: bool = False  # whether training steps are recorded once and then replayed
    warning: str = ""  # why a GPU that should be there is not used

    def autocast(self) -> torch.autocast:
        """Layers inside compute in `dtype` where that is safe; weights stay float32."""
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=half)
