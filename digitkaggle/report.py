"""The report of a run: what it did, how well, where it fails; a page, and its figures as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .augment import CLASSIC_COPIES, augmented, classic_expanded_set
from .data import Digits
from .digits import CLASSES
from .errors import InputError
from .figures import (
    TIMES,
    Sheet,
    confusion_figure,
    curves_figure,
    expected_calibration_error,
    network_figure,
    png_bytes,
    recall_figure,
    reliability_bins,
    reliability_figure,
    shares_figure,
    sheet_figure,
)
from .files import write_bytes, write_text
from .report_page import Chart, Gallery, Section, Table, page_html
from .results import HeldOutAnswers, Results, read_results
from .run_folder import FIGURES, REPORT
from .settings import recorded_settings
from .summary import accuracy_in_words, facts_of, headline

# What may lie in figures/, in the order in which one looks at them.
FIGURE_NAMES = (
    "curves",
    "confusion",
    "recall",
    "mistakes",
    "reliability",
    "augmentation",
    "network",
    "shares",
    "least_certain",
)
MOST_SHOWN = 40
AUGMENTED_DIGITS = 12
AUGMENTED_VERSIONS = 5
# Layers that a picture of the network can do without.
SMALL_LAYERS = ("ReLU", "batch normalisation", "dropout", "flatten")


def make_report(folder: Path, digits: Digits | None = None) -> Path:
    """Write `report.html` and `figures/*.png` from what a finished run left in its folder.

    Args:
        folder: the run's.
        digits: the data that it ran on; without them no images are shown.

    Returns:
        The page.

    Raises:
        InputError: no finished run there, or the files cannot be written.
    """
    results = read_results(folder)
    sections = list(report_sections(results, digits))
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Chart):
                image = png_bytes(block.figure, block.title)
                write_bytes(folder / FIGURES / f"{block.name}.png", image)
            elif isinstance(block, Gallery):
                figure = sheet_figure(block.sheet, block.title)
                write_bytes(folder / FIGURES / f"{block.name}.png", png_bytes(figure))
    metrics = results.metrics
    preset, seed = metrics["settings"].get("preset"), metrics["settings"].get("seed")
    page = page_html(
        title=f"digitkaggle: {preset}, seed {seed}",
        eyebrow=f"digitkaggle {metrics['versions'].get('digitkaggle', '')} · {folder.name}",
        headline=headline(metrics),
        lead=" ".join(accuracy_in_words(metrics)),
        facts=facts_of(metrics),
        sections=sections,
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def report_sections(results: Results, digits: Digits | None) -> Iterator[Section]:
    """The sections of the page, in the order in which one reads."""
    held_out = results.held_out
    yield _learning(results)
    if held_out is not None:
        yield _failures(held_out, digits)
        yield _certainty(held_out)
    if results.member_digits is not None or len(results.best_epochs) > 1:
        yield _members(results)
    if digits is not None and (sheet := augmentation_sheet(results, digits)):
        yield Section(
            "What training saw",
            "Every image of the top row, and versions of it as augmentation makes them: the "
            "network never sees quite the same digit twice.",
            [Gallery("augmentation", "Digits and their augmented versions", sheet, True)],
        )
    if table := network_rows(results.metrics):
        yield _network(table)
    yield _test_images(results, digits)
    yield _settings(results.metrics)


def _learning(results: Results) -> Section:
    epochs = ", ".join(map(str, results.best_epochs))
    words = f"The weights kept are those of epoch {epochs}."
    if results.metrics.get("refit"):
        words = (
            f"Validation found epoch {epochs} best. The curves of training that go on alone after "
            "the validated epochs are those of the training on all images, which starts anew."
        )
    if results.history["val_loss"].notna().any():
        words += (
            " Training sees augmented images, validation plain ones; that is why validation can "
            "look the better of the two. The axis of accuracy is stretched towards 100 %."
        )
    if len(set(results.metrics["settings"].get("image_sizes") or [])) > 1:
        words += " Training begins with smaller images; validation catches up as they grow."
    panels = [curves_figure(results, [quantity]) for quantity in ("loss", "accuracy")]
    chart = Chart(
        "curves", "Loss and accuracy in training and validation", curves_figure(results), panels
    )
    return Section("How it learned", words, [chart])


def _failures(answers: HeldOutAnswers, digits: Digits | None) -> Section:
    wrong = np.flatnonzero(~answers.right)
    order = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:MOST_SHOWN]
    blocks: list[Chart | Gallery | Table] = [
        Chart("confusion", "Confusions: true digit by predicted digit", confusion_figure(answers)),
        Chart("recall", "Recall of each digit, with its 95 % interval", recall_figure(answers)),
    ]
    if digits is not None and len(order):
        images = digits.train_images[torch.from_numpy(answers.row[order])].squeeze(1).numpy()
        captions = [
            (
                f"{answers.predicted[place]}, {answers.confidence[place]:.0%}",
                f"is a {answers.label[place]}",
            )
            for place in order
        ]
        title = "The mistakes, the surest first: what it said, and what it is"
        if len(order) < len(wrong):
            title = (
                f"The {len(order)} surest mistakes of {len(wrong)}: what it said, and what it is"
            )
        blocks.append(Gallery("mistakes", title, Sheet(images, captions)))
    words = f"{len(wrong):,} of {len(answers.row):,} held-out images are named wrong."
    if digits is None:
        words += " The data were not at hand, so their images are left out."
    return Section("Where it fails", words, blocks)


def _certainty(answers: HeldOutAnswers) -> Section:
    error = expected_calibration_error(answers)
    mean, accuracy = answers.confidence.mean(), answers.right.mean()
    which = "less" if mean < accuracy else "more"
    rows = [
        [f"{100 * sure:.1f} %", f"{100 * right:.1f} %", f"{images:,}"]
        for sure, right, images in zip(*reliability_bins(answers), strict=True)
    ]
    return Section(
        "Is it as sure as it is right?",
        f"The expected calibration error is {100 * error:.1f} %: confidence is "
        f"{100 * mean:.1f} % on average, accuracy {100 * accuracy:.1f} %, so it is {which} sure "
        "than it is right. Label smoothing makes a network modest on purpose. Points on the "
        "dotted line are as sure as they are right; larger points stand for more images.",
        [
            Chart(
                "reliability", "Reliability: accuracy by confidence", reliability_figure(answers)
            ),
            Table("The same in numbers", ("confidence", "accuracy", "images"), rows),
        ],
    )


def _members(results: Results) -> Section:
    members = results.metrics.get("members") or []
    blocks: list[Chart | Gallery | Table] = []
    if members:
        rows = [
            [
                f"{member['member']}",
                f"{member['best_epoch']}",
                f"{100 * member['accuracy']:.2f} %",
                f"{member['images']:,}",
                f"{member['loss']:.4f}",
            ]
            for member in members
        ]
        header = ("member", "epoch kept", "accuracy", "images", "loss")
        blocks.append(Table("Each member on what it held out", header, rows))
    words = f"{len(results.best_epochs)} networks were trained; their probabilities are averaged."
    digits = results.member_digits
    if digits is not None:
        same = (digits == digits[0]).all(axis=0)
        words += (
            f" On {same.sum():,} of {len(same):,} test images ({100 * same.mean():.2f} %) all of "
            "them give the same answer."
        )
        numbers = [str(number + 1) for number in range(len(digits))]
        rows = [
            [numbers[first], *(f"{100 * (one == other).mean():.2f} %" for other in digits)]
            for first, one in enumerate(digits)
        ]
        blocks.append(
            Table("How often two members give the same answer", ("member", *numbers), rows)
        )
    return Section("The members", words, blocks)


def augmentation_sheet(results: Results, digits: Digits) -> Sheet | None:
    """A dozen training digits as they are, and versions of them below; None without augmentation.

    The draws are always the same, whatever the run's seed.
    """
    settings = results.metrics["settings"]
    first = [int((digits.train_labels == digit).int().argmax()) for digit in range(CLASSES)]
    rows = torch.tensor([*first, *range(len(digits.train_labels))])
    rows = torch.tensor(list(dict.fromkeys(rows.tolist()))[:AUGMENTED_DIGITS])
    images = digits.train_images[rows]
    plain = images.float() / 255
    if settings.get("augmentation") == "affine":
        try:
            recorded = recorded_settings(settings)
        except InputError:  # another version's; the rest of its report is worth having
            return None
        draws = torch.Generator().manual_seed(0)
        versions = [augmented(plain, recorded, draws) for _ in range(AUGMENTED_VERSIONS)]
    elif settings.get("augmentation") == "expanded":
        versions = list(classic_expanded_set(images).split(len(images)))[1:CLASSIC_COPIES]
    else:
        return None
    pixels = (torch.cat([plain, *versions]).clamp(0, 1) * 255).round().byte()
    return Sheet(pixels.squeeze(1).numpy(), [("", "")] * len(pixels), columns=len(images))


def network_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The table of the network as a run recorded it: layer, output, parameters; maybe empty."""
    lines = metrics.get("network") or [""]
    start = lines[0].find("output")
    if start < 0:
        return []
    rows = []
    for line in lines:
        output, _, count = line[start:].partition("  ")
        rows.append([line[:start].strip(), output.strip(), count.strip()])
    return rows


