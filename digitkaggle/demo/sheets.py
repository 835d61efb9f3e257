"""A sheet that shows what became of a picture: its digits' boxes, its ink, the network's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..core.results import write_file
from .digits import FoundDigit
from .pictures import Picture

CELL, MARGIN = 112, 12  # the side of an input, enlarged; pixels between things
BOX_COLOR = (220, 60, 20)


def list_sheets(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """For each picture the file of its sheet, `NAME-seen.png`, each another one."""
    sheets: list[Path] = []
    for path in paths:
        sheet = folder / f"{path.stem}-seen.png"
        while sheet in sheets:
            sheet = sheet.with_stem(f"{sheet.stem}-2")
        sheets.append(sheet)
    return sheets


def save_sheet(
    path: Path,
    picture: Picture,
    ink: np.ndarray,
    title: str,
    captions: Sequence[tuple[FoundDigit, str]],
) -> None:
    """Save a picture's sheet as PNG: its ink (float, H x W, 0 to 1), the digits with captions."""
    photo = Image.fromarray((255 * picture.colors).round().astype(np.uint8))
    pen = ImageDraw.Draw(photo)
    for digit, _ in captions:
        pen.rectangle([side / picture.scale for side in digit.box], outline=BOX_COLOR, width=2)
    step = CELL + 2 * MARGIN
    width = max(2 * photo.width + 3 * MARGIN, 4 * step)
    columns, top = width // step, photo.height + 4 * MARGIN
    sheet = Image.new("RGB", (width, top + -(-len(captions) // columns) * step), "white")
    sheet.paste(photo, (MARGIN, MARGIN))
    dark_ink = Image.fromarray((255 * (1 - ink.clip(0, 1))).astype(np.uint8))
    sheet.paste(dark_ink, (2 * MARGIN + photo.width, MARGIN))
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, photo.height + 2 * MARGIN), title, "black")
    for number, (digit, caption) in enumerate(captions):
        row, column = divmod(number, columns)
        left, upper = MARGIN + column * step, top + row * step
        seen = Image.fromarray(digit.image).resize((CELL, CELL), Image.Resampling.BOX)
        sheet.paste(seen, (left, upper))
        pen.text((left, upper + CELL), caption, "black")
    write_file(path, partial(sheet.save, format="PNG"))
