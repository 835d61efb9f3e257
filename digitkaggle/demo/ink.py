"""The ink in a picture: its strength without light and shadow, objects and printed lines.

Geometry tells them from strokes before the digits are looked for: objects are wide, printed lines
are long, straight and thin. OpenCV's morphology takes a tenth of scipy's time.
"""

from __future__ import annotations

import cv2
import numpy as np

from .lines import find_lines, label_marks, list_at_edge

# No ink is weaker than this fraction of black on white (JPEG's steps), or than N times the noise.
LEAST_CONTRAST, LEAST_CONTRAST_TO_NOISE = 0.025, 5.0
# The weak parts of a stroke have this fraction of the threshold at least, and touch a strong one.
WEAK_PART = 0.6
# What is wider than the strokes by this factor is an object.
OBJECT_TO_STROKE = 3
# The window that removes light and shadow is this many strokes wide.
WINDOW_TO_STROKE = 3
# Ink whose color's direction has this cosine with gray is measured in brightness.
MOSTLY_GRAY = 0.8


def find_ink(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The strength of a picture's ink, its median 1, and where it is, bool, H x W; None without.

    Strength is how far a pixel (float32, H x W x 3, 0 to 1) lies from the paper in the direction of
    the ink's color: that in which pixels differ most from what is around them. Along it, light and
    shadow are taken away by a top-hat: first with a window wide enough for any stroke, then with
    one just wide enough for these, which leaves less of shadows and of the paper between digits.
    """
    window = max(3, round(max(colors.shape[:2]) / 3))
    difference = colors - cv2.blur(colors, (window, window), borderType=cv2.BORDER_REPLICATE)
    direction = (difference * (difference**2).sum(axis=2, keepdims=True)).sum(axis=(0, 1))
    direction /= max(np.linalg.norm(direction), 1e-9)
    gray = direction.sum() / np.sqrt(3)
    if abs(gray) > MOSTLY_GRAY:
        # JPEG keeps brightness finer than color.
        direction = np.full(3, np.sign(gray) / np.sqrt(3), np.float32)
    along = (colors @ direction / np.sqrt(3)).astype(np.float32)  # black on white is 1
    found = None
    for _ in range(2):
        strength = along - open_gray(along, window)
        if gray < 0:
            # Dark ink takes the same fraction of the light away, in the shadow too.
            paper = -open_gray(-colors.mean(axis=2), window)
            strength *= paper.max() / paper.clip(paper.max() / 4)
        found = mask_ink(strength)
        if found is None:
            break
        window = max(3, round(WINDOW_TO_STROKE * measure_main_stroke(found[1])))
    return found


def open_gray(values: np.ndarray, window: int) -> np.ndarray:
    """A gray opening by a square of so many pixels: what is narrower than it and brighter goes."""
    # The picture goes on beyond its edge, or light that falls off toward it would look like ink.
    reach = window // 2
    wide = cv2.copyMakeBorder(values, *[reach] * 4, cv2.BORDER_REPLICATE)
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    opened = cv2.morphologyEx(wide, cv2.MORPH_OPEN, square, borderType=cv2.BORDER_REPLICATE)
    return opened[reach:-reach, reach:-reach]


def mask_ink(strength: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The strength of the ink, its median 1, and where it is, bool, H x W; None if there is none.

    Objects and printed lines are found in the ink and taken out of it, and what is left is compared
    anew, because they may be stronger than it.
    """
    calm = cv2.GaussianBlur(strength, (0, 0), max(strength.shape) / 500)
    away = np.zeros(strength.shape, dtype=bool)
    for _ in range(4):
        rest = calm[~away]
        # Halfway between the means of ink and paper: Ridler and Calvard, Picture Thresholding
        # (1978).
        threshold = (rest.min() + rest.max()) / 2
        for _ in range(20 if np.ptp(rest) > LEAST_CONTRAST else 0):
            threshold = (rest[rest > threshold].mean() + rest[rest <= threshold].mean()) / 2
        ink, paper = rest[rest > threshold], rest[rest <= threshold]
        # Below the median: above it are the soft edges of the strokes.
        low, middle = np.percentile(paper, (16, 50))
        least = max(LEAST_CONTRAST, LEAST_CONTRAST_TO_NOISE * (middle - low))
        if len(ink) == 0 or np.median(ink) - middle < least:
            return None
        strong, weak = calm > threshold, calm > WEAK_PART * threshold
        found = find_objects(strong) | find_lines(weak)
        if not found.any():
            break
        away |= found
        calm[away] = 0
    marks, _ = label_marks(weak)
    mask = np.isin(marks, marks[strong]) & ~away
    return (strength * ~away / np.median(strength[mask]), mask) if mask.any() else None


def find_objects(mask: np.ndarray) -> np.ndarray:
    """Where objects are that reach into the picture: wider than the strokes, bool, H x W."""
    width = measure_main_stroke(mask)
    radius = OBJECT_TO_STROKE * width / 2
    cores, _ = label_marks(measure_depth(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1] > radius)
    # What is wide elsewhere is a bold digit on squared paper, whose lines are thin.
    at_edge = list_at_edge(cores)
    core = np.isin(cores, at_edge[at_edge > 0])
    # A little more than a disk of that radius reaches: the rims as well.
    return measure_depth(~core) < radius + width if core.any() else core


def measure_main_stroke(mask: np.ndarray) -> float:
    """The stroke width of the marks that neither touch the edge nor are dirt, or else of all."""
    marks, statistics = label_marks(mask)
    areas = statistics[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    inner = areas.copy()
    inner[list_at_edge(marks)] = 0
    areas = inner if inner.any() else areas
    return measure_stroke_width((areas > 0.1 * areas.max())[marks])


def measure_stroke_width(mask: np.ndarray) -> float:
    """The mean width of a mask's strokes: a strip is four mean distances wide."""
    depth = measure_depth(np.pad(mask, 1))[1:-1, 1:-1]
    return 4 * float(depth[mask].mean()) - 1 if mask.any() else 0.0


def measure_depth(mask: np.ndarray) -> np.ndarray:
    """The distance of each pixel of a mask to the nearest outside it, float32, H x W."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
