"""The report of a run: what it did, how well, where it fails; a page, and its figures as files.

Its words are in page.html; here are the figures, the images and the numbers that it shows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.augment import augmented
from ..core.basics import CLASSES, IMAGE_SIZE, Digits, InputError
from ..core.classic import classic_expanded_set
from ..core.networks import build_network
from ..core.results import write_file
from ..core.settings import Settings
from ..runs.files import recorded_settings
from ..runs.folder import FIGURES, REPORT
from ..runs.results import Results, accuracy_in_words, read_results
from . import figures
from .figures import STYLE, TIMES

MOST_SHOWN = 40
AUGMENTED_DIGITS, AUGMENTED_VERSIONS = 12, 5


def make_report(folder: Path, digits: Digits | None = None) -> Path:
    """Write `report.html` and `figures/*.png` from what a finished run left in its folder.

    Args:
        folder: the run's.
        digits: the data that it ran on; without them no images are shown.

    Raises:
        InputError: no finished run there, or the files cannot be written.
    """
    # Imported here, for they take their time.
    import jinja2
    from matplotlib import rc_context

    results = read_results(folder)
    try:
        settings = recorded_settings(results.metrics["settings"])
    except InputError:  # another version's; the rest of its report is worth having
        settings = None
    layers = network_layers(settings) if settings else []
    predicted = labels = results.probabilities.argmax(axis=1)
    labels_name = "predictions"
    if digits:
        labels, labels_name = digits.train_labels.numpy(), "training images"
    elif results.held_out:
        labels, labels_name = results.held_out.label, "held-out images"
    galleries = dict(make_galleries(results, digits, settings)) if digits else {}
    with rc_context(STYLE):
        drawn = {"curves": figures.curves_figure(results)}
        if results.held_out:
            drawn["confusion"] = figures.confusion_figure(results.held_out)
            drawn["recall"] = figures.recall_figure(results.held_out)
            drawn["reliability"] = figures.reliability_figure(results.held_out)
        if layers:
            drawn["network"] = figures.network_figure(layers)
        drawn["shares"] = figures.shares_figure(predicted, labels, labels_name)
        sheets = {name: figures.images_figure(**gallery) for name, gallery in galleries.items()}
        for name, figure in (drawn | sheets).items():
            write_file(folder / FIGURES / f"{name}.png", figures.png_bytes(figure))
        # On the page the curves are two drawings, one below the other where it is narrow.
        drawn |= {of: figures.curves_figure(results, [of]) for of in ("loss", "accuracy")}
        svg = {name: figures.svg_text(figure, name) for name, figure in drawn.items()}
    here = resources.files(__package__)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": "{:.2%}".format, "number": "{:,}".format}
    environment.filters |= {"words": in_words, "data_url": data_url}
    template = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    page = template.render(
        results=results,
        accuracy=accuracy_in_words(results.metrics),
        has_images=bool(digits),
        galleries=galleries,
        layers=layers,
        predicted=predicted,
        labels=labels,
        labels_name=labels_name,
        svg=svg,
        figures=figures,
        zip=zip,
        style=(here / "page.css").read_text(encoding="utf-8"),
    )
    write_file(folder / REPORT, page.encode())
    return folder / REPORT


def make_galleries(
    results: Results, digits: Digits, settings: Settings | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The images to look at, by name."""
    held_out = results.held_out
    if held_out and len(wrong := np.flatnonzero(~held_out.right)):
        surest = wrong[np.argsort(-held_out.confidence[wrong], kind="stable")][:MOST_SHOWN]
        said = zip(held_out.predicted, held_out.confidence, held_out.label, strict=True)
        lines = [(f"{digit}, {sure:.0%}", f"is a {label}") for digit, sure, label in said]
        title = f"The {len(surest)} surest of {len(wrong)} mistakes: what it said, and what it is"
        images = digits.train_images[torch.from_numpy(held_out.row[surest])]
        yield "mistakes", gallery(title, images, [lines[place] for place in surest])
    if settings and settings.augmentation != "none":
        # One of each class first, then whatever comes; always the same draws.
        classes = [int((digits.train_labels == digit).int().argmax()) for digit in range(CLASSES)]
        rows = list(dict.fromkeys([*classes, *range(len(digits.train_labels))]))[:AUGMENTED_DIGITS]
        images, draws = digits.train_images[rows], torch.Generator().manual_seed(0)
        versions = [images.float() / 255]
        versions += [augmented(versions[0], settings, draws) for _ in range(AUGMENTED_VERSIONS)]
        seen = torch.cat(versions)
        if settings.augmentation == "expanded":
            seen = classic_expanded_set(images)  # which begins with the images as they are
        pixels = (seen.clamp(0, 1) * 255).round().byte()
        yield "augmentation", gallery("Digits and their versions", pixels, columns=len(rows))
    order = np.argsort(results.probabilities, axis=1, kind="stable")[:, ::-1]
    ranked = np.take_along_axis(results.probabilities, order, axis=1)
    doubtful = np.argsort(ranked[:, 0] - ranked[:, 1], kind="stable")[:MOST_SHOWN]
    lines = [
        (f"{order[i, 0]}, {ranked[i, 0]:.0%}", f"or {order[i, 1]}, {ranked[i, 1]:.0%}")
        for i in doubtful
    ]
    title = f"The {len(doubtful)} test images it is least certain of"
    images = digits.test_images[torch.from_numpy(doubtful)]
    yield "least_certain", gallery(title, images, lines)


def gallery(
    title: str, images: Tensor, captions: Sequence[tuple[str, str]] = (), columns: int = 8
) -> dict[str, Any]:
    """What `images_figure` draws, and the page shows one by one."""
    return {"title": title, "images": images, "captions": captions, "columns": columns}


def network_layers(settings: Settings) -> list[tuple[str, tuple[int, ...], int]]:
    """The layers of a run's first network: name, sizes of the output, and how much is learned."""
    values, layers = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE), []
    for layer in build_network(settings, torch.Generator()).eval():
        with torch.no_grad():
            values = layer(values)
        name = type(layer).__name__
        if isinstance(layer, nn.Conv2d):
            name += f" {layer.kernel_size[0]}{TIMES}{layer.kernel_size[1]}"
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        layers.append((name, tuple(values.shape[1:]), parameters))
    return layers


def in_words(value: Any) -> str:
    """A value of metrics.json for whoever reads."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def data_url(image: Tensor) -> str:
    """A grey image, uint8, 1 x H x W, as a PNG that stands in the page itself."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[0].numpy()).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
