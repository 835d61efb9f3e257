"""More digits from the same digits: random affine maps for each batch, and the classic's fixed set.

Only training images ever come through here. Both are pure functions: the random one of images,
ranges and a generator; the fixed one of the images alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from .digits import IMAGE_SIZE
from .progress import make_bar
from .settings import Settings

# The seven versions of every image in the classic expanded set: the original, four shifts in
# pixels (down, right), two rotations in degrees.
CLASSIC_SHIFTS = ((0, -1), (0, 1), (-1, 0), (1, 0))
CLASSIC_ROTATIONS = (-10, 10)
CLASSIC_COPIES = 1 + len(CLASSIC_SHIFTS) + len(CLASSIC_ROTATIONS)


def classic_expanded_set(images: torch.Tensor, *, progress_bar: bool = False) -> torch.Tensor:
    """Every image seven times: as it is, shifted by one pixel four ways, rotated by -10 and +10.

    The copies lie one whole set after another, so labels go with them by `labels.repeat(7)`.
    Splines of order 3 and zeros outside, as in the published recipe; the stack goes through
    `scipy.ndimage` whole, which equals the image-by-image result (tested to 1e-6). The values stay
    as the spline leaves them: a rotation overshoots 0 and 1 a little, and the recipe never clipped.

    Args:
        images: uint8, N x 1 x 28 x 28, 0 to 255.
        progress_bar: show one on standard error after two seconds, if that is a terminal.

    Returns:
        float32, 7N x 1 x 28 x 28, about 0 to 1; 28 bytes for every pixel that came in.
    """
    from scipy import ndimage

    pixels = images.squeeze(1).numpy().astype(np.float32) / np.float32(255)
    expanded = np.empty((CLASSIC_COPIES, *pixels.shape), dtype=np.float32)
    expanded[0] = pixels
    copies = iter(make_bar(expanded[1:], shown=progress_bar, desc="augmenting", unit="copy"))
    for down, right in CLASSIC_SHIFTS:
        ndimage.shift(pixels, (0, down, right), output=next(copies), order=3, cval=0.0)
    for degrees in CLASSIC_ROTATIONS:
        # rotate() turns the plane of the first axis named towards the second: (2, 1) is the
        # default of a single image, (1, 0), for each image of the stack.
        ndimage.rotate(
            pixels,
            degrees,
            axes=(2, 1),
            reshape=False,
            output=next(copies),
            order=3,
            cval=0.0,
        )
    return torch.from_numpy(expanded.reshape(-1, 1, *pixels.shape[1:]))


def augmented(
    images: torch.Tensor, settings: Settings, generator: torch.Generator, size: int = IMAGE_SIZE
) -> torch.Tensor:
    """A batch as training sees it: each image changed anew at random, as far as the settings say.

    Args:
        images: float, N x 1 x 28 x 28, about 0 to 1.
        settings: `augmentation` and its ranges; without `affine` images come back as they are.
        generator: on the CPU, so that every device sees the same draws.
        size: pixels along a side of the results, which show all of the image, smaller or not.

    Returns:
        N x 1 x size x size.
    """
    if settings.augmentation == "affine":
        images = random_affine(
            images,
            generator,
            rotation=settings.rotation,
            shift=settings.shift,
            zoom=settings.zoom,
            shear=settings.shear,
            size=size,
        )
    return images


def affine_matrices(
    rotation: torch.Tensor,
    shift: torch.Tensor,
    zoom: torch.Tensor,
    shear: torch.Tensor,
    size: int = 28,
) -> torch.Tensor:
    """The maps that rotate, shift, zoom and shear a digit about the middle of its image.

    Args:
        rotation: N, degrees, counter-clockwise as one sees it.
        shift: N x 2, pixels to the right and down.
        zoom: N, the factor by which the digit grows.
        shear: N, degrees by which upright strokes lean to the right.
        size: pixels along a side of the square image.

    Returns:
        float32, N x 2 x 3: from a place in the result to the place in the source that it shows, in
        the coordinates of `torch.nn.functional.affine_grid`, -1 to 1 across the image.
    """
    angle = rotation * (math.pi / 180)
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    lean = torch.tan(shear * (math.pi / 180))
    # Source = lean back (turn back (shrink back (result - shift))).
    linear = torch.stack(
        [
            torch.stack([cosine + lean * sine, lean * cosine - sine], dim=1),
            torch.stack([sine, cosine], dim=1),
        ],
        dim=1,
    )
    offset = -linear @ (shift * (2 / size)).unsqueeze(2)
    return torch.cat([linear, offset], dim=2)


def pixel_centres(size: int, device: torch.device) -> torch.Tensor:
    """Where the middles of `size` pixels lie between the image's edges, -1 and 1."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


def apply_affine(images: torch.Tensor, matrices: torch.Tensor, size: int) -> torch.Tensor:
    """Each image through its own map, bilinear, zeros outside.

    Args:
        images: float, N x 1 x H x W.
        matrices: N x 2 x 3, as `affine_matrices` gives them.
        size: pixels along a side of the square results, which show all of the image.

    Returns:
        N x 1 x size x size, dtype and device as `images`.
    """
    centres = pixel_centres(size, images.device)
    # functional.affine_grid would multiply matrices for every pixel; all of a column's pixels share
    # one product, all of a row's another. Laid out as two planes, this is eight times faster.
    of_rows = matrices[:, :, 1, None] * centres + matrices[:, :, 2, None]
    planes = torch.addcmul(of_rows[..., None], matrices[:, :, 0, None, None], centres)
    grid = planes.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)


def random_affine(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    rotation: float,
    shift: float,
    zoom: float,
    shear: float,
    size: int = 28,
) -> torch.Tensor:
    """Each image of a batch through a random map of its own, on the device where the images lie.

    Everything is drawn evenly from its range, each image apart. All ranges zero and the size that
    they have gives the images back as they are, to the bit.

    Args:
        images: float, N x 1 x 28 x 28.
        generator: on the CPU, so that every device sees the same draws.
        rotation: up to so many degrees either way.
        shift: up to so many pixels along each axis.
        zoom: up to such a part larger or smaller; 0.1 is 10 %.
        shear: up to so many degrees either way.
        size: pixels along a side of the results, which show all of the image, smaller or not.

    Returns:
        N x 1 x size x size.
    """
    if not (rotation or shift or zoom or shear) and size == images.shape[-1]:
        return images
    draws = torch.rand(len(images), 5, generator=generator).mul_(2).sub_(1)
    ranges = torch.tensor([rotation, shift, shift, zoom, shear])
    matrices = affine_matrices(
        rotation=draws[:, 0] * ranges[0],
        shift=draws[:, 1:3] * ranges[1:3],
        zoom=1 + draws[:, 3] * ranges[3],
        shear=draws[:, 4] * ranges[4],
        size=images.shape[-1],
    )
    return apply_affine(images, matrices.to(images.device), size)
