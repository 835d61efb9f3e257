"""From anybody's picture of a digit to the form of MNIST's: 28 x 28, light ink on black.

As MNIST was made (LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document
Recognition, 1998): the ink's box is scaled, antialiased, into 20 x 20 pixels, and its centre of
mass put in the middle of 28 x 28. Before that comes what a phone's camera needs: the paper's light
and shadow are taken away, and the ink is what differs from them. Never in the kernel, for it needs
Pillow.
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

# What Pillow may try to read: no exotic decoder gets to see a stranger's file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# Larger pictures are scaled down first; a digit needs no more.
WORKING_SIDE = 640
INK_BOX = 20
# An ink weaker than this part of black on white, or than so many times the paper's noise, is none.
LEAST_CONTRAST, LEAST_CONTRAST_TO_NOISE = 0.08, 5.0
# A mark with less area than this share of the largest is dirt.
LEAST_SHARE = 0.04
# An 8 has two holes, a careless hand leaves a third; holes of less than this share of the digit's
# box are not counted.
MOST_HOLES, LEAST_HOLE = 3, 0.004
# Digits are taller than wide, or nearly; the widest of the 5,000 sample digits is 1.0 as wide.
WIDEST = 1.8
# Nor is a digit a block: of the 42,000, those more than 0.4 as wide as tall fill 0.86 of their box.
BLOCK_WIDTH, BLOCK_INK = 0.4, 0.92
# Strokes thinner than this share of the digit's height would fade when it is scaled down.
LEAST_STROKE = 0.085

BLANK = "blank: no ink stands out from the background"
SEVERAL = "several digits or marks: one digit a picture"
NO_DIGIT = "no digit: its shape is none that a digit has"


@dataclass(frozen=True)
class FoundDigit:
    """A digit in MNIST's form, uint8, 28 x 28; or None, and why there is none."""

    image: np.ndarray | None
    problem: str = ""


def open_picture(file: Path | BinaryIO) -> np.ndarray:
    """A picture file as `colours_of`; InputError if it is missing, no picture, or too large."""
    try:
        # Pillow only warns of a picture so large that it may be a decompression bomb.
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(file, formats=FORMATS) as picture,
        ):
            return colours_of(picture)
    except Exception as error:  # whatever Pillow's decoders raise over damaged files
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        advice = "save it as PNG or JPEG of a usual size"
        raise InputError(f"{file} is no picture that can be read ({reason}): {advice}") from error


def colours_of(picture: Image.Image) -> np.ndarray:
    """A picture as float32, H x W x 3, 0 to 1: upright, not large, on a background of its own."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        # 16 bits and more: Pillow itself would cut off all above 255.
        deep = np.asarray(picture, dtype=np.float32).clip(0)
        picture = Image.fromarray((255 * deep / max(deep.max(), 1)).astype(np.uint8))
    picture = picture.convert("RGBA")
    picture.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    pixels = np.asarray(picture, dtype=np.float32) / 255
    colours, opacity = pixels[..., :3], pixels[..., 3:]
    # Dark ink was drawn for white paper, light ink for a dark one.
    ink = (colours * opacity).sum() / (3 * max(opacity.sum(), 1e-6))
    paper = 1 if ink < 0.5 else 0
    return colours * opacity + paper * (1 - opacity)


def find_digit(colours: np.ndarray) -> FoundDigit:
    """The one digit in a picture (float32, H x W x 3, 0 to 1), brought to MNIST's form."""
    strength = ink_strength(colours)
    mask = ink_mask(strength)
    if mask is None:
        return FoundDigit(None, BLANK)
    around = np.ones((3, 3))
    marks, _ = scipy.ndimage.label(mask, around)
    slices = scipy.ndimage.find_objects(marks)
    boxes = np.array([[(side.start, side.stop) for side in box] for box in slices])
    areas = np.bincount(marks.ravel())[1:]
    large = areas >= LEAST_SHARE * areas.max()
    inside = large & ~_along_the_edge(boxes, mask.shape)
    chosen = np.flatnonzero(inside if inside.any() else large)
    if _apart(boxes[chosen], areas[chosen]):
        return FoundDigit(None, SEVERAL)
    kept = np.isin(marks, chosen + 1)
    # The soft edges of the strokes belong to the ink, the dirt around it does not.
    reach = max(1, round(max(mask.shape) / 80))
    near = scipy.ndimage.binary_dilation(kept, around, iterations=reach)
    ink = (strength / np.median(strength[kept])).clip(0, 1) * near
    box = scipy.ndimage.find_objects((ink > 0.1).astype(int))[0]
    if not _shaped_like_a_digit(kept[box]):
        return FoundDigit(None, NO_DIGIT)
    return FoundDigit(mnist_form(_thick_enough(ink[box], kept[box])))


