"""Printed lines in a mask of ink: rules, squares, the sides of boxes, underlines, axes.

They are long, straight and thin. Only their thin runs are taken away: a stroke that crosses a line
stays whole, as music readers remove staffs.
"""

from __future__ import annotations

import cv2
import numpy as np

AROUND = np.ones((3, 3), np.uint8)
# A line is at most this thick, and at least this long, as fractions of the picture's larger side.
THICKNESS, LEAST_LENGTH = 0.03, 0.2
# Its runs are at most this many times as long as the mean of all lines'.
RUN_TO_USUAL = 1.6
# It rises at most this much a pixel, as a camera held by hand shows it.
SLOPES = np.linspace(-0.25, 0.25, 15)
# It is longer than the tallest mark beside it by this factor; no mark is smaller than a fraction.
LINE_TO_MARK, LEAST_MARK = 1.25, 0.04
# Both ends of an upright line are this near, as fractions of the larger side, to where level lines
# end, or to the picture's edge: the back of a 4 and a 1 beside another digit are thin as well.
CORNER, EDGE = 0.05, 0.02
# Lines are looked for in a picture of at most this size.
SIDE = 360


def find_lines(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask of ink that belong to printed lines, bool, H x W."""
    level, level_ends = find_level_lines(mask)
    upright, upright_ends = find_level_lines(mask.T)
    upright = upright.T
    # From there to the corners: the first and last pixel of each line, (x, y).
    corners = level_ends.reshape(-1, 2)
    distances = np.abs(upright_ends[:, :, None, ::-1] - corners).max(axis=3)
    at_corner = (distances < CORNER * max(mask.shape)).any(axis=2)
    # A tilted line may leave the picture on its side.
    from_edge = np.minimum(upright_ends, np.subtract(mask.shape, 1) - upright_ends).min(axis=2)
    at_edge = from_edge < EDGE * max(mask.shape)
    printed = at_corner.all(axis=1) | at_edge.all(axis=1)
    upright *= np.append(False, printed)[upright]
    lengths = np.ptp(upright_ends[..., 0], axis=1)
    # A 1 between two rules is a digit, not the side of a box, if nothing else is left.
    rest = mask & (level == 0)
    tallest = measure_tallest_mark(rest & (upright == 0)) or measure_tallest_mark(rest)
    least = LINE_TO_MARK * tallest if tallest else np.inf
    long_level = np.append(False, np.ptp(level_ends[..., 0], axis=1) >= least)
    return long_level[level] | np.append(False, lengths >= least)[upright]


def find_level_lines(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of each pixel's line, from 1, in thin runs, H x W; each line's ends, N x 2 x 2.

    Lines, nearly level, are what openings by straight lines leave. Ends are (x, y).
    """
    ink, side = mask.astype(np.uint8), max(mask.shape)
    thickness = max(1, round(THICKNESS * side))
    thick = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((thickness + 1, 1), np.uint8))
    step = -(-side // SIDE)
    # Lines are ragged.
    small = cv2.dilate(ink, np.ones((step + 1, step + 1), np.uint8))[::step, ::step].copy()
    bands = np.zeros_like(small)
    reach = max(3, round(LEAST_LENGTH * side / step / 2))
    for slope in SLOPES:
        rise = round(slope * reach)
        kernel = np.zeros((2 * abs(rise) + 1, 2 * reach + 1), np.uint8)
        cv2.line(kernel, (0, abs(rise) - rise), (2 * reach, abs(rise) + rise), 1)
        bands |= cv2.morphologyEx(small, cv2.MORPH_OPEN, kernel)
    marks, statistics = label_marks(bands)
    rows, columns = (np.arange(length) // step for length in mask.shape)
    lines = marks[rows][:, columns] * (ink > thick)
    # Where a stroke runs along a line, its runs are longer than the line's usual ones.
    starts = (lines > 0) & (np.roll(lines, 1, axis=0) == 0)
    usual = np.count_nonzero(lines) / max(np.count_nonzero(starts), 1)
    longest = np.ones((round(RUN_TO_USUAL * usual) + 2, 1), np.uint8)
    lines *= cv2.morphologyEx(ink, cv2.MORPH_OPEN, longest) == 0
    ends = np.zeros((len(statistics) - 1, 2, 2))
    y, x = np.nonzero(lines)
    for number, line_ends in enumerate(ends, start=1):
        places = np.flatnonzero(lines[y, x] == number)
        if len(places):
            both = places[[x[places].argmin(), x[places].argmax()]]
            line_ends[:] = np.stack([x[both], y[both]], axis=1)
    return lines, ends


def measure_tallest_mark(mask: np.ndarray) -> int:
    """The larger side of the largest mark, in pixels; 0 if there is none but dirt."""
    _, statistics = label_marks(mask)
    # By area: the remains of lines are many and small.
    largest = max(statistics[1:].tolist(), key=lambda row: row[cv2.CC_STAT_AREA], default=[0] * 5)
    side = max(largest[cv2.CC_STAT_WIDTH], largest[cv2.CC_STAT_HEIGHT])
    return side if side >= LEAST_MARK * max(mask.shape) and largest[cv2.CC_STAT_AREA] >= 9 else 0


def label_marks(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of each pixel's mark, from 1, H x W; a row of OpenCV's statistics a number."""
    _, marks, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return marks, statistics


def list_at_edge(values: np.ndarray) -> np.ndarray:
    """The values, H x W, at the edge of the picture, in a row."""
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
