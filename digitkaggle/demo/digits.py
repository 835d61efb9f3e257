"""Digits in a picture, in reading order, each in MNIST's form: 28 x 28, light ink on black.

As MNIST was made (LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document
Recognition, 1998): the ink's box is scaled, antialiased, to 20 x 20 pixels, and its center of mass
moves to the middle of 28 x 28. drawing.js has the same rules from `group_marks` on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import cv2
import numpy as np
import scipy
from PIL import Image

from ..core.basics import IMAGE_SIZE
from .ink import find_ink, measure_stroke_width
from .lines import AROUND, label_marks
from .paper import add_margin, crop_sheet, find_sheets
from .pictures import Picture

INK_BOX = 20
# A panel in a sheet on a table.
MOST_SHEETS_IN_SHEETS = 2
# A digit with less ink than this fraction of the largest one's is dirt, or one less tall than that.
LEAST_AREA, LEAST_HEIGHT = 0.04, 0.4
# What the edge cuts is nearly as tall and bold as the others, or it is the rest of a printed line.
LEAST_CUT_AREA, LEAST_CUT_HEIGHT = 0.15, 0.6
# A mark is a part of a larger one if it is near: in stroke widths, for a pen that runs dry, or in
# the larger one's sizes, for the bar of a 5; and so small, or so flat.
PART_GAP_STROKES, PART_GAP_SIZES = 1.25, 0.15
PART_SIZE, PART_FLAT = 0.65, 0.35
# Two large ones are halves of an 8, one above the other, if the whole is so wide.
STACK_WIDTH = 0.45, 1.0
# An 8 has two holes, a careless hand leaves a third; holes below this fraction of the digit's box
# do not count.
MOST_HOLES, LEAST_HOLE = 3, 0.004
# Digits are taller than wide, or nearly; the widest of the 5,000 sample digits is 1.0 as wide. A
# shape wider than that may be two that touch.
MAYBE_TWO, WIDEST = 0.85, 1.8
# A digit is not a block: of the 42,000, those wider than 0.4 of their height fill at most 0.86 of
# their box.
BLOCK_WIDTH, BLOCK_INK = 0.4, 0.92
# Strokes thinner than this fraction of the digit's height would fade when it is scaled down.
LEAST_STROKE = 0.085
# More than any page of digits has.
MOST_MARKS = 500

BLANK = "blank: no ink stands out from the background"
NO_DIGIT = "no digit: digits do not have this shape"


@dataclass(frozen=True)
class FoundDigit:
    """A digit in MNIST's form, uint8, 28 x 28, and where it was found, in the file's pixels."""

    image: np.ndarray
    box: tuple[int, int, int, int]  # left, top, right, bottom
    cut_off: bool = False  # by the edge of the picture or sheet
    line: int = 0  # from 0, the uppermost
    # Of a shape that may be two digits that touch: those. The network decides.
    parts: tuple[FoundDigit, ...] = ()


@dataclass(frozen=True)
class FoundDigits:
    """The digits of a picture in reading order, or why there are none; and all ink in it."""

    digits: list[FoundDigit] = field(default_factory=list)
    problem: str = ""
    ink: np.ndarray | None = None  # float32, H x W, 0 to about 1


def find_digits(picture: Picture) -> FoundDigits:
    """Find the digits in a picture: on the sheets or panels in it, if there are any."""
    cv2.setNumThreads(1)  # on a busy machine more of them take ten times as long
    to_file = np.diag([picture.scale, picture.scale, 1])
    found = find_on_sheet(picture.colors, to_file, MOST_SHEETS_IN_SHEETS)
    return dataclasses.replace(found, digits=sort_into_lines(found.digits))


def find_on_sheet(colors: np.ndarray, to_file: np.ndarray, depth: int) -> FoundDigits:
    """The digits on a sheet, or on those in it, up to a depth.

    `to_file`: the 3 x 3 matrix that moves a point of the sheet to the file's pixels.
    """
    digits: list[FoundDigit] = []
    ink = np.zeros(colors.shape[:2], np.float32)
    for corners in find_sheets(colors) if depth else []:
        inner, to_sheet = crop_sheet(colors, corners)
        found = find_on_sheet(inner, to_file @ to_sheet, depth - 1)
        whole = [digit for digit in found.digits if not digit.cut_off]
        # A shadow's edge cuts digits, a sheet's does not.
        if len(whole) > len(found.digits) / 2:
            digits += whole
            ink += cv2.warpPerspective(found.ink, to_sheet, ink.shape[::-1])
    if digits:
        return FoundDigits(digits, ink=ink)
    wide, margin = add_margin(colors)
    inked = find_ink(wide)
    if inked is None:
        return FoundDigits(problem=BLANK, ink=ink)
    inside = tuple(slice(margin, margin + side) for side in ink.shape)
    strength, mask = (values[inside] for values in inked)
    groups = group_marks(mask)
    for number, box in select_groups(groups):
        digit = cut_out(strength, mask, groups, number, to_file)
        if np.ptp(box, axis=1)[1] > MAYBE_TWO * np.ptp(box, axis=1)[0]:
            halves = split_group(strength, groups == number, box)
            parts = tuple(cut_out(strength, mask, halves, half, to_file) for half in (1, 2))
            digit = dataclasses.replace(digit, parts=parts)
        digits.append(digit)
    return FoundDigits(digits, "" if digits else NO_DIGIT, strength * mask)


def sort_into_lines(digits: list[FoundDigit]) -> list[FoundDigit]:
    """Number the lines and sort: what overlaps the last digit of a line by half is on it."""
    lines: list[list[FoundDigit]] = []
    for digit in sorted(digits, key=lambda digit: digit.box[1] + digit.box[3]):
        for line in lines:
            (_, top, _, bottom), (_, high, _, low) = line[-1].box, digit.box
            if min(bottom, low) - max(top, high) >= 0.5 * min(bottom - top, low - high):
                line.append(digit)
                break
        else:
            lines.append([digit])
    return [
        dataclasses.replace(digit, line=number)
        for number, line in enumerate(lines)
        for digit in sorted(line, key=lambda digit: digit.box[0])
    ]


def group_marks(mask: np.ndarray) -> np.ndarray:
    """Number the marks of a mask, H x W, from 1: the parts of a broken digit share their number.

    From the smallest on, each joins the nearest larger one that it may be a part of.
    """
    marks, statistics = label_marks(mask)
    width = max(measure_stroke_width(mask), 1)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    least = max(0.05 * width**2, np.sort(areas)[-MOST_MARKS:].min(initial=0))
    starts, sides = statistics[1:, :2], statistics[1:, 2:4]
    boxes = np.stack([starts, starts + sides], axis=1)  # N x 2 x 2: from x, y to x, y
    order = [
        number for number in np.argsort(sides.max(axis=1), kind="stable") if areas[number] >= least
    ]
    owner = np.full(len(areas), -1)
    owner[order] = order
    for place, number in enumerate(order):
        larger = np.array(order[place + 1 :], dtype=int)
        gaps = measure_gaps(boxes[number], boxes[larger], width)
        if np.isfinite(gaps).any():
            joined = larger[gaps.argmin()]
            owner[owner == number] = joined
            boxes[joined, 0] = np.minimum(boxes[joined, 0], boxes[number, 0])
            boxes[joined, 1] = np.maximum(boxes[joined, 1], boxes[number, 1])
    kept = np.unique(owner[owner >= 0])
    return np.append(0, np.where(owner < 0, 0, 1 + np.searchsorted(kept, owner)))[marks]


def measure_gaps(box: np.ndarray, others: np.ndarray, width: float) -> np.ndarray:
    """How far boxes, N x 2 x 2, are from one that may be a part of them; infinite if it is not.

    `width`: of the strokes.
    """
    starts, stops = np.maximum(box[0], others[:, 0]), np.minimum(box[1], others[:, 1])
    whole = np.maximum(box[1], others[:, 1]) - np.minimum(box[0], others[:, 0])
    sides, larger = box[1] - box[0], others[:, 1] - others[:, 0]
    narrow, flat = np.minimum(sides, larger).T
    overlap, gaps = (stops - starts)[:, 0], (starts - stops).max(axis=1)
    size = larger.max(axis=1)
    near = gaps <= np.maximum(PART_GAP_STROKES * width, PART_GAP_SIZES * size)
    beside = (overlap < 0.3 * narrow) & (flat >= PART_SIZE * whole[:, 1])
    small = sides.max() <= PART_SIZE * size
    is_flat = (flat <= PART_FLAT * whole[:, 1]) & (overlap > 0)
    wide = whole[:, 0] / whole[:, 1]
    stacked = (overlap >= 0.5 * narrow) & (STACK_WIDTH[0] <= wide) & (wide <= STACK_WIDTH[1])
    return np.where(near & ~beside & (small | is_flat | stacked), gaps, np.inf)


def select_groups(groups: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The numbers and boxes of the groups that may be digits: neither dirt nor things nor bits.

    Boxes are 2 x 2: from and to the row, from and to the column.
    """
    slices = scipy.ndimage.find_objects(groups)
    boxes = np.array([[(side.start, side.stop) for side in box] for box in slices], dtype=int)
    boxes = boxes.reshape(-1, 2, 2)
    areas = np.bincount(groups.ravel())[1:]
    heights = np.ptp(boxes[:, 0], axis=1)
    cut = (boxes[..., 0] == 0).any(axis=1) | (boxes[..., 1] == groups.shape).any(axis=1)
    good = np.zeros(len(boxes), dtype=bool)
    for number, box in enumerate(slices):
        good[number] = is_shaped_like_a_digit(groups[box] == number + 1)
    good &= areas >= np.where(cut, LEAST_CUT_AREA, LEAST_AREA) * areas.max(initial=0, where=good)
    tallest = heights.max(initial=0, where=good & ~cut) or heights.max(initial=0, where=good)
    good &= heights >= np.where(cut, LEAST_CUT_HEIGHT, LEAST_HEIGHT) * tallest
    return [(number + 1, boxes[number]) for number in np.flatnonzero(good)]


