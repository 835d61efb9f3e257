"""From anybody's picture of a digit to the form of MNIST's: 28 x 28, light ink on black.

As MNIST was made (LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document
Recognition, 1998): the ink's box is scaled, antialiased, into 20 x 20 pixels, and its centre of
mass put in the middle of 28 x 28. Before that comes what a phone's camera needs: the paper's colour
and light are estimated and taken away, and the ink is whatever differs from them. Never in the
kernel, for it needs Pillow.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
from PIL import Image, ImageOps, UnidentifiedImageError

from ..core.basics import IMAGE_SIZE, InputError

# What Pillow may try to read: no exotic decoder gets to see a stranger's file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_PIXELS = 80_000_000
# Larger pictures are scaled down first; a digit needs no more.
WORKING_SIDE = 640
INK_BOX = 20
# An ink weaker than this part of black on white, or than so many times the paper's noise, is none.
LEAST_CONTRAST = 0.08
LEAST_CONTRAST_TO_NOISE = 5.0
# A mark with less area than this share of the largest is dirt.
LEAST_SHARE = 0.04
MOST_MARKS = 8
# An 8 has two holes, a careless hand leaves a third; holes of less than this share of the digit's
# box are not counted.
MOST_HOLES = 3
LEAST_HOLE = 0.004
# Digits are taller than wide, or nearly; the widest of the 5,000 sample digits is 1.0 as wide.
WIDEST = 1.8
# Nor is a digit a block: of the 42,000, those more than 0.4 as wide as tall fill 0.86 of their box.
BLOCK_WIDTH, BLOCK_INK = 0.4, 0.92
# Strokes thinner than this share of the digit's height would fade when it is scaled down.
LEAST_STROKE = 0.085
STRUCTURE = np.ones((3, 3), dtype=bool)

BLANK = "blank: no ink stands out from the background"
SEVERAL = "several digits or marks: one digit a picture"
NO_DIGIT = "no digit: its shape is none that a digit has"


@dataclass(frozen=True)
class FoundDigit:
    """A digit in MNIST's form, uint8, 28 x 28; or None, and why there is none."""

    image: np.ndarray | None
    problem: str = ""


def open_picture(path: Path) -> np.ndarray:
    """A picture file as colours: upright, no larger than we need, on a background of its own.

    Returns:
        float32, H x W x 3, 0 to 1.

    Raises:
        InputError: the file is missing, no picture, damaged, or too large.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of a decompression bomb where we refuse.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                return colours_of(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{path} has more than {MOST_PIXELS:,} pixels: scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is no picture that can be read: save it as PNG or JPEG"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        # What Pillow's decoders raise over damaged files.
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read ({reason}): save it as PNG or JPEG") from error


def colours_of(picture: Image.Image) -> np.ndarray:
    """An open picture as float32, H x W x 3, 0 to 1, with sides of at most WORKING_SIDE."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        # 16 bits: Pillow itself would cut off all above 255.
        deep = np.asarray(picture, dtype=np.float32)
        scale = 65535 if deep.max() > 255 else 255
        picture = Image.fromarray((255 * deep / scale).clip(0, 255).astype(np.uint8))
    transparent = "A" in picture.mode or "transparency" in picture.info
    picture = picture.convert("RGBA" if transparent else "RGB")
    picture.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    pixels = np.asarray(picture, dtype=np.float32) / 255
    colours, opacity = pixels[..., :3], pixels[..., 3:]
    if not transparent or opacity.min() == 1:
        return colours
    # Dark ink was drawn for white paper, light ink for a dark one.
    ink = (colours * opacity).sum() / (3 * max(opacity.sum(), 1e-6))
    paper = 1.0 if ink < 0.5 else 0.0
    return colours * opacity + paper * (1 - opacity)


def find_digit(colours: np.ndarray) -> FoundDigit:
    """The one digit in a picture, brought to MNIST's form.

    Args:
        colours: float32, H x W x 3, 0 to 1.
    """
    strength = ink_strength(colours)
    mask = ink_mask(strength)
    if mask is None:
        return FoundDigit(None, BLANK)
    marks, count = scipy.ndimage.label(mask, STRUCTURE)
    boxes = scipy.ndimage.find_objects(marks)
    areas = np.bincount(marks.ravel())[1:]
    large = [mark for mark in range(count) if areas[mark] >= LEAST_SHARE * areas.max()]
    large = _without_edges(large, boxes, mask.shape)
    if len(large) > MOST_MARKS or _apart(large, boxes, areas):
        return FoundDigit(None, SEVERAL)
    kept = np.isin(marks, [mark + 1 for mark in large])
    # The soft edges of the strokes belong to the ink, the dirt around it does not.
    near = scipy.ndimage.binary_dilation(
        kept, STRUCTURE, iterations=max(1, round(max(mask.shape) / 80))
    )
    ink = (strength / np.median(strength[kept])).clip(0, 1) * near
    rows, columns = scipy.ndimage.find_objects((ink > 0.1).astype(np.uint8))[0]
    ink = ink[rows, columns]
    height, width = ink.shape
    mask = kept[rows, columns]
    block = width > BLOCK_WIDTH * height and mask.mean() > BLOCK_INK
    if width > WIDEST * height or block or _holes(mask) > MOST_HOLES:
        return FoundDigit(None, NO_DIGIT)
    return FoundDigit(mnist_form(_thick_enough(ink, mask)))