def network_steps(rows: Sequence[Sequence[str]]) -> list[tuple[str, list[int]]]:
    """The network in short: its layers gathered by what comes out of them, with its sizes."""
    steps: list[tuple[list[str], list[int]]] = []
    for name, output, _ in rows[1:]:
        if not re.fullmatch(r"\d+( x \d+)*", output):
            continue
        sizes = [int(size) for size in output.split(" x ")]
        if not steps or steps[-1][1] != sizes:
            steps.append(([], sizes))
        steps[-1][0].append(name)
    gathered = []
    for names, sizes in steps:
        large = [name for name in names if not name.startswith(SMALL_LAYERS)] or names[:1]
        counted = [
            f"{large.count(name)} times {name}" if large.count(name) > 1 else name
            for name in dict.fromkeys(large)
        ]
        gathered.append((", ".join(counted).replace(" x ", TIMES), sizes))
    return gathered


def _network(rows: Sequence[Sequence[str]]) -> Section:
    blocks: list[Chart | Gallery | Table] = []
    if steps := network_steps(rows):
        blocks.append(Chart("network", "What comes out of its layers", network_figure(steps)))
    table = [[cell.replace(" x ", TIMES.replace(" ", "\u00a0")) for cell in row] for row in rows]
    blocks.append(Table("Layer by layer", table[0], table[1:]))
    return Section("The network", f"{rows[-1][2]} numbers were learned.", blocks)


