"""The report of a run: what it did, how well, where it fails; its words are in page.html."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ..core.basics import IMAGE_SIZE, Digits, InputError
from ..core.networks import build_network
from ..core.results import write_file
from ..core.settings import Settings
from ..runs.files import recorded_settings
from ..runs.folder import FIGURES, REPORT
from ..runs.results import Results, accuracy_in_words, read_results
from . import figures


def make_report(folder: Path, digits: Digits | None = None) -> Path:
    """Write `report.html` and `figures/*.png` into a finished run's folder, and return the page.

    Without `digits`, the data that it ran on, no images are shown. InputError: no finished run is
    there, or the files cannot be written.
    """
    # Imported here, for they take their time.
    import jinja2
    from matplotlib import rc_context

    results, drawings = read_results(folder), {}
    try:
        settings = recorded_settings(results.metrics["settings"])
    except InputError:  # another version's; the rest of its report is worth having
        settings = None
    with rc_context(figures.STYLE):
        for name, figure in draw_figures(results, digits, settings):
            picture = figures.rendered(figure)
            write_file(folder / FIGURES / f"{name}.png", picture)
            drawings[name] = base64.b64encode(picture).decode()
    here = resources.files(__package__)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": "{:.2%}".format, "number": "{:,}".format}
    template = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    page = template.render(
        results=results,
        accuracy=accuracy_in_words(results.metrics),
        has_images=bool(digits),
        drawings=drawings,
        layers=network_layers(settings) if settings else [],
        predicted=results.probabilities.argmax(axis=1),
        figures=figures,
        zip=zip,
        style=(here / "page.css").read_text(encoding="utf-8"),
    )
    write_file(folder / REPORT, page.encode())
    return folder / REPORT


def draw_figures(
    results: Results, digits: Digits | None, settings: Settings | None
) -> Iterator[tuple[str, Any]]:
    """All that can be drawn of a run, by name."""
    held_out = results.held_out
    yield "curves", figures.curves_figure(results)
    if held_out:
        yield "confusion", figures.confusion_figure(held_out)
        yield "recall", figures.recall_figure(held_out)
        yield "reliability", figures.reliability_figure(held_out)
    if not digits:
        return
    if held_out and not held_out.right.all():
        yield "mistakes", figures.mistakes_figure(digits, held_out)
    if settings and settings.augmentation != "none":
        yield "augmentation", figures.augmentation_figure(digits, settings)
    yield "least_certain", figures.least_certain_figure(digits, results.probabilities)


def network_layers(settings: Settings) -> list[tuple[str, str, int]]:
    """The layers of a run's first network: what each is, its output's sizes, its parameters."""
    values, layers = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE), []
    for layer in build_network(settings, torch.Generator()).eval():
        values = layer(values).detach()
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        layers.append((str(layer), " \u00d7 ".join(map(str, values.shape[1:])), parameters))
    return layers