def ink_strength(colours: np.ndarray) -> np.ndarray:
    """How far each pixel lies from the paper in the direction of the ink's colour, H x W, from 0.

    The paper is the surface of second degree that fits most pixels; what is left of wide shapes,
    such as shadows, is taken away by a top-hat: no stroke is as wide as a third of the picture.
    """
    difference = colours - paper_surface(colours)
    size = max(3, round(max(colours.shape[:2]) / 3)) | 1
    distance = np.linalg.norm(difference, axis=2)
    standing_out = distance - scipy.ndimage.grey_opening(distance, size=(size, size))
    weight = np.where(standing_out >= np.quantile(standing_out, 0.97), standing_out**2, 0)
    direction = (difference * weight[..., None]).sum(axis=(0, 1))
    length = np.linalg.norm(direction)
    if length == 0:
        return np.zeros(colours.shape[:2], dtype=np.float32)
    along = np.maximum(difference @ (direction / length), 0)
    along -= scipy.ndimage.grey_opening(along, size=(size, size))
    return along / np.sqrt(3)  # black on white is 1


def paper_surface(colours: np.ndarray) -> np.ndarray:
    """The paper's colour at every pixel: a quadratic surface through most of them, H x W x 3.

    Fitted to a grid of pixels by least absolute deviations (iterated weights), so that ink on less
    than half of the picture does not bend it.
    """
    height, width = colours.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    step = max(1, max(height, width) // 64)
    some, values = terms[::step, ::step].reshape(-1, 6), colours[::step, ::step].reshape(-1, 3)
    # From the median: a fit from the mean could start between two colours and stay there.
    fit = np.zeros((6, 3))
    fit[0] = np.median(values, axis=0)
    for _ in range(15):
        weight = 1 / (np.abs(values - some @ fit).sum(axis=1) + 0.01)
        fit = np.linalg.lstsq(some * weight[:, None], values * weight[:, None], rcond=None)[0]
    return terms @ fit


def ink_mask(strength: np.ndarray) -> np.ndarray | None:
    """Where the ink is, bool, H x W; None if nothing stands out."""
    if strength.max() < LEAST_CONTRAST:
        return None
    side = max(strength.shape)
    calm = scipy.ndimage.gaussian_filter(strength, side / 500) if side > 60 else strength
    threshold = otsu_threshold(calm)
    mask = calm > threshold
    contrast = np.median(calm[mask]) - np.median(calm[~mask])
    if contrast < max(LEAST_CONTRAST, LEAST_CONTRAST_TO_NOISE * calm[~mask].std()):
        return None
    return mask


def otsu_threshold(values: np.ndarray) -> float:
    """The threshold that parts values into two classes with the greatest variance between them.

    Otsu: A Threshold Selection Method from Gray-Level Histograms (1979).
    """
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[int(np.nanargmax(between)) + 1])


def mnist_form(ink: np.ndarray) -> np.ndarray:
    """An ink's box as uint8, 28 x 28: 20 x 20 at most, its centre of mass at pixel 14, 14.

    Args:
        ink: float, H x W, 0 to 1, with ink at all four edges.
    """
    height, width = ink.shape
    scale = INK_BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(ink.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    digit = np.asarray(small).clip(0, 1)
    down, right = scipy.ndimage.center_of_mass(digit)
    placed = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    top, left = (
        int(np.clip(round(IMAGE_SIZE / 2 - centre), 0, IMAGE_SIZE - length))
        for centre, length in ((down, size[1]), (right, size[0]))
    )
    placed[top : top + size[1], left : left + size[0]] = digit
    return (255 * placed).round().astype(np.uint8)


def _without_edges(
    large: list[int], boxes: list[tuple[slice, slice]], shape: tuple[int, ...]
) -> list[int]:
    """The marks without those that run along the picture's edge: a table, a frame, a shadow."""

    def along_the_edge(mark: int) -> bool:
        rows, columns = boxes[mark]
        at_side = columns.start == 0 or columns.stop == shape[1]
        at_end = rows.start == 0 or rows.stop == shape[0]
        tall = rows.stop - rows.start > 0.6 * shape[0]
        wide = columns.stop - columns.start > 0.6 * shape[1]
        return (at_side and tall) or (at_end and wide)

    inside = [mark for mark in large if not along_the_edge(mark)]
    return inside or large


def _apart(large: list[int], boxes: list[tuple[slice, slice]], areas: np.ndarray) -> bool:
    """Whether two of the marks are digits of their own, not parts of one (as the bar of a 5 is)."""
    heights = {mark: boxes[mark][0].stop - boxes[mark][0].start for mark in large}
    tallest = max(heights.values())
    most = max(areas[mark] for mark in large)
    tall = [mark for mark in large if heights[mark] >= tallest / 2 and areas[mark] >= most / 5]
    for number, one in enumerate(tall):
        for other in tall[:number]:
            gaps = [
                max(boxes[one][axis].start, boxes[other][axis].start)
                - min(boxes[one][axis].stop, boxes[other][axis].stop)
                for axis in (0, 1)
            ]
            if max(gaps) > 0.06 * tallest:
                return True
    return False


def _holes(mask: np.ndarray) -> int:
    """How many holes the ink encloses."""
    outside_and_holes, count = scipy.ndimage.label(~np.pad(mask, 1))
    areas = np.bincount(outside_and_holes.ravel(), minlength=count + 1)[2:]
    return int((areas >= LEAST_HOLE * mask.size).sum())


def _thick_enough(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The ink with strokes that survive scaling down; a strip is four mean distances wide."""
    stroke = 4 * scipy.ndimage.distance_transform_edt(mask)[mask].mean() - 1
    missing = LEAST_STROKE * max(ink.shape) - stroke
    radius = round(missing / 2)
    if radius < 1:
        return ink
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    padded = np.pad(ink, radius)
    return scipy.ndimage.grey_dilation(padded, footprint=x * x + y * y <= radius * radius)
