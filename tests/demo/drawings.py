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


def on_paper(
    ink: np.ndarray, paper: object = (1.0, 1.0, 1.0), pen: object = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """Colours, H x W x 3, of ink on paper; paper may differ from place to place."""
    return (1 - ink[..., None]) * np.asarray(paper) + ink[..., None] * np.asarray(pen)


def picture_of(colours: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * colours.clip(0, 1)).round().astype(np.uint8))


def shade(side: int, dark: float, bright: float) -> np.ndarray:
    """Light that falls off across the paper, H x W x 3."""
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    return (bright + (dark - bright) * (0.6 * x + 0.4 * y * y))[..., None] * np.ones(3)


def as_it_is(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    return Image.fromarray(digit)


def dark_on_light_at_28(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    return Image.fromarray(255 - digit)


def scaled_and_inverted(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    return picture_of(on_paper(large(digit, int(random.integers(60, 900)))))


def small(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    ink = np.pad(digit[4:24, 4:24], 6)
    return picture_of(on_paper(large(ink, 48)))


def tinted(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    paper, pen = random.uniform(0.75, 1, 3), random.uniform(0, 0.35, 3)
    return picture_of(on_paper(large(digit), paper, pen))


def chalk(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    board = (0.12, 0.25, 0.18)
    return picture_of(on_paper(large(digit), board, (0.9, 0.9, 0.85)))


def equally_bright_colours(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Red ink on green paper of about the same luminance."""
    return picture_of(on_paper(large(digit), (0.3, 0.55, 0.3), (0.85, 0.3, 0.25)))


def shaded(digit: np.ndarray, random: np.random.Generator) -> Image.Image:
    colours = on_paper(large(digit, 300), shade(300, 0.35, 0.95), shade(300, 0.05, 0.12))
    return picture_of(colours)


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
    as_it_is,
    dark_on_light_at_28,
    scaled_and_inverted,
    small,
    tinted,
    chalk,
    equally_bright_colours,
    shaded,
    in_half_shadow,
    off_centre,
    noisy,
    speckled,
    transparent,
)
