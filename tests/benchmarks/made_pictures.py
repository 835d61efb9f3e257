"""Pictures of digits as people take them, made from single digits, kind by kind.

A kind is a function of a source of digits. It returns colors, H x W x 3, 0 to 1, and the digits
that they show in reading order: `[]` if they show none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .ink import BLACK, HEIGHT, WIDTH, Made, Source, columns, put, rows, to_colors

# Letters that nobody writes like a digit.
LETTERS, SIGNS = "ACDEFHKLMNPRTUVWXYadefhkmnprtuvwxy", "+=#%&@?!*<>/$~^[]{}"
FONTS = ("DejaVuSans.ttf", "DejaVuSerif-Italic.ttf", "STIXGeneralItalic.ttf", "cmss10.ttf")
FONT_FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def make_plain(source: Source, low: int = 150, high: int = 330) -> Made:
    ink, labels = source.draw_page(low, high)
    return source.photograph(ink), labels


def make_chalk(source: Source) -> Made:
    ink, labels = source.draw_page()
    return 1 - source.photograph(ink, pen=BLACK), labels


def make_drawing(source: Source, low: float = 1.0) -> Made:
    ink, labels = source.draw_page()
    return to_colors(1 - min(source.random.uniform(low, 2 * low), 1) * ink), labels


def make_mnist(source: Source) -> Made:
    row = int(source.random.integers(len(source.images)))
    return to_colors(source.images[row] / 255), [int(source.labels[row])]


def make_ruled(source: Source, squared: bool) -> Made:
    """Printed lines across a page, of nearly the pen's contrast."""
    random = source.random
    ink, labels = source.draw_page()
    step = int(random.integers(24, 40) if squared else random.integers(45, 90))
    sheet, strength = source.make_paper(), random.uniform(0.2, 0.45)
    tilt, bend = random.uniform(-0.06, 0.06), random.uniform(-8, 8)
    directions = ((rows, columns, WIDTH, tilt), (columns, rows, HEIGHT, -tilt))
    for along, across, reach, slope in directions[: 1 + squared]:
        distance = np.abs((along + slope * across + bend * (across / reach) ** 2) % step - step / 2)
        line = np.clip(1 - (distance / random.uniform(1, 2.2)) ** 2, 0, 1)
        sheet = sheet * (1 - strength * line[..., None])
    pens = ((0.58, 0.58, 0.64), (0.2, 0.2, 0.25), (0.15, 0.2, 0.55))
    return source.photograph(ink, sheet, pens[random.integers(3)]), labels


def make_shadow(source: Source) -> Made:
    ink, labels = source.draw_page()
    angle, soft = source.random.uniform(0, 2 * np.pi), source.random.uniform(3, 20)
    slope = (columns - WIDTH / 2) * np.cos(angle) + (rows - HEIGHT / 2) * np.sin(angle)
    light = 1 - source.random.uniform(0.3, 0.55) / (1 + np.exp(-slope / soft))
    return source.photograph(ink, source.make_paper() * light[..., None]), labels


def make_table(source: Source) -> Made:
    """A sheet that lies on a table, turned."""
    random = source.random
    ink, label = source.draw(int(random.integers(110, 190)))
    top, left = random.uniform(0.2, 0.8, 2) * np.subtract((360, 290), ink.shape)
    page = put(ink, np.zeros((360, 290), np.float32), top, left)
    sheet = np.dstack([1 - 0.85 * page, np.ones_like(page)])
    sheet = ndimage.rotate(sheet, random.uniform(-15, 15), order=1)
    top, left = random.uniform(0, np.subtract((HEIGHT, WIDTH), sheet.shape[:2])).astype(int)
    table = random.uniform(0.15, 0.5) * (1 + 0.12 * np.sin(columns / 23 + 3 * np.sin(rows / 160)))
    table = table[..., None] * random.uniform(0.6, 1, 3)
    window = table[top : top + sheet.shape[0], left : left + sheet.shape[1]]
    window[:] = window * (1 - sheet[..., 1:]) + 0.88 * sheet[..., :1] * sheet[..., 1:]
    return source.photograph(np.zeros((HEIGHT, WIDTH)), table), [label]


def make_panel(source: Source) -> Made:
    ink, label = source.draw(int(source.random.integers(110, 220)))
    top, left = source.random.uniform(0.2, 0.8, 2) * np.subtract((360, 360), ink.shape)
    page = np.ones((HEIGHT, WIDTH), np.float32)
    page[140:500, 60:420] = put(ink, np.zeros((360, 360), np.float32), top, left)
    return to_colors(page), [label]


