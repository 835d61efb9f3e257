"""The sheets and panels that digits are on: quadrilaterals with sharp edges, bright or dark."""

from __future__ import annotations

import cv2
import numpy as np

from .lines import label_marks, list_at_edge

# A sheet covers at least and at most these fractions of the picture, and this one of the
# quadrilateral around it.
LEAST_SHEET, MOST_SHEET, QUADRILATERAL = 0.06, 0.95, 0.85
# Of a sheet's contrast, this fraction lies within a hundredth of the picture's larger side.
SHARP_EDGE = 0.45
# A smaller picture is a digit's crop or a drawing: there is no sheet in it.
LEAST_SIDE_WITH_SHEET = 80
# Sheets are looked for in a picture of this size, and cropped within so many of its pixels.
SIDE, MARGIN = 120, 1.5
# Two levels that explain this fraction of the variance may be ink that fills the picture and its
# paper, unless the ink is deeper than this fraction of the lesser side.
FILLING_EXPLAINED, FILLING_DEPTH = 0.85, 0.42


def find_sheets(colors: np.ndarray) -> list[np.ndarray]:
    """The corners of what may be sheets or panels: float32, 4 x 2 each, (x, y).

    `colors`: float32, H x W x 3, 0 to 1.
    """
    if min(colors.shape[:2]) < LEAST_SIDE_WITH_SHEET:
        return []
    scale = SIDE / max(colors.shape)
    small = cv2.resize(colors.mean(axis=2), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    # A sheet is large: the median takes strokes and printed lines away.
    small = cv2.medianBlur((255 * small).astype(np.uint8), 9).astype(np.float32)
    bright, explained, contrast = split_by_otsu(small)
    steep = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    sheets = []
    for side in (bright, 1 - bright) if explained > 0.5 else ():
        for outline in cv2.findContours(side, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            area = cv2.contourArea(outline)
            if not LEAST_SHEET < area / small.size < MOST_SHEET:
                continue
            corners = cv2.approxPolyN(outline, 4)[0].astype(np.float32)
            x, y = outline[:, 0].T
            # A shadow's edge is soft, a sheet's is sharp.
            sharp = np.median(steep[y, x]) >= SHARP_EDGE * contrast
            if sharp and area >= QUADRILATERAL * cv2.contourArea(corners):
                corners += MARGIN * np.sign(corners.mean(axis=0) - corners)
                sheets.append((corners + 0.5) / scale)
    return sheets


def crop_sheet(colors: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sheet between the corners, upright, and the 3 x 3 matrix from it to the picture."""
    if cv2.contourArea(corners, oriented=True) < 0:
        corners = corners[::-1]
    corners = np.roll(corners, -int(corners.sum(axis=1).argmin()), axis=0)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = (max(8, round(float(sides[i] + sides[i + 2]) / 2)) for i in (0, 1))
    target = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    to_picture = cv2.getPerspectiveTransform(target, corners)
    size = (width, height)
    sheet = cv2.warpPerspective(
        colors, np.linalg.inv(to_picture), size, borderMode=cv2.BORDER_REPLICATE
    )
    return sheet, to_picture


def add_margin(colors: np.ndarray) -> tuple[np.ndarray, int]:
    """A picture that ink fills, with a margin of its paper, and the margin's width; or itself, 0.

    The ink has fewer pieces than the paper, or leaves more of the border free.
    """
    bright, explained, _ = split_by_otsu(colors.mean(axis=2))
    border = list_at_edge(bright)
    scores = []
    for ink, fraction in ((bright, border.mean()), (1 - bright, 1 - border.mean())):
        areas = label_marks(ink)[1][1:, cv2.CC_STAT_AREA]
        scores.append(1 / max((areas > 0.02 * areas.sum()).sum(), 1) - 2 * fraction)
    ink = bright if scores[0] > scores[1] else 1 - bright
    depth = cv2.distanceTransform(ink, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max()
    marks, statistics = label_marks(ink)
    inner = statistics[:, cv2.CC_STAT_AREA].copy()
    inner[0] = inner[list_at_edge(marks)] = 0
    # An object at the edge, beside a whole digit, does not fill the picture either.
    filling = explained > FILLING_EXPLAINED and np.ptp(border) > 0 and inner.max() < 0.1 * ink.sum()
    if not filling or depth > FILLING_DEPTH * min(ink.shape):
        return colors, 0
    margin = max(ink.shape) // 2
    paper = np.median(colors[ink == 0], axis=0).tolist()
    wide = cv2.copyMakeBorder(colors, *[margin] * 4, cv2.BORDER_CONSTANT, value=paper)
    return wide, margin


def split_by_otsu(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Otsu's upper class, uint8, H x W; how much of the variance it explains; the classes' gap."""
    low, span = float(values.min()), max(float(np.ptp(values)), 1e-9)
    levels = (255 / span * (values - low)).astype(np.uint8)
    _, upper = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    fraction = upper.mean()
    if not 0 < fraction < 1:
        return upper, 0.0, 0.0
    gap = values[upper == 1].mean() - values[upper == 0].mean()
    return upper, fraction * (1 - fraction) * gap**2 / values.var(), gap