def ink_strength(colours: np.ndarray) -> np.ndarray:
    """How far each pixel lies from the paper in the direction of the ink's colour, H x W, from 0.

    That direction is the one in which pixels differ most from what is around them. Along it, light
    and shadow are taken away by a top-hat: no stroke is as wide as a third of the picture.
    """
    size = max(3, round(max(colours.shape[:2]) / 3))
    difference = colours - scipy.ndimage.uniform_filter(colours, (size, size, 1))
    direction = (difference * (difference**2).sum(axis=2, keepdims=True)).sum(axis=(0, 1))
    along = colours @ direction / max(np.linalg.norm(direction), 1e-9)
    return scipy.ndimage.white_tophat(along, size | 1) / np.sqrt(3)  # black on white is 1


def ink_mask(strength: np.ndarray) -> np.ndarray | None:
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


def mnist_form(ink: np.ndarray) -> np.ndarray:
    """An ink's box (float, 0 to 1) as uint8, 28 x 28: 20 x 20 at most, its mass in the middle."""
    width, height = (max(1, round(side * INK_BOX / max(ink.shape))) for side in ink.shape[::-1])
    small = Image.fromarray(ink.astype(np.float32)).resize((width, height))  # bicubic
    down, right = scipy.ndimage.center_of_mass(np.asarray(small).clip(0, 1))
    placed = Image.new("F", (IMAGE_SIZE, IMAGE_SIZE))
    placed.paste(small, (round(IMAGE_SIZE / 2 - right), round(IMAGE_SIZE / 2 - down)))
    return (255 * np.asarray(placed).clip(0, 1)).round().astype(np.uint8)


def _along_the_edge(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which marks run along the picture's edge: a table, a frame, a shadow."""
    starts, stops = boxes[..., 0], boxes[..., 1]
    touching = (starts == 0) | (stops == shape)
    long = stops - starts > 0.6 * np.array(shape)
    return (touching & long[:, ::-1]).any(axis=1)


def _apart(boxes: np.ndarray, areas: np.ndarray) -> bool:
    """Whether two of the marks are digits of their own, not parts of one (as the bar of a 5 is)."""
    heights = boxes[:, 0, 1] - boxes[:, 0, 0]
    tall = (heights >= heights.max() / 2) & (areas >= areas.max() / 5)
    starts, stops = boxes[tall, :, 0], boxes[tall, :, 1]
    gaps = np.maximum(starts[:, None], starts) - np.minimum(stops[:, None], stops)
    return bool((gaps > 0.06 * heights.max()).any())


def _shaped_like_a_digit(mask: np.ndarray) -> bool:
    """Whether ink is neither a dash nor a block, and encloses few holes."""
    height, width = mask.shape
    if width > WIDEST * height or (width > BLOCK_WIDTH * height and mask.mean() > BLOCK_INK):
        return False
    outside_and_holes, _ = scipy.ndimage.label(~np.pad(mask, 1))
    areas = np.bincount(outside_and_holes.ravel())[2:]
    return (areas >= LEAST_HOLE * mask.size).sum() <= MOST_HOLES


def _thick_enough(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The ink with strokes that survive scaling down; a strip is four mean distances wide."""
    stroke = 4 * scipy.ndimage.distance_transform_edt(mask)[mask].mean() - 1
    radius = max(0, round((LEAST_STROKE * max(ink.shape) - stroke) / 2))
    return scipy.ndimage.grey_dilation(np.pad(ink, radius), 2 * radius + 1)
