"""Kinds of networks judged by many images out of fold, and by a fifth that no choice looks at."""

from __future__ import annotations

import csv
import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.model_selection import train_test_split

from digitkaggle.core.basics import Compute, Digits
from digitkaggle.core.device import choose_compute
from digitkaggle.core.main import OneLineParser, add_run_flags, settings_from_flags
from digitkaggle.core.run import run
from digitkaggle.core.settings import Settings, make_settings
from digitkaggle.core.split import fold_rows
from digitkaggle.report.figures import expected_calibration_error
from digitkaggle.runs.results import HeldOutAnswers

FOLDS, CONFIRMATION_SEED = 10, 2026
LOOKS = Path("docs/confirmation.csv")  # every look at the confirmation images, for good


def apart(digits: Digits) -> tuple[Digits, torch.Tensor]:
    """The four fifths that choices are made on, as if the last were test.csv, and its labels."""
    images, labels = digits.train_images, digits.train_labels
    # By scikit-learn, and for good: with another split, choices made so far would have looked.
    where = {"test_size": 0.2, "stratify": labels, "random_state": CONFIRMATION_SEED}
    rows, last = map(torch.from_numpy, train_test_split(np.arange(len(labels)), **where))
    return Digits(images[rows], labels[rows], images[last]), labels[last]


def judged(kinds: list[str], digits: Digits, folder: Path) -> dict[str, Any]:
    """Kinds, each `name: flags of a run` or `one+another` for the mean of two, out of fold.

    The probabilities of each are kept in the folder, float16, images x 10, and are not made again.
    """
    labels, probabilities, seconds = digits.train_labels.numpy(), {}, {}
    for kind in kinds:
        name, _, flags = kind.partition(":")
        if "+" in name:
            probabilities[name] = sum(probabilities[part] for part in name.split("+"))
        else:
            probabilities[name], seconds[name] = out_of_fold(name, flags, digits, folder)
    folds = [fold_rows(digits.train_labels, FOLDS, n, 0, by_class=True)[1] for n in range(FOLDS)]
    half = np.isin(np.arange(len(labels)), torch.cat(folds[::2]).numpy())
    first, rows = next(iter(probabilities)), {}
    for name, said in probabilities.items():
        wrong, base = (p.argmax(axis=1) != labels for p in (said, probabilities[first]))
        gaps = [100.0 * (base[fold].mean() - wrong[fold].mean()) for fold in folds]
        lost, won = int((wrong & ~base).sum()), int((base & ~wrong).sum())
        rows[name] = {
            "accuracy": 1 - wrong.mean(),
            "chosen": int(wrong[half].sum()),
            "confirmed": int(wrong[~half].sum()),
            **calibrated(said, labels),
            "gap": float(np.mean(gaps)),
            "gap_error": float(np.std(gaps, ddof=1) / FOLDS**0.5),
            "mcnemar": binomtest(won, won + lost).pvalue if won + lost else 1.0,
            "seconds": seconds.get(name, float("nan")),
        }
    return {"images": len(labels), "rows": rows}


def out_of_fold(name: str, flags: str, digits: Digits, folder: Path) -> tuple[np.ndarray, float]:
    """What ten runs of these flags, each without a tenth, say of that tenth; seconds of a run."""
    parser = OneLineParser()
    add_run_flags(parser)
    asked = parser.parse_args(shlex.split(flags))
    settings = settings_from_flags(asked, "fast", {"validation_fraction": 0.0})
    compute, file = choose_compute(settings, asked.device), folder / f"{name}.npz"
    said, spent = np.full((len(digits.train_labels), 10), np.nan, np.float16), np.zeros(FOLDS)
    if file.exists():
        with np.load(file) as stored:
            said, spent = stored["probabilities"], stored["seconds"]
    for fold in range(FOLDS):
        rows, held = fold_rows(digits.train_labels, FOLDS, fold, 0, by_class=True)
        if not np.isnan(said[held]).any():
            continue
        images, labels = digits.train_images, digits.train_labels[rows]
        started = time.perf_counter()
        told = one_run(settings, 100 + fold, Digits(images[rows], labels, images[held]), compute)
        said[held], spent[fold] = told.numpy(), time.perf_counter() - started
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, probabilities=said, seconds=spent)
    return said.astype(np.float64), float(np.median(spent))


