"""The report as one HTML file: no network, light and dark, for phone, desk and paper.

Everything that is text goes through `html.escape` here; whoever calls hands over plain words.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from .figures import DARK, LIGHT, Sheet, svg_text


@dataclass(frozen=True)
class Chart:
    """A drawing: its file is `figures/NAME.png`; the page shows `panels` instead where given."""

    name: str
    title: str
    figure: Any
    panels: Sequence[Any] = ()


@dataclass(frozen=True)
class Gallery:
    """A sheet of images; its file is `figures/NAME.png`."""

    name: str
    title: str
    sheet: Sheet
    whole_rows: bool = False  # rows and columns mean something: a narrow page shrinks, not wraps


@dataclass(frozen=True)
class Table:
    """Rows of text; a header may be empty."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading, a few words, and what there is to see."""

    heading: str
    words: str
    blocks: Sequence[Chart | Gallery | Table]


NUMBER_CLASS = ' class="number"'
PAGE_STYLE = """
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.6rem, 5.2vw, 2.5rem); line-height: 1.15; letter-spacing: -0.02em;
  margin: 0.2rem 0 0.8rem; max-width: 32ch; text-wrap: balance; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 0 0 0.4rem; }
h3 { font-size: 0.95rem; line-height: 1.5; min-height: 1.5em; margin: 0 0 0.4rem; }
p { max-width: 44rem; margin: 0 0 1rem; }
section { border-top: 1px solid var(--line); padding-top: 1.6rem; margin-top: 2.2rem; }
section > p, .eyebrow, figcaption, dt, caption { color: var(--muted); }
.eyebrow { margin: 0; font-size: 0.9rem; }
.lead { font-size: 1.1rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr));
  gap: 0.9rem 2rem; margin: 1.6rem 0 0; }
.facts dt { font-size: 0.85rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.blocks { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.8rem 2.5rem; }
.blocks > * { margin: 0; min-width: 0; }
.wide { grid-column: 1 / -1; }
.chart svg { display: block; width: 100%; max-width: 34rem; height: auto; }
/* Narrower than the font that the drawings were laid out with, so that all fits. */
.chart svg text { font-family: inherit !important; }
figcaption { font-size: 0.9rem; font-weight: 600; margin-bottom: 0.3rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.4rem, 1fr));
  gap: 1.1rem 0.9rem; }
.gallery.whole { grid-template-columns: repeat(var(--columns), minmax(0, 1fr));
  gap: clamp(1px, 0.6vw, 6px); max-width: 48rem; }
.gallery img { display: block; width: 100%; image-rendering: pixelated; filter: invert(1);
  border: 1px solid #000; border-color: rgb(0 0 0 / 0.15); border-radius: 4px; }
.gallery div { font-size: 0.85rem; line-height: 1.35; min-width: 0; }
.gallery b { display: block; margin-top: 0.25rem; }
.gallery span { display: block; color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: 0.22rem 1.4rem 0.22rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; font-weight: inherit; }
th { color: var(--muted); }
thead th { font-size: 0.85rem; white-space: nowrap; }
td.number { text-align: right; white-space: nowrap; }
@media (max-width: 44rem) {
  main { padding-top: 1.5rem; }
  h3:empty { display: none; }
  td, th { padding-right: 0.9rem; }
  .blocks { grid-template-columns: minmax(0, 1fr); }
  .facts { grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.8rem 1.2rem; }
  .gallery { grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 0.9rem 0.6rem; }
  .gallery div { font-size: 0.78rem; }
}
/* On dark the digits stand as the network sees them, light on dark. */
@media screen and (prefers-color-scheme: dark) {
  .gallery img { filter: none; border-color: rgb(255 255 255 / 0.2); }
}
@page { margin: 14mm; }
@media print {
  main { max-width: none; padding: 0; }
  body { font-size: 10pt; }
  table { font-size: 8.5pt; }
  td, th { padding: 0.12rem 0.9rem 0.12rem 0; }
  .scroll { overflow: visible; }
  .gallery { grid-template-columns: repeat(10, minmax(0, 1fr)); gap: 0.6rem; }
  .gallery.whole { max-width: 30rem; gap: 2px; grid-template-columns: repeat(var(--columns), 1fr); }
  section { margin-top: 1.2rem; padding-top: 1rem; }
  .blocks { gap: 1rem 1.5rem; }
  .chart svg { max-width: 24rem; }
  .gallery div { font-size: 7.5pt; }
  figure, .gallery > div, tr, h2, h3 { break-inside: avoid; }
  section > p { break-inside: avoid; }
  h2, h2 + p, h3, figcaption { break-after: avoid; }
}
"""