def is_shaped_like_a_digit(mask: np.ndarray) -> bool:
    """Whether ink is neither a dash nor a block, and encloses few holes."""
    height, width = mask.shape
    if width > WIDEST * height or (width > BLOCK_WIDTH * height and mask.mean() > BLOCK_INK):
        return False
    outside_and_holes, _ = scipy.ndimage.label(~np.pad(mask, 1))
    areas = np.bincount(outside_and_holes.ravel())[2:]
    return (areas >= LEAST_HOLE * mask.size).sum() <= MOST_HOLES


def split_group(strength: np.ndarray, group: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Number the halves of a group, bool, H x W, left and right of where its ink is least."""
    left, right = box[1]
    low, high = left + round(0.3 * (right - left)), left + round(0.7 * (right - left))
    cut = low + (strength * group)[:, low : high + 1].sum(axis=0).argmin()
    return group * (1 + (np.arange(group.shape[1]) >= cut))


def cut_out(
    strength: np.ndarray, mask: np.ndarray, groups: np.ndarray, number: int, to_file: np.ndarray
) -> FoundDigit:
    """A group of the mask's marks as a digit in MNIST's form."""
    group = groups == number
    # The soft edges of the strokes belong to the ink, the dirt around it does not.
    reach = max(1, round(max(group.shape) / 80))
    near = cv2.dilate(group.astype(np.uint8), AROUND, iterations=reach) > 0
    ink = strength.clip(0, 1) * (near & (group | ~mask))
    box = scipy.ndimage.find_objects((ink > 0.1).astype(int))[0]
    rows, columns = (np.flatnonzero(group.any(axis=axis)) for axis in (1, 0))
    x, y = (columns[0], columns[-1] + 1), (rows[0], rows[-1] + 1)
    corners = np.array([[(x[0], y[0]), (x[1], y[0]), (x[0], y[1]), (x[1], y[1])]], float)
    corners = cv2.perspectiveTransform(corners, to_file)[0].round().astype(int)
    spans = len(rows) == len(group) or len(columns) == group.shape[1]
    at_edge = bool(group[[0, -1]].any() or group[:, [0, -1]].any())
    return FoundDigit(
        image=bring_to_mnist_form(thicken(ink[box], group[box])),
        box=(*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()),
        cut_off=at_edge and not spans,  # a crop is not cut off
    )


def thicken(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The ink with strokes that survive scaling down."""
    missing = LEAST_STROKE * max(ink.shape) - measure_stroke_width(mask)
    radius = max(0, round(missing / 2))
    return scipy.ndimage.grey_dilation(np.pad(ink, radius), 2 * radius + 1)


def bring_to_mnist_form(ink: np.ndarray) -> np.ndarray:
    """An ink's box (float, 0 to 1) as uint8, 28 x 28: 20 x 20 at most, its mass in the middle."""
    width, height = (max(1, round(side * INK_BOX / max(ink.shape))) for side in ink.shape[::-1])
    small = Image.fromarray(ink.astype(np.float32)).resize((width, height))  # bicubic
    down, right = scipy.ndimage.center_of_mass(np.asarray(small).clip(0, 1))
    placed = Image.new("F", (IMAGE_SIZE, IMAGE_SIZE))
    placed.paste(small, (round(IMAGE_SIZE / 2 - right), round(IMAGE_SIZE / 2 - down)))
    return (255 * np.asarray(placed).clip(0, 1)).round().astype(np.uint8)
