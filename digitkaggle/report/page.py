"""The report of a run: what it did, how well, where it fails; a page, and its figures as files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.augment import augmented
from ..core.basics import CLASSES, IMAGE_SIZE, Digits, InputError
from ..core.classic import CLASSIC_COPIES, classic_expanded_set
from ..core.networks import build_network
from ..core.results import write_file
from ..core.settings import Settings
from ..runs.files import recorded_settings
from ..runs.folder import FIGURES, REPORT
from ..runs.results import HeldOutAnswers, Results, accuracy_in_words, read_results
from . import figures
from .figures import DARK, LIGHT, TIMES, Sheet

MOST_SHOWN = 40
AUGMENTED_DIGITS, AUGMENTED_VERSIONS = 12, 5
# Layers that a picture of the network can do without.
SMALL_LAYERS = ("ReLU", "BatchNorm2d", "SeededDropout", "Flatten", "MomentNormalisation")

Block = dict[str, Any]


def make_report(folder: Path, digits: Digits | None = None) -> Path:
    """Write `report.html` and `figures/*.png` from what a finished run left in its folder.

    Args:
        folder: the run's.
        digits: the data that it ran on; without them no images are shown.

    Raises:
        InputError: no finished run there, or the files cannot be written.
    """
    # Imported here, for only this needs it.
    import jinja2

    results = read_results(folder)
    sections = list(report_sections(results, digits))
    for block in (block for section in sections for block in section["blocks"]):
        if block["kind"] != "table":
            write_file(folder / FIGURES / f"{block['name']}.png", block["png"])
    metrics, here = results.metrics, resources.files(__package__)
    settings, found = metrics["settings"], metrics.get("validation")
    headline = "Trained on all images, none held out"
    if found:
        headline = f"{found['accuracy']:.2%} of {found['images']:,} held-out digits named right"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string((here / "page.html").read_text()).render(
        title=f"digitkaggle: {settings.get('preset')}, seed {settings.get('seed')}",
        eyebrow=f"digitkaggle {metrics['versions'].get('digitkaggle', '')} · {folder.name}",
        headline=headline,
        lead=" ".join(accuracy_in_words(metrics)),
        warnings=metrics.get("warnings", []),
        facts=facts_of(metrics),
        sections=sections,
        light=LIGHT,
        dark=DARK,
        style=(here / "page.css").read_text(),
    )
    write_file(folder / REPORT, page.encode())
    return folder / REPORT


def facts_of(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was run, where and how long, as names and values."""
    settings, data, device = metrics["settings"], metrics["data"], metrics["device"]
    seconds = metrics["seconds"]
    yield "Preset", f"{settings.get('preset')}, seed {settings.get('seed')}"
    yield "Data", str(data.get("origin"))
    yield "Images", f"{data['training_images']:,} to learn from, {data['test_images']:,} to predict"
    yield "Device", f"{device.get('name')}, {device.get('dtype')}: {device.get('why')}"
    yield "Time", f"{seconds['total']:.0f} s, training {seconds['train']:.0f} s"
    yield "Weights kept", f"epoch {metrics['best_epoch']} of {metrics.get('epochs')}"
    for name in ("time_budget", "refit"):
        if metrics.get(name):
            yield name, str(metrics[name])


def report_sections(results: Results, digits: Digits | None) -> Iterator[dict[str, Any]]:
    """The sections of the page, in the order in which one reads."""
    yield section(
        "How it learned",
        f"The weights kept are those of epoch {', '.join(map(str, results.best_epochs))}. Training "
        "sees augmented images, validation plain ones, so validation can look the better of the "
        "two. The axis of accuracy is stretched towards 100 %.",
        chart("curves", "Loss and accuracy", figures.curves_figure(results), results),
    )
    if results.held_out is not None:
        yield failures(results.held_out, digits)
        yield certainty(results.held_out)
    if results.member_digits is not None:
        yield members(results)
    try:
        settings = recorded_settings(results.metrics["settings"])
    except InputError:  # another version's; the rest of its report is worth having
        settings = None
    if settings and digits is not None and settings.augmentation != "none":
        yield section(
            "What training saw",
            "Every image of the top row, and versions of it as augmentation makes them.",
            augmentation(settings, digits),
        )
    if settings:
        yield network_section(settings)
    yield test_images(results, digits)
    yield section(
        "The settings",
        "With these, the same data and the same sources it can be done again.",
        *(table(name, (), rows_of(results.metrics[name.lower()])) for name in SETTING_TABLES),
    )


