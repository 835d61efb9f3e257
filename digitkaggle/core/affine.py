"""Affine maps.

Rotation, shift, zoom and shear of whole batches, each image by its own map."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .basics import IMAGE_SIZE


def build_affine_matrices(rotation: Tensor, shift: Tensor, zoom: Tensor, shear: Tensor) -> Tensor:
    """Affine maps about the center of the image, N x 2 x 3, as `functional.affine_grid` takes them.

    Rotation in degrees counterclockwise, N; shift in pixels of 28 to the right and down, N x 2;
    zoom as a factor, N; shear in degrees to the right, N.
    """
    angle = rotation * (math.pi / 180)
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    slope = torch.tan(shear * (math.pi / 180))
    # From a place in the result to the place in the source that it shows, so every map is inverted:
    # source = unshear(unrotate(unzoom(result - shift))).
    of_x = torch.stack([cosine + slope * sine, slope * cosine - sine], dim=1)
    linear = torch.stack([of_x, torch.stack([sine, cosine], dim=1)], dim=1)
    # An image is 2 wide in these coordinates, and IMAGE_SIZE pixels.
    offset = -linear @ (shift * (2 / IMAGE_SIZE)).unsqueeze(2)
    return torch.cat([linear, offset], dim=2)


def apply_affine(images: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Resample each image by its own map, bilinear, to N x 1 x size x size, with zeros outside."""
    centers = get_pixel_centers(size, images.device)
    # All pixels of a column share one product, all of a row another: 1.1 us an image, where
    # functional.affine_grid multiplies a matrix for every pixel and takes 8.4 us.
    of_rows = matrices[:, :, 1, None] * centers + matrices[:, :, 2, None]
    planes = torch.addcmul(of_rows[..., None], matrices[:, :, 0, None, None], centers)
    grid = planes.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)


def resize(images: Tensor, size: int) -> Tensor:
    """Images, float, N x 1 x H x W, at the size of an epoch, resampled as `augment` does."""
    if size == images.shape[-1]:
        return images
    identity = torch.eye(2, 3, device=images.device).expand(len(images), -1, -1)
    return apply_affine(images, identity, size)


def get_pixel_centers(size: int, device: torch.device) -> Tensor:
    """The coordinates of `size` pixel centers; the edges of the image are -1 and 1."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


def apply_view(view: tuple[float, tuple[float, float], float], pixels: Tensor) -> Tensor:
    """Images, float, N x 1 x 28 x 28, in another view: bilinear, zeros outside."""
    rotation, shift, zoom = (torch.tensor([value], dtype=torch.float32) for value in view)
    matrix = build_affine_matrices(rotation, shift, zoom, shear=torch.zeros(1)).to(pixels.device)
    return apply_affine(pixels, matrix.expand(pixels.shape[0], -1, -1), pixels.shape[-1])
