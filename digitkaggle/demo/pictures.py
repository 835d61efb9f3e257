"""Anybody's picture file as colors: upright, of a working size, on an opaque background.

Never in the kernel, because it needs Pillow.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, ImageSequence

from ..core.basics import InputError

# The formats that Pillow tries: no rare decoder gets a file from a stranger.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF")
# Phones reach 200 megapixels; a file that claims more may be a decompression bomb.
MOST_PIXELS = 200_000_000
# Larger pictures are scaled down first; neither a digit nor a page of them needs more.
WORKING_SIDE = 720
# A truncated JPEG is used if this fraction of its rows is there.
LEAST_ROWS = 0.6


@dataclass(frozen=True)
class Picture:
    """Colors, float32, H x W x 3, 0 to 1; and how many pixels of the file one of them spans."""

    colors: np.ndarray
    scale: float = 1.0


def open_picture(file: Path | BinaryIO) -> Picture:
    """Read a picture file; InputError if it is missing, too large, or not a picture."""
    with contextlib.suppress(ImportError):
        import pillow_heif  # of the extra `photos`

        pillow_heif.register_heif_opener()
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with (
            # Pillow only warns about a picture so large that it may be a decompression bomb.
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            set_switch(Image, "MAX_IMAGE_PIXELS", MOST_PIXELS),
            Image.open(file, formats=formats) as opened,
        ):
            full_side = max(opened.size)
            # A JPEG's own coefficients give it at a half, a quarter, an eighth of its size.
            opened.draft(None, (2 * WORKING_SIDE, 2 * WORKING_SIDE))
            picture = ImageOps.exif_transpose(load_frame(opened))
    except Exception as error:  # Pillow's decoders raise all kinds over damaged files
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        advice = "save it as PNG or JPEG of a normal size"
        if str(file).lower().endswith((".heic", ".heif")) and "HEIF" not in formats:
            advice = "pip install 'digitkaggle[photos]', or save it as JPEG"
        raise InputError(f"{file} is not a readable picture ({reason}): {advice}") from error
    return to_picture(picture, full_side)


@contextlib.contextmanager
def set_switch(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Set one of Pillow's switches for a while."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def load_frame(picture: Image.Image) -> Image.Image:
    """The first frame that shows anything; of a truncated JPEG the rows that are there.

    Animated drawings begin with an empty frame.
    """
    try:
        picture.load()
    except OSError as error:
        if picture.format != "JPEG" or "truncated" not in str(error):
            raise
        with set_switch(ImageFile, "LOAD_TRUNCATED_IMAGES", True):
            picture.load()
        return crop_missing_rows(picture)
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        for frame in ImageSequence.Iterator(picture):
            shown = frame.convert("RGBA")
            if any(low != high for low, high in shown.getextrema()):
                return shown
    return picture


def crop_missing_rows(picture: Image.Image) -> Image.Image:
    """What there is of a truncated JPEG, whose missing rows are gray; OSError if that is little."""
    rows = np.asarray(picture.convert("RGB"))
    present = np.flatnonzero((rows != rows[-1, -1]).any(axis=(1, 2)))
    height = int(present.max(initial=-1)) + 1
    if height < LEAST_ROWS * len(rows):
        raise OSError(f"truncated: {height} of {len(rows)} rows are there")
    return picture.crop((0, 0, picture.width, height))


def to_picture(picture: Image.Image, full_side: int | None = None) -> Picture:
    """The colors of an upright picture; `full_side` is the file's, if it is larger."""
    full_side = full_side or max(picture.size)
    if picture.mode.startswith(("I", "F")):
        # 16 bits and more: Pillow itself would cut off all above 255.
        deep = np.asarray(picture, dtype=np.float32).clip(0)
        picture = Image.fromarray((255 * deep / max(deep.max(), 1)).astype(np.uint8))
    if picture.mode not in ("L", "RGB"):
        picture = picture.convert("RGBA")
    picture.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    pixels = np.asarray(picture.convert("RGBA"), dtype=np.float32) / 255
    colors, opacity = pixels[..., :3], pixels[..., 3:]
    # Dark ink was drawn for white paper, light ink for dark paper.
    ink = (colors * opacity).sum() / (3 * max(opacity.sum(), 1e-6))
    paper = 1 if ink < 0.5 else 0
    return Picture(colors * opacity + paper * (1 - opacity), full_side / max(picture.size))