SETTING_TABLES = ("Settings", "Versions", "Seconds")


def section(heading: str, words: str, *blocks: Block) -> dict[str, Any]:
    """A heading, a few words, and what there is to see."""
    return {"heading": heading, "words": words, "blocks": blocks}


def chart(name: str, title: str, figure: Any, results: Results | None = None) -> Block:
    """A drawing: `figures/NAME.png`, and SVG for the page; curves as a panel each."""
    panels = (
        [figures.curves_figure(results, [of]) for of in ("loss", "accuracy")] if results else []
    )
    png = figures.png_bytes(figure, title)
    drawings = [
        figures.svg_text(panel, f"{name}{number}", title)
        for number, panel in enumerate(panels or [figure])
    ]
    return {"kind": "chart", "name": name, "title": title, "png": png, "drawings": drawings}


def gallery(name: str, title: str, sheet: Sheet, *, whole_rows: bool = False) -> Block:
    """A sheet of images: `figures/NAME.png`, and one by one for the page."""
    images = [
        (image_url(image), *caption)
        for image, caption in zip(sheet.images, sheet.captions, strict=True)
    ]
    png = figures.png_bytes(figures.sheet_figure(sheet, title))
    block = {"kind": "gallery", "name": name, "title": title, "png": png, "images": images}
    return block | {"columns": sheet.columns, "whole_rows": whole_rows}


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Block:
    """Rows of text; a header may be empty."""
    return {"kind": "table", "title": title, "header": header, "rows": rows}


def rows_of(values: Mapping[str, Any]) -> list[list[str]]:
    """Names and values as a table's rows."""
    return [[name, str(value)] for name, value in values.items()]


