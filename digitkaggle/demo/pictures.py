"""From any picture of a digit to MNIST's form: 28 x 28, light ink on black.

As MNIST was made (LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document
Recognition, 1998): the ink's box is scaled, antialiased, to 20 x 20 pixels, and its center of mass
moves to the middle of 28 x 28. Before that, light and shadow on the paper are removed, as a phone's
camera needs; ink is what differs from the paper. Never in the kernel, because it needs Pillow.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy
from PIL import Image, ImageOps

from ..core.basics import IMAGE_SIZE, InputError

# The formats that Pillow tries: no rare decoder gets a file from a stranger.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# Larger pictures are scaled down first; a digit needs no more pixels.
WORKING_SIDE = 640
INK_BOX = 20
# Ink is at least this fraction of black on white, and this many times the paper's noise.
LEAST_CONTRAST, LEAST_CONTRAST_TO_NOISE = 0.08, 5.0
# A mark with less area than this fraction of the largest is dirt.
LEAST_SHARE = 0.04
# An 8 has two holes, a careless hand leaves a third; holes below this fraction of the digit's box
# do not count.
MOST_HOLES, LEAST_HOLE = 3, 0.004
# Digits are taller than wide, or nearly; the widest of the 5,000 sample digits is 1.0 as wide.
WIDEST = 1.8
# A digit is not a block: of the 42,000, those wider than 0.4 of their height fill at most 0.86 of
# their box.
BLOCK_WIDTH, BLOCK_INK = 0.4, 0.92
# Strokes thinner than this fraction of the digit's height would fade when it is scaled down.
LEAST_STROKE = 0.085

BLANK = "blank: no ink stands out from the background"
SEVERAL = "several digits or marks: one digit a picture"
NO_DIGIT = "no digit: digits do not have this shape"


@dataclass(frozen=True)
class FoundDigit:
    """A digit in MNIST's form, uint8, 28 x 28; or None and the problem."""

    image: np.ndarray | None
    problem: str = ""


def open_picture(file: Path | BinaryIO) -> np.ndarray:
    """A picture file as `to_colors` returns it; InputError if it cannot be read or is too large."""
    try:
        # Pillow only warns about a picture so large that it may be a decompression bomb.
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(file, formats=FORMATS) as opened,
        ):
            picture = ImageOps.exif_transpose(opened)
    except Exception as error:  # Pillow's decoders raise all kinds over damaged files
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        advice = "save it as PNG or JPEG of a normal size"
        raise InputError(f"{file} is not a readable picture ({reason}): {advice}") from error
    return to_colors(picture)


def to_colors(picture: Image.Image) -> np.ndarray:
    """A picture as float32, H x W x 3, 0 to 1: upright, scaled down, on an opaque background."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        # 16 bits and more: Pillow itself would cut off all above 255.
        deep = np.asarray(picture, dtype=np.float32).clip(0)
        picture = Image.fromarray((255 * deep / max(deep.max(), 1)).astype(np.uint8))
    picture = picture.convert("RGBA")
    picture.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    pixels = np.asarray(picture, dtype=np.float32) / 255
    colors, opacity = pixels[..., :3], pixels[..., 3:]
    # Dark ink was drawn for white paper, light ink for dark paper.
    ink = (colors * opacity).sum() / (3 * max(opacity.sum(), 1e-6))
    paper = 1 if ink < 0.5 else 0
    return colors * opacity + paper * (1 - opacity)


def find_digit(colors: np.ndarray) -> FoundDigit:
    """The one digit in a picture (float32, H x W x 3, 0 to 1), brought to MNIST's form."""
    strength = measure_ink(colors)
    mask = find_ink(strength)
    if mask is None:
        return FoundDigit(None, BLANK)
    around = np.ones((3, 3))
    marks, _ = scipy.ndimage.label(mask, around)
    slices = scipy.ndimage.find_objects(marks)
    boxes = np.array([[(side.start, side.stop) for side in box] for box in slices])
    areas = np.bincount(marks.ravel())[1:]
    large = areas >= LEAST_SHARE * areas.max()
    inside = large & ~run_along_edge(boxes, mask.shape)
    chosen = np.flatnonzero(inside if inside.any() else large)
    if are_apart(boxes[chosen], areas[chosen]):
        return FoundDigit(None, SEVERAL)
    kept = np.isin(marks, chosen + 1)
    # The soft edges of the strokes belong to the ink, the dirt around it does not.
    reach = max(1, round(max(mask.shape) / 80))
    near = scipy.ndimage.binary_dilation(kept, around, iterations=reach)
    ink = (strength / np.median(strength[kept])).clip(0, 1) * near
    box = scipy.ndimage.find_objects((ink > 0.1).astype(int))[0]
    if not is_shaped_like_a_digit(kept[box]):
        return FoundDigit(None, NO_DIGIT)
    return FoundDigit(bring_to_mnist_form(thicken(ink[box], kept[box])))


