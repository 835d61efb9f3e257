"""What a network learns from: images and their labels, as they are or as the classic set."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .augment import CLASSIC_COPIES, classic_expanded_set
from .data import Digits
from .settings import Settings


@dataclass(frozen=True)
class LabelledImages:
    """Images N x 1 x 28 x 28, uint8 (or float32 from 0 to 1), and int64 labels N."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> LabelledImages:
        """The same images and labels on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


def training_images(
    digits: Digits, train_rows: torch.Tensor, settings: Settings, *, progress_bar: bool = False
) -> LabelledImages:
    """The images to train on: the rows as they are, or the classic set made of them."""
    images, labels = digits.train_images[train_rows], digits.train_labels[train_rows]
    if settings.augmentation == "expanded":
        expanded = classic_expanded_set(images, progress_bar=progress_bar)
        return LabelledImages(expanded, labels.repeat(CLASSIC_COPIES))
    return LabelledImages(images, labels)
