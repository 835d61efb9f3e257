"""Held-out digits as crisp ink, pages of ink, and photographs of them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

HEIGHT, WIDTH = 640, 480
BLACK = (0.1, 0.1, 0.12)
PENS = (BLACK, (0.12, 0.15, 0.5), (0.35, 0.35, 0.38), (0.55, 0.12, 0.12))
Made = tuple[np.ndarray, list[int]]
rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)


class Source:
    """Held-out digits, in the order of a generator."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, seed: int) -> None:
        self.images, self.labels = images, labels
        self.random = np.random.default_rng(seed)

    def draw(self, size: int) -> tuple[np.ndarray, int]:
        """A digit as crisp ink, 0 to 1, cropped, its larger side `size` pixels long."""
        row = int(self.random.integers(len(self.images)))
        soft = Image.fromarray(self.images[row]).resize((336, 336), Image.Resampling.BICUBIC)
        ink = 1 / (1 + np.exp(-(np.asarray(soft, np.float32) / 255 - 0.5) * 14))
        ink = ink[ndimage.find_objects((ink > 0.3).astype(int))[0]]
        shape = [max(2, round(side * size / max(ink.shape))) for side in ink.shape[::-1]]
        crisp = Image.fromarray((255 * ink).astype(np.uint8))
        crisp = crisp.resize(shape, Image.Resampling.LANCZOS)
        return np.asarray(crisp, np.float32) / 255, int(self.labels[row])

    def draw_page(self, low: int = 150, high: int = 330) -> Made:
        """An empty page of ink with one digit."""
        ink, label = self.draw(int(self.random.integers(low, high)))
        top, left = self.random.uniform(0.2, 0.8, 2) * np.subtract((HEIGHT, WIDTH), ink.shape)
        return put(ink, np.zeros((HEIGHT, WIDTH), np.float32), top, left), [label]

    def make_paper(self) -> np.ndarray:
        """A sheet in slightly uneven light, HEIGHT x WIDTH x 3."""
        right, down = self.random.uniform(-0.15, 0.15, 2)
        light = 1 + right * (columns / WIDTH - 0.5) + down * rows / HEIGHT
        return (self.random.uniform(0.75, 0.92) * light)[..., None] * self.random.uniform(
            0.95, 1, 3
        )

    def photograph(
        self, ink: np.ndarray, sheet: np.ndarray | None = None, pen: tuple | None = None
    ) -> np.ndarray:
        """Ink on a sheet through a camera: blur, noise."""
        sheet = self.make_paper() if sheet is None else sheet
        color = PENS[self.random.integers(len(PENS))] if pen is None else pen
        photo = sheet * (1 - ink[..., None] * (1 - np.asarray(color)))
        photo = ndimage.gaussian_filter(photo, (0.7, 0.7, 0))
        return (photo + self.random.normal(0, 0.012, photo.shape)).clip(0, 1)


def put(ink: np.ndarray, page: np.ndarray, top: float, left: float) -> np.ndarray:
    """Put ink (h x w) on a page of ink (H x W)."""
    window = page[int(top) : int(top) + ink.shape[0], int(left) : int(left) + ink.shape[1]]
    np.maximum(window, ink, out=window)
    return page


def to_colors(brightness: np.ndarray) -> np.ndarray:
    """Gray, H x W, as H x W x 3."""
    return np.repeat(brightness[..., None], 3, axis=2)
