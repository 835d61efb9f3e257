"""Pictures as people take them, made from sample digits: one function for each kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage


def enlarge(digit: np.ndarray, side: int = 200) -> np.ndarray:
    """A digit as ink from 0 to 1 on a square of `side` pixels."""
    picture = Image.fromarray(digit.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float64) / 255


def put_on_paper(ink: np.ndarray, paper: object = (1, 1, 1), pen: object = (0, 0, 0)) -> np.ndarray:
    """Colors, H x W x 3, of ink on paper."""
    return (1 - ink[..., None]) * np.asarray(paper) + ink[..., None] * np.asarray(pen)


def make_picture(colors: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * colors.clip(0, 1)).round().astype(np.uint8))


def scale_and_invert(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    return make_picture(put_on_paper(enlarge(digit, int(random.integers(60, 900)))))


def color(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Dark on light, like a pen, or light on dark, like chalk."""
    colors = random.uniform(0.75, 1, 3), random.uniform(0, 0.35, 3)
    return make_picture(put_on_paper(enlarge(digit), *random.permutation(colors)))


def color_equally_bright(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Red ink on green paper of about the same luminance."""
    return make_picture(put_on_paper(enlarge(digit), (0.3, 0.55, 0.3), (0.85, 0.3, 0.25)))


def shade_partly(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """A shadow with a soft edge falls on the picture from one side."""
    light = np.ones((300, 300))
    light[:, : int(random.integers(60, 240))] = 0.6
    light = ndimage.gaussian_filter(light, 6)[..., None]
    colors = put_on_paper(enlarge(digit, 300), 0.95 * np.ones(3), 0.1 * np.ones(3))
    return make_picture(colors * light)


def move_off_center(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    ink = np.zeros((400, 560))
    top, left = int(random.integers(0, 280)), int(random.integers(0, 440))
    ink[top : top + 120, left : left + 120] = enlarge(digit, 120)
    return make_picture(put_on_paper(ink))


def add_noise(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    colors = put_on_paper(enlarge(digit, 240), 0.85 * np.ones(3), 0.2 * np.ones(3))
    return make_picture(colors + random.normal(0, 0.08, colors.shape))


def add_speckles(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    colors = put_on_paper(enlarge(digit, 240))
    for top, left in random.integers(0, 236, (25, 2)):
        colors[top : top + 3, left : left + 3] = 0.2
    return make_picture(colors)


def make_transparent(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Ink of a random brightness on a transparent background."""
    pen = np.full((180, 180, 3), 255 if random.random() < 0.5 else 20, dtype=np.uint8)
    alpha = (255 * enlarge(digit, 180).clip(0, 1)).round().astype(np.uint8)
    return Image.fromarray(np.dstack([pen, alpha]))


KINDS: tuple[Callable[[np.ndarray, np.random.Generator], Image.Image], ...] = (
    scale_and_invert,
    color,
    color_equally_bright,
    shade_partly,
    move_off_center,
    add_noise,
    add_speckles,
    make_transparent,
)