def _test_images(results: Results, digits: Digits | None) -> Section:
    probabilities = results.probabilities
    predicted = probabilities.argmax(axis=1)
    if digits is not None:
        reference, name = digits.train_labels.numpy(), "training images"
    elif results.held_out is not None:
        reference, name = results.held_out.label, "held-out images"
    else:
        reference, name = predicted, "predictions"
    rows = [
        [
            str(digit),
            f"{(predicted == digit).sum():,}",
            f"{100 * (predicted == digit).mean():.2f} %",
            f"{100 * (reference == digit).mean():.2f} %",
        ]
        for digit in range(CLASSES)
    ]
    blocks: list[Chart | Gallery | Table] = [
        Chart(
            "shares",
            "How often each digit is predicted, and occurs",
            shares_figure(predicted, reference, name),
        ),
        Table("The same in numbers", ("digit", "predicted", "share", f"of {name}"), rows),
    ]
    if digits is not None:
        two = np.sort(probabilities, axis=1)[:, -2:]
        doubtful = np.argsort(two[:, 1] - two[:, 0], kind="stable")[:MOST_SHOWN]
        images = digits.test_images[torch.from_numpy(doubtful)].squeeze(1).numpy()
        captions = []
        for place in doubtful:
            second, first = np.argsort(probabilities[place], kind="stable")[-2:]
            captions.append(
                (
                    f"{first}, {probabilities[place, first]:.0%}",
                    f"or {second}, {probabilities[place, second]:.0%}",
                )
            )
        title = f"The {len(doubtful)} test images it is least certain of"
        blocks.append(Gallery("least_certain", title, Sheet(images, captions)))
    words = (
        f"{len(predicted):,} images were predicted. Shares far from those of the {name} would "
        "point to a fault."
    )
    return Section("The test images", words, blocks)


def _settings(metrics: Mapping[str, Any]) -> Section:
    def rows(values: Mapping[str, Any]) -> list[list[str]]:
        return [[name, _value_in_words(value)] for name, value in values.items()]

    settings = rows(metrics["settings"])
    half = -(-len(settings) // 2)
    blocks = [Table("Settings", (), settings[:half]), Table("", (), settings[half:])]
    versions = rows(metrics["versions"])
    versions.append(["sources", str(metrics.get("source_digest") or "unknown")[:16]])
    versions.append(["data", str(metrics["data"].get("digest"))[:16]])
    seconds = [[name, f"{value:.1f} s"] for name, value in metrics["seconds"].items()]
    blocks += [Table("Versions", (), versions), Table("Time", (), seconds)]
    return Section(
        "The settings",
        "With these, the same data and the same sources it can be done again.",
        blocks,
    )


def _value_in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