def measure_ink(colors: np.ndarray) -> np.ndarray:
    """How far each pixel lies from the paper in the direction of the ink's color, H x W, from 0.

    That direction is the one in which pixels differ most from what is around them. Along it, light
    and shadow are taken away by a top-hat: no stroke is as wide as a third of the picture.
    """
    size = max(3, round(max(colors.shape[:2]) / 3))
    difference = colors - scipy.ndimage.uniform_filter(colors, (size, size, 1))
    direction = (difference * (difference**2).sum(axis=2, keepdims=True)).sum(axis=(0, 1))
    along = colors @ direction / max(np.linalg.norm(direction), 1e-9)
    return scipy.ndimage.white_tophat(along, size | 1) / np.sqrt(3)  # black on white is 1


def find_ink(strength: np.ndarray) -> np.ndarray | None:
    """Where the ink is, bool, H x W; None if nothing stands out."""
    if strength.max() < LEAST_CONTRAST:
        return None
    calm = scipy.ndimage.gaussian_filter(strength, max(strength.shape) / 500)
    # Halfway between the means of ink and paper: Ridler and Calvard, Picture Thresholding (1978).
    threshold = calm.max() / 2
    for _ in range(20):
        threshold = (calm[calm > threshold].mean() + calm[calm <= threshold].mean()) / 2
    mask = calm > threshold
    contrast = np.median(calm[mask]) - np.median(calm[~mask])
    noise = calm[~mask].std()
    return mask if contrast >= max(LEAST_CONTRAST, LEAST_CONTRAST_TO_NOISE * noise) else None


def bring_to_mnist_form(ink: np.ndarray) -> np.ndarray:
    """An ink's box (float, 0 to 1) as uint8, 28 x 28: 20 x 20 at most, its mass in the middle."""
    width, height = (max(1, round(side * INK_BOX / max(ink.shape))) for side in ink.shape[::-1])
    small = Image.fromarray(ink.astype(np.float32)).resize((width, height))  # bicubic
    down, right = scipy.ndimage.center_of_mass(np.asarray(small).clip(0, 1))
    placed = Image.new("F", (IMAGE_SIZE, IMAGE_SIZE))
    placed.paste(small, (round(IMAGE_SIZE / 2 - right), round(IMAGE_SIZE / 2 - down)))
    return (255 * np.asarray(placed).clip(0, 1)).round().astype(np.uint8)


def run_along_edge(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which marks run along the picture's edge: a table, a frame, a shadow."""
    starts, stops = boxes[..., 0], boxes[..., 1]
    touching = (starts == 0) | (stops == shape)
    long = stops - starts > 0.6 * np.array(shape)
    return (touching & long[:, ::-1]).any(axis=1)


def are_apart(boxes: np.ndarray, areas: np.ndarray) -> bool:
    """Whether two of the marks are digits of their own, not parts of one (as the bar of a 5 is)."""
    heights = boxes[:, 0, 1] - boxes[:, 0, 0]
    tall = (heights >= heights.max() / 2) & (areas >= areas.max() / 5)
    starts, stops = boxes[tall, :, 0], boxes[tall, :, 1]
    gaps = np.maximum(starts[:, None], starts) - np.minimum(stops[:, None], stops)
    return bool((gaps > 0.06 * heights.max()).any())


def is_shaped_like_a_digit(mask: np.ndarray) -> bool:
    """Whether ink is neither a dash nor a block, and encloses few holes."""
    height, width = mask.shape
    if width > WIDEST * height or (width > BLOCK_WIDTH * height and mask.mean() > BLOCK_INK):
        return False
    outside_and_holes, _ = scipy.ndimage.label(~np.pad(mask, 1))
    areas = np.bincount(outside_and_holes.ravel())[2:]
    return (areas >= LEAST_HOLE * mask.size).sum() <= MOST_HOLES


def thicken(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The ink with strokes that survive scaling down; a strip is four mean distances wide."""
    stroke = 4 * scipy.ndimage.distance_transform_edt(mask)[mask].mean() - 1
    radius = max(0, round((LEAST_STROKE * max(ink.shape) - stroke) / 2))
    return scipy.ndimage.grey_dilation(np.pad(ink, radius), 2 * radius + 1)