def image_url(image: np.ndarray) -> str:
    """A grey image, uint8, H x W, as a data URL."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def failures(answers: HeldOutAnswers, digits: Digits | None) -> dict[str, Any]:
    """Confusions, recall, and the surest mistakes."""
    wrong = np.flatnonzero(~answers.right)
    order = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:MOST_SHOWN]
    blocks = [
        chart("confusion", "Confusions: true by predicted", figures.confusion_figure(answers)),
        chart("recall", "Recall, with its 95 % interval", figures.recall_figure(answers)),
    ]
    words = f"{len(wrong):,} of {len(answers.row):,} held-out images are named wrong."
    if digits is None:
        words += " The data were not at hand, so their images are left out."
    elif len(order):
        images = digits.train_images[torch.from_numpy(answers.row[order])].squeeze(1).numpy()
        captions = [
            (f"{answers.predicted[i]}, {answers.confidence[i]:.0%}", f"is a {answers.label[i]}")
            for i in order
        ]
        title = f"The {len(order)} surest of {len(wrong)} mistakes: what it said, and what it is"
        blocks.append(gallery("mistakes", title, Sheet(images, captions)))
    return section("Where it fails", words, *blocks)


def certainty(answers: HeldOutAnswers) -> dict[str, Any]:
    """Calibration."""
    error = figures.expected_calibration_error(answers)
    rows = [
        [f"{sure:.1%}", f"{right:.1%}", f"{images:,}"]
        for sure, right, images in zip(*figures.reliability_bins(answers), strict=True)
    ]
    drawing = figures.reliability_figure(answers)
    return section(
        "Is it as sure as it is right?",
        f"The expected calibration error is {error:.1%}: confidence is "
        f"{answers.confidence.mean():.1%} on average, accuracy {answers.right.mean():.1%}. Label "
        "smoothing makes a network modest on purpose. Larger points stand for more images.",
        chart("reliability", "Reliability: accuracy by confidence", drawing),
        table("The same in numbers", ("confidence", "accuracy", "images"), rows),
    )


def members(results: Results) -> dict[str, Any]:
    """How often the members give the same answers."""
    digits = results.member_digits
    same = (digits == digits[0]).all(axis=0)
    names = [f"member {number}" for number in range(1, len(digits) + 1)]
    rows = [
        [name, *(f"{(one == other).mean():.2%}" for other in digits)]
        for name, one in zip(names, digits, strict=True)
    ]
    return section(
        "The members",
        f"{len(digits)} networks were trained; their probabilities are averaged. On {same.sum():,} "
        f"of {len(same):,} test images all of them give the same answer.",
        table("How often two members give the same answer", ("", *names), rows),
    )


def augmentation(settings: Settings, digits: Digits) -> Block:
    """A dozen training digits as they are, and versions of them below; always the same draws."""
    first = [int((digits.train_labels == digit).int().argmax()) for digit in range(CLASSES)]
    rows = list(dict.fromkeys([*first, *range(len(digits.train_labels))]))[:AUGMENTED_DIGITS]
    images = digits.train_images[rows]
    plain, draws = images.float() / 255, torch.Generator().manual_seed(0)
    if settings.augmentation == "affine":
        versions = [augmented(plain, settings, draws) for _ in range(AUGMENTED_VERSIONS)]
    else:
        versions = list(classic_expanded_set(images).split(len(images)))[1:CLASSIC_COPIES]
    pixels = (torch.cat([plain, *versions]).clamp(0, 1) * 255).round().byte().squeeze(1).numpy()
    sheet = Sheet(pixels, [("", "")] * len(pixels), columns=len(images))
    return gallery("augmentation", "Digits and their augmented versions", sheet, whole_rows=True)


def network_section(settings: Settings) -> dict[str, Any]:
    """The network's layers, with the shapes that come out of them."""
    network = build_network(settings, torch.Generator()).eval()
    values, rows, steps = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE), [], []
    for layer in network:
        with torch.no_grad():
            values = layer(values)
        sizes, name = list(values.shape[1:]), type(layer).__name__
        if isinstance(layer, nn.Conv2d):
            name += f" {layer.kernel_size[0]}{TIMES}{layer.kernel_size[1]}"
        count = sum(parameter.numel() for parameter in layer.parameters())
        rows.append([name, TIMES.join(map(str, sizes)), f"{count:,}" if count else ""])
        if not name.startswith(SMALL_LAYERS):
            steps.append((name, sizes))
    total = sum(parameter.numel() for parameter in network.parameters())
    return section(
        "The network",
        f"{total:,} numbers are learned.",
        chart("network", "What comes out of its layers", figures.network_figure(steps)),
        table("Layer by layer", ("layer", "output", "parameters"), rows),
    )


def test_images(results: Results, digits: Digits | None) -> dict[str, Any]:
    """How often each digit is predicted, and the images of which the run is least certain."""
    probabilities = results.probabilities
    predicted, reference, name = probabilities.argmax(axis=1), None, "held-out images"
    if digits is not None:
        reference, name = digits.train_labels.numpy(), "training images"
    elif results.held_out is not None:
        reference = results.held_out.label
    else:
        reference, name = predicted, "predictions"
    drawing = figures.shares_figure(predicted, reference, name)
    blocks = [chart("shares", "How often each digit is predicted, and occurs", drawing)]
    if digits is not None:
        two = np.sort(probabilities, axis=1)[:, -2:]
        doubtful = np.argsort(two[:, 1] - two[:, 0], kind="stable")[:MOST_SHOWN]
        captions = []
        for place in doubtful:
            second, first = np.argsort(probabilities[place], kind="stable")[-2:]
            one, other = probabilities[place, first], probabilities[place, second]
            captions.append((f"{first}, {one:.0%}", f"or {second}, {other:.0%}"))
        images = digits.test_images[torch.from_numpy(doubtful)].squeeze(1).numpy()
        title = f"The {len(doubtful)} test images it is least certain of"
        blocks.append(gallery("least_certain", title, Sheet(images, captions)))
    words = f"{len(predicted):,} images were predicted. Shares far from those of the {name} would "
    return section("The test images", f"{words}point to a fault.", *blocks)
