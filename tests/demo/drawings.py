"""Pictures such as people take, made from sample digits: what is done to them, kind by kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage


def large(digit: np.ndarray, side: int = 200) -> np.ndarray:
    """Ink from 0 to 1 on a square of so many pixels."""
    picture = Image.fromarray(digit.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float64) / 255


def on_paper(ink: np.ndarray, paper: object = (1, 1, 1), pen: object = (0, 0, 0)) -> np.ndarray:
    """Colours, H x W x 3, of ink on paper."""
    return (1 - ink[..., None]) * np.asarray(paper) + ink[..., None] * np.asarray(pen)


def picture_of(colours: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * colours.clip(0, 1)).round().astype(np.uint8))


def scaled_and_inverted(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    return picture_of(on_paper(large(digit, int(random.integers(60, 900)))))


def tinted(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Dark on light, as of a pen, or light on dark, as of chalk."""
    colours = random.uniform(0.75, 1, 3), random.uniform(0, 0.35, 3)
    return picture_of(on_paper(large(digit), *random.permutation(colours)))


def equally_bright_colours(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Red ink on green paper of about the same luminance."""
    return picture_of(on_paper(large(digit), (0.3, 0.55, 0.3), (0.85, 0.3, 0.25)))


def in_half_shadow(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """A shadow with a soft edge falls over the picture from one side."""
    light = np.ones((300, 300))
    light[:, : int(random.integers(60, 240))] = 0.6
    light = ndimage.gaussian_filter(light, 6)[..., None]
    return picture_of(on_paper(large(digit, 300), 0.95 * np.ones(3), 0.1 * np.ones(3)) * light)


def off_centre(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    ink = np.zeros((400, 560))
    top, left = int(random.integers(0, 280)), int(random.integers(0, 440))
    ink[top : top + 120, left : left + 120] = large(digit, 120)
    return picture_of(on_paper(ink))


def noisy(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    colours = on_paper(large(digit, 240), 0.85 * np.ones(3), 0.2 * np.ones(3))
    return picture_of(colours + random.normal(0, 0.08, colours.shape))


def speckled(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    colours = on_paper(large(digit, 240))
    for top, left in random.integers(0, 236, (25, 2)):
        colours[top : top + 3, left : left + 3] = 0.2
    return picture_of(colours)


def transparent(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Ink of a random brightness on nothing at all."""
    pen = np.full((180, 180, 3), 255 if random.random() < 0.5 else 20, dtype=np.uint8)
    alpha = (255 * large(digit, 180).clip(0, 1)).round().astype(np.uint8)
    return Image.fromarray(np.dstack([pen, alpha]))


KINDS: tuple[Callable[[np.ndarray, np.random.Generator], Image.Image], ...] = (
    scaled_and_inverted,
    tinted,
    equally_bright_colours,
    in_half_shadow,
    off_centre,
    noisy,
    speckled,
    transparent,
)
