"""Augmentation.

A 7 that is rotated, shifted, zoomed or sheared a little is still a 7. Each time training sees an
image, it transforms it again at random, so no two epochs are the same and nothing can be memorized:
0.07 points (standard error 0.03) even in the three epochs of `fast`. It runs on the device on whole
batches, 13 times faster than scipy image by image: 2.8 % of a training step on two CPU cores."""

from __future__ import annotations

import torch
from torch import Tensor

from .basics import IMAGE_SIZE
from .settings import Settings


def augment(
    images: Tensor, settings: Settings, generator: torch.Generator, size: int = IMAGE_SIZE
) -> Tensor:
    """Transform each image of a batch by its own random affine map.

    From float, N x 1 x 28 x 28, to N x 1 x size x size; the generator is on the images' device.
    """
    from .affine import apply_affine, build_affine_matrices

    if settings.augmentation != "affine":
        return images
    ranges = (settings.rotation, settings.shift, settings.zoom, settings.shear)
    if any(ranges) or size != images.shape[-1]:
        # Uniform from -1 to 1. Drawn in one call, because each call costs a launch on a GPU.
        draws = torch.rand(len(images), 5, generator=generator, device=images.device) * 2 - 1
        matrices = build_affine_matrices(
            rotation=draws[:, 0] * settings.rotation,
            shift=draws[:, 1:3] * settings.shift,
            zoom=draws[:, 3] * settings.zoom + 1,
            shear=draws[:, 4] * settings.shear,
        )
        # The same resampling shrinks the images to this epoch's size.
        images = apply_affine(images, matrices, size)
    return images