def one_run(settings: Settings, seed: int, digits: Digits, compute: Compute) -> torch.Tensor:
    """What a run with another seed says of test.csv: probabilities, float32, images x 10."""
    return run(dataclasses.replace(settings, seed=seed), digits, compute).probabilities


def calibrated(said: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The best temperature of probabilities, their cross-entropy there in thousandths, and how far
    confidence lies from accuracy before and after."""
    logits = np.log(np.maximum(said / said.sum(axis=1, keepdims=True), 1e-6))

    def at(temperature: float) -> np.ndarray:
        return torch.from_numpy(logits / temperature).softmax(dim=1).numpy()

    def loss(temperature: float) -> float:
        return -1000 * float(np.log(at(temperature)[np.arange(len(labels)), labels]).mean())

    def apart(temperature: float) -> float:
        answers = HeldOutAnswers(np.arange(len(labels)), labels, at(temperature))
        return 100 * expected_calibration_error(answers)

    best = float(minimize_scalar(loss, bounds=(0.1, 3), method="bounded").x)
    figures = {"loss": loss(best), "temperature": best}
    return figures | {"ece_before": apart(1.0), "ece_after": apart(best)}


def confirmed(presets: list[str], seeds: range, digits: Digits) -> dict[str, Any]:
    """How often presets that learn from four fifths are right on the last one; a look, noted."""
    apart_digits, labels = apart(digits)
    rows = {}
    for preset in presets:
        settings = make_settings(preset, {"validation_fraction": 0.0})
        compute, right = choose_compute(settings), []
        for seed in seeds:
            said = one_run(settings, 1000 * seed, apart_digits, compute)
            right.append((said.argmax(dim=1) == labels).double())
        hits = torch.stack(right)
        of_images = hits.mean(dim=0).std().item() / len(labels) ** 0.5
        of_seeds = hits.mean(dim=1).std().item() / len(seeds) ** 0.5 if len(seeds) > 1 else 0.0
        rows[preset] = {
            "accuracy": hits.mean().item(),
            "error": (of_images**2 + of_seeds**2) ** 0.5,
            "runs": len(seeds),
        }
        if digits.test_labels is None:  # the sample is no competition
            note_look(preset, rows[preset])
        rows[preset]["looks"] = len(LOOKS.read_text().splitlines()) - 1 if LOOKS.exists() else 0
    return {"images": len(labels), "rows": rows}


def note_look(preset: str, row: dict[str, Any]) -> None:
    """Add a look at the confirmation images to the list of them."""
    new = not LOOKS.exists()
    with LOOKS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["date", "preset", "runs", "accuracy", "standard_error"])
        figures = (f"{row['accuracy']:.5f}", f"{row['error']:.5f}")
        writer.writerow([time.strftime("%Y-%m-%d"), preset, row["runs"], *figures])


def judged_table(figures: dict[str, Any]) -> list[str]:
    """A row a kind: against the first one, fold by fold and image by image."""
    lines = [
        f"{figures['images']:,} images, each judged by the one of ten networks that never saw it.",
        "",
        "| | accuracy | wrong, five folds | the other five | loss / 1000 at the best temperature "
        "| calibration error before, after | against the first | McNemar's p | a run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in figures["rows"].items():
        lines.append(
            f"| {name} | {row['accuracy']:.3%} | {row['chosen']} | {row['confirmed']} "
            f"| {row['loss']:.2f} at {row['temperature']:.2f} "
            f"| {row['ece_before']:.2f}, {row['ece_after']:.2f} "
            f"| {row['gap']:+.3f} +- {row['gap_error']:.3f} | {row['mcnemar']:.2f} "
            f"| {row['seconds']:.0f} s |"
        )
    return lines


def confirmed_table(figures: dict[str, Any]) -> list[str]:
    """Accuracies on images that no choice was made on, and how often they were looked at."""
    lines = [
        f"Trained on four fifths, judged on {figures['images']:,} images that no choice looked at.",
        "",
        "| | accuracy | standard error, of images and seeds | runs | looks so far |",
        "|---|---|---|---|---|",
    ]
    for preset, row in figures["rows"].items():
        lines.append(
            f"| {preset} | {row['accuracy']:.3%} | {row['error']:.3%} | {row['runs']} "
            f"| {row['looks']} |"
        )
    return lines
