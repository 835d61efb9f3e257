"""The ten digits as a hand draws them: strokes of points in a unit square, x right, y down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Stroke = Sequence[tuple[float, float]]


def make_arc(
    center: tuple[float, float],
    radii: tuple[float, float],
    start: float,
    end: float,
    points: int = 24,
) -> list[tuple[float, float]]:
    """Part of an ellipse; degrees run clockwise from the right, as y runs down."""
    angles = np.deg2rad(np.linspace(start, end, points))
    x = center[0] + radii[0] * np.cos(angles)
    y = center[1] + radii[1] * np.sin(angles)
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


STROKES: dict[int, list[Stroke]] = {
    0: [make_arc((0.5, 0.5), (0.22, 0.33), -90, 270, 40)],
    1: [[(0.4, 0.3), (0.52, 0.18), (0.52, 0.82)]],
    2: [[*make_arc((0.5, 0.36), (0.2, 0.18), 190, 380), (0.32, 0.8), (0.72, 0.8)]],
    3: [
        [
            *make_arc((0.47, 0.34), (0.2, 0.16), 200, 430),
            *make_arc((0.47, 0.65), (0.22, 0.17), -80, 150),
        ]
    ],
    4: [[(0.36, 0.18), (0.3, 0.55), (0.72, 0.55)], [(0.62, 0.2), (0.58, 0.85)]],
    5: [
        [(0.38, 0.2), (0.35, 0.48), *make_arc((0.48, 0.63), (0.2, 0.18), -110, 140)],
        [(0.38, 0.2), (0.68, 0.19)],
    ],
    6: [[(0.6, 0.16), (0.42, 0.4), *make_arc((0.5, 0.64), (0.17, 0.18), 180, 540, 36)]],
    7: [[(0.3, 0.22), (0.7, 0.2), (0.44, 0.84)]],
    8: [
        [
            *make_arc((0.5, 0.33), (0.15, 0.15), 90, 450, 30),
            *make_arc((0.5, 0.66), (0.18, 0.18), -90, 270, 30),
        ]
    ],
    9: [[*make_arc((0.48, 0.36), (0.17, 0.17), 0, -360, 36), (0.66, 0.4), (0.6, 0.84)]],
}


def draw_digit(digit: int, width: int = 24, side: int = 320) -> Image.Image:
    """A digit drawn by a pen of `width` pixels, black on white."""
    picture = Image.new("L", (side, side), 255)
    for stroke in STROKES[digit]:
        points = [(side * x, side * y) for x, y in stroke]
        ImageDraw.Draw(picture).line(points, fill=0, width=width, joint="curve")
    return picture