def make_form(source: Source, mark: str) -> Made:
    """A digit in the middle of a page, with a printed box, an underline, or an object beside it."""
    random = source.random
    ink, label = source.draw(int(random.integers(180, 260)))
    drawing = Image.new("L", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(drawing)
    if mark == "box":
        sides = random.integers((40, 90, 370, 480), (90, 160, 440, 550)).tolist()
        pen.rectangle(sides, outline=220, width=int(random.integers(2, 6)))
    elif mark == "underline":
        ends = (60, 470 + random.integers(30), 420, 470 + random.integers(30))
        pen.line(ends, fill=230, width=int(random.integers(3, 7)))
    elif mark == "object":
        x, y = random.choice([0, WIDTH]), random.choice([0, HEIGHT])
        right, down = random.integers(60, 140, 2)
        sides = (x - right, y - down, x + right, y + down)
        pen.ellipse(sides, fill=int(random.integers(150, 255)))
    else:
        raise ValueError(f"there is no mark {mark!r}")
    page = np.asarray(drawing, np.float32) / 255
    page = put(ink, page, (HEIGHT - ink.shape[0]) / 2, (WIDTH - ink.shape[1]) / 2)
    return source.photograph(page, pen=BLACK), [label]


def make_dry_pen(source: Source) -> Made:
    ink, labels = source.draw_page()
    cells = 255 * (source.random.random((64, 48)) > 0.25).astype(np.uint8)
    gaps = np.asarray(Image.fromarray(cells).resize((WIDTH, HEIGHT))) > 128
    return source.photograph(ink * gaps), labels


def make_crop(source: Source, low: int, high: int, bold: int = 1) -> Made:
    ink, label = source.draw(int(source.random.integers(low, high)))
    return to_colors(1 - ndimage.grey_dilation(ink, bold)), [label]


def make_row(source: Source) -> Made:
    page, labels, left = np.zeros((HEIGHT, WIDTH), np.float32), [], 20
    for _ in range(int(source.random.integers(2, 5))):
        ink, label = source.draw(int(source.random.integers(80, 110)))
        put(ink, page, source.random.integers(240, 270), left)
        left += ink.shape[1] + int(source.random.integers(6, 30))
        labels.append(label)
    return source.photograph(page), labels


def make_page(source: Source) -> Made:
    page, labels = np.zeros((HEIGHT, WIDTH), np.float32), []
    for top in (60, 230, 400):
        for left in (40, 180, 320):
            ink, label = source.draw(90)
            put(ink, page, top + source.random.integers(30), left + source.random.integers(30))
            labels.append(label)
    return source.photograph(page), labels


def make_touching(source: Source) -> Made:
    (first, left_label), (second, right_label) = source.draw(120), source.draw(120)
    page = put(first, np.zeros((HEIGHT, WIDTH), np.float32), 250, 100)
    for left in range(100 + first.shape[1], 100, -1):  # until the first pixels meet
        window = page[250 : 250 + second.shape[0], left : left + second.shape[1]]
        if (np.minimum(window, second) > 0.5).any():
            break
    return to_colors(1 - put(second, page, 250, left)), [left_label, right_label]


def make_character(source: Source, characters: str) -> Made:
    """A character of a font, slanted, in a pen's width."""
    random = source.random
    name = FONTS[random.integers(2 if characters is SIGNS else len(FONTS))]
    font = ImageFont.truetype(FONT_FOLDER / name, 260)
    image = Image.new("L", (WIDTH, HEIGHT))
    character = characters[random.integers(len(characters))]
    middle = WIDTH / 2, HEIGHT / 2
    ImageDraw.Draw(image).text(middle, character, fill=255, font=font, anchor="mm")
    slant = random.uniform(-0.3, 0.3)
    matrix = (1, slant, -slant * HEIGHT / 2, 0, 1, 0)
    image = image.transform(image.size, Image.Transform.AFFINE, matrix)
    ink = ndimage.grey_dilation(np.asarray(image, np.float32), int(random.integers(1, 13)))
    return source.photograph(ink / 255), []


def make_scribble(source: Source) -> Made:
    image = Image.new("L", (WIDTH, HEIGHT))
    points = source.random.uniform(120, 400, (int(source.random.integers(6, 30)), 2)).tolist()
    path = [tuple(point) for point in points]
    ImageDraw.Draw(image).line(path, 255, width=int(source.random.integers(4, 14)))
    return source.photograph(np.asarray(image, np.float32) / 255), []


def make_blank(source: Source) -> Made:
    return source.photograph(np.zeros((HEIGHT, WIDTH))), []


KINDS: dict[str, Callable[[Source], Made]] = {
    "plain": make_plain,
    "chalk": make_chalk,
    "small": partial(make_plain, low=36, high=70),
    "drawing": make_drawing,
    "as in MNIST": make_mnist,
    "ruled paper": partial(make_ruled, squared=False),
    "squared paper": partial(make_ruled, squared=True),
    "a shadow's edge": make_shadow,
    "a sheet on a table": make_table,
    "a dark panel": make_panel,
    "in a form's box": partial(make_form, mark="box"),
    "underlined": partial(make_form, mark="underline"),
    "beside an object": partial(make_form, mark="object"),
    "a dry pen": make_dry_pen,
    "faint": partial(make_drawing, low=0.04),
    "cropped": partial(make_crop, low=24, high=300),
    "bold and cropped": partial(make_crop, low=56, high=57, bold=5),
    "a row of digits": make_row,
    "a page of digits": make_page,
    "touching digits": make_touching,
    "letters": partial(make_character, characters=LETTERS),
    "signs": partial(make_character, characters=SIGNS),
    "scribbles": make_scribble,
    "blank": make_blank,
}