def page_html(
    title: str,
    eyebrow: str,
    headline: str,
    lead: str,
    facts: Iterable[tuple[str, str]],
    sections: Iterable[Section],
) -> str:
    """The whole page; all arguments are plain text."""
    colours = [
        "".join(f"--{role}: {colour}; " for role, colour in theme.items())
        for theme in (LIGHT, DARK)
    ]
    style = (
        f":root {{ {colours[0]}}}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {colours[1]}}}\n"
        f"}}\n{PAGE_STYLE}"
    )
    told = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>\n" for k, v in facts)
    body = "\n".join(_section_html(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">{escape(eyebrow)}</p>
<h1>{escape(headline)}</h1>
<p class="lead">{escape(lead)}</p>
<dl class="facts">
{told}</dl>
</header>
{body}
</main>
</body>
</html>
"""


def _section_html(section: Section) -> str:
    blocks = "\n".join(_block_html(block) for block in section.blocks)
    return (
        f"<section>\n<h2>{escape(section.heading)}</h2>\n<p>{escape(section.words)}</p>\n"
        f'<div class="blocks">\n{blocks}\n</div>\n</section>'
    )


def _block_html(block: Chart | Gallery | Table) -> str:
    if isinstance(block, Gallery):
        return _gallery_html(block)
    if isinstance(block, Table):
        return _table_html(block)
    title = escape(block.title)
    caption = f"<figcaption>{title}</figcaption>" if not block.panels else ""
    drawings = [
        svg_text(figure, f"{block.name}{number}", title)
        for number, figure in enumerate(block.panels or [block.figure], start=1)
    ]
    return "\n".join(f'<figure class="chart">{caption}{svg}</figure>' for svg in drawings)


def _gallery_html(gallery: Gallery) -> str:
    sheet = gallery.sheet
    cells = []
    for image, (first, second) in zip(sheet.images, sheet.captions, strict=True):
        words = f"{first}, {second}".strip(", ")
        lines = f"<b>{escape(first)}</b>" if first else ""
        lines += f"<span>{escape(second)}</span>" if second else ""
        cells.append(f'<div><img alt="{escape(words)}" src="{_image_url(image)}">{lines}</div>')
    kind = f'whole" style="--columns: {sheet.columns}' if gallery.whole_rows else ""
    return (
        f'<div class="wide"><h3>{escape(gallery.title)}</h3>\n'
        f'<div class="gallery {kind}">\n' + "\n".join(cells) + "\n</div></div>"
    )


def _image_url(image: np.ndarray) -> str:
    """A grey image, uint8, H x W, as a data URL."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, image, cmap="gray", vmin=0, vmax=255, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _table_html(table: Table) -> str:
    # A column is one of numbers if all that stands in it looks like one.
    numeric = [
        all(_looks_like_a_number(row[column]) for row in table.rows)
        for column in range(len(table.rows[0]) if table.rows else 0)
    ]
    lines = []
    for row in table.rows:
        cells = [f'<th scope="row">{escape(row[0])}</th>']
        cells += [
            f"<td{NUMBER_CLASS if number else ''}>{escape(cell)}</td>"
            for cell, number in zip(row[1:], numeric[1:], strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    head = f"<thead><tr>{head}</tr></thead>" if table.header else ""
    return (
        f'<div><h3>{escape(table.title)}</h3>\n<div class="scroll"><table>{head}<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div></div>"
    )


def _looks_like_a_number(text: str) -> bool:
    return not text or text.strip("0123456789.,%+-± ") == ""
