"""The report of a run: its settings, accuracy and errors on one page; the text is in page.html."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ..core.basics import IMAGE_SIZE, Digits, InputError
from ..core.drawing import STYLE
from ..core.networks import build_network
from ..core.results import write_file
from ..core.settings import Settings
from ..runs.files import restore_settings
from ..runs.finished import FinishedRun, describe_accuracy, read_run
from ..runs.folder import FIGURES, REPORT
from . import figures


def make_report(folder: Path, digits: Digits | None = None) -> Path:
    """Write `report.html` and `figures/*.png` into a finished run's folder; return the page's path.

    Without `digits`, the data of the run, the page shows no images. Raises InputError if the folder
    holds no finished run or cannot be written.
    """
    # Imported here, because they take time.
    import jinja2
    from matplotlib import rc_context

    run, pictures = read_run(folder), {}
    try:
        settings = restore_settings(run.metrics["settings"])
    except InputError:  # another version's: the report leaves out what needs them
        settings = None
    with rc_context(STYLE):
        for name, figure in draw_figures(run, digits, settings):
            picture = figures.render_png(figure)
            write_file(folder / FIGURES / f"{name}.png", picture)
            pictures[name] = base64.b64encode(picture).decode()
    here = resources.files(__package__)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": "{:.2%}".format, "number": "{:,}".format}
    template = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    page = template.render(
        run=run,
        accuracy=describe_accuracy(run.metrics),
        has_images=bool(digits),
        pictures=pictures,
        layers=list_layers(settings) if settings else [],
        predicted=run.probabilities.argmax(axis=1),
        figures=figures,
        zip=zip,
        style=(here / "page.css").read_text(encoding="utf-8"),
    )
    write_file(folder / REPORT, page.encode(errors="xmlcharrefreplace"))
    return folder / REPORT


def draw_figures(
    run: FinishedRun, digits: Digits | None, settings: Settings | None
) -> Iterator[tuple[str, Any]]:
    """The names and figures of all that can be drawn of a run."""
    held_out = run.held_out
    yield "curves", figures.plot_curves(run)
    if held_out:
        yield "confusion", figures.plot_confusion(held_out)
        yield "recall", figures.plot_recall(held_out)
        yield "reliability", figures.plot_reliability(held_out)
    if not digits:
        return
    if held_out and not held_out.correct.all():
        yield "mistakes", figures.plot_mistakes(digits, held_out)
    if settings and settings.augmentation != "none":
        yield "augmentation", figures.plot_augmentation(digits, settings)
    yield "least_certain", figures.plot_least_certain(digits, run.probabilities)


def list_layers(settings: Settings) -> list[tuple[str, str, int]]:
    """The layers of a run's first network: each one's text, output shape and parameters."""
    values, layers = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE), []
    for layer in build_network(settings, torch.Generator()).eval():
        values = layer(values).detach()
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        layers.append((str(layer), " \u00d7 ".join(map(str, values.shape[1:])), parameters))
    return layers
