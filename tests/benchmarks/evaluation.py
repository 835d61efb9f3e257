"""Evaluate variants on all images out of fold, and presets on a fifth that no choice used."""

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
from digitkaggle.core.folds import split_fold
from digitkaggle.core.main import OneLineParser, add_run_arguments, settings_from_args
from digitkaggle.core.results import HeldOutPredictions
from digitkaggle.core.run import run
from digitkaggle.core.settings import Settings, make_settings
from digitkaggle.report.figures import compute_calibration_error

FOLDS, CONFIRMATION_SEED = 10, 2026
# A line for every evaluation on the confirmation images, kept for good.
CONFIRMATIONS = Path("docs/confirmation.csv")


def split_off_confirmation(digits: Digits) -> tuple[Digits, torch.Tensor]:
    """The four fifths that choices may use, with the last fifth as test images, and its labels."""
    images, labels = digits.train_images, digits.train_labels
    # By scikit-learn, with this seed, for good: another split would contain images that choices
    # have used already.
    rows, last = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=CONFIRMATION_SEED
    )
    rows, last = torch.from_numpy(rows), torch.from_numpy(last)
    return Digits(images[rows], labels[rows], images[last]), labels[last]


def evaluate_kinds(kinds: list[str], digits: Digits, folder: Path) -> dict[str, Any]:
    """Evaluate kinds out of fold: each is `name: flags of a run`, or `one+another`, their mean.

    The probabilities of each kind are kept in the folder, float16, images x 10, and reused.
    """
    labels, probabilities, seconds = digits.train_labels.numpy(), {}, {}
    for kind in kinds:
        name, _, flags = kind.partition(":")
        if "+" in name:
            probabilities[name] = sum(probabilities[part] for part in name.split("+"))
        else:
            probabilities[name], seconds[name] = predict_out_of_fold(name, flags, digits, folder)
    folds = [split_fold(digits.train_labels, FOLDS, n, 0, by_class=True)[1] for n in range(FOLDS)]
    in_even_fold = np.isin(np.arange(len(labels)), torch.cat(folds[::2]).numpy())
    first, rows = next(iter(probabilities)), {}
    errors_of_first = probabilities[first].argmax(axis=1) != labels
    for name, predicted in probabilities.items():
        errors = predicted.argmax(axis=1) != labels
        gaps = [100.0 * (errors_of_first[fold].mean() - errors[fold].mean()) for fold in folds]
        worse = int((errors & ~errors_of_first).sum())
        better = int((errors_of_first & ~errors).sum())
        rows[name] = {
            "accuracy": 1 - errors.mean(),
            "errors_in_even_folds": int(errors[in_even_fold].sum()),
            "errors_in_odd_folds": int(errors[~in_even_fold].sum()),
            **measure_calibration(predicted, labels),
            "gap": float(np.mean(gaps)),
            "gap_error": float(np.std(gaps, ddof=1) / FOLDS**0.5),
            "mcnemar": binomtest(better, better + worse).pvalue if better + worse else 1.0,
            "seconds": seconds.get(name, float("nan")),
        }
    return {"images": len(labels), "rows": rows}


def predict_out_of_fold(
    name: str, flags: str, digits: Digits, folder: Path
) -> tuple[np.ndarray, float]:
    """Probabilities for all images, each fold's by a run on the others; the seconds of a run."""
    parser = OneLineParser()
    add_run_arguments(parser)
    args = parser.parse_args(shlex.split(flags))
    settings = settings_from_args(args, "fast", {"validation_fraction": 0.0})
    compute, file = choose_compute(settings, args.device), folder / f"{name}.npz"
    probabilities = np.full((len(digits.train_labels), 10), np.nan, np.float16)
    seconds = np.zeros(FOLDS)
    if file.exists():
        with np.load(file) as stored:
            probabilities, seconds = stored["probabilities"], stored["seconds"]
    for fold in range(FOLDS):
        rows, held_out = split_fold(digits.train_labels, FOLDS, fold, 0, by_class=True)
        if not np.isnan(probabilities[held_out]).any():
            continue
        images, labels = digits.train_images, digits.train_labels
        part = Digits(images[rows], labels[rows], images[held_out])
        started = time.perf_counter()
        predicted = run_with_seed(settings, 100 + fold, part, compute)
        probabilities[held_out], seconds[fold] = predicted.numpy(), time.perf_counter() - started
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, probabilities=probabilities, seconds=seconds)
    return probabilities.astype(np.float64), float(np.median(seconds))


def run_with_seed(settings: Settings, seed: int, digits: Digits, compute: Compute) -> torch.Tensor:
    """A run's probabilities for the test images, float32, images x 10, with another seed."""
    return run(dataclasses.replace(settings, seed=seed), digits, compute).probabilities


def measure_calibration(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The best temperature of probabilities, and the cross-entropy in thousandths with it.

    Also the expected calibration error in percentage points, before and after.
    """
    total = probabilities.sum(axis=1, keepdims=True)
    logits = torch.from_numpy(np.log(np.maximum(probabilities / total, 1e-6)))
    rows = np.arange(len(labels))

    def apply_temperature(temperature: float) -> np.ndarray:
        return (logits / temperature).softmax(dim=1).numpy()

    def compute_loss(temperature: float) -> float:
        return -1000 * float(np.log(apply_temperature(temperature)[rows, labels]).mean())

    def compute_error(temperature: float) -> float:
        held_out = HeldOutPredictions(rows, labels, apply_temperature(temperature))
        return 100 * compute_calibration_error(held_out)

    best = float(minimize_scalar(compute_loss, bounds=(0.1, 3), method="bounded").x)
    return {
        "loss": compute_loss(best),
        "temperature": best,
        "ece_before": compute_error(1.0),
        "ece_after": compute_error(best),
    }


def confirm(presets: list[str], seeds: range, digits: Digits) -> dict[str, Any]:
    """Accuracies on the last fifth of presets that train on the others; each is recorded."""
    part, labels = split_off_confirmation(digits)
    rows = {}
    for preset in presets:
        settings = make_settings(preset, {"validation_fraction": 0.0})
        compute, correct = choose_compute(settings), []
        for seed in seeds:
            probabilities = run_with_seed(settings, 1000 * seed, part, compute)
            correct.append((probabilities.argmax(dim=1) == labels).double())
        hits = torch.stack(correct)
        of_images = hits.mean(dim=0).std().item() / len(labels) ** 0.5
        of_seeds = hits.mean(dim=1).std().item() / len(seeds) ** 0.5 if len(seeds) > 1 else 0.0
        rows[preset] = {
            "accuracy": hits.mean().item(),
            "error": (of_images**2 + of_seeds**2) ** 0.5,
            "runs": len(seeds),
        }
        if digits.test_labels is None:  # nothing is chosen for the sample
            record_confirmation(preset, rows[preset])
        lines = CONFIRMATIONS.read_text().splitlines() if CONFIRMATIONS.exists() else [""]
        rows[preset]["evaluations"] = len(lines) - 1
    return {"images": len(labels), "rows": rows}


def record_confirmation(preset: str, row: dict[str, Any]) -> None:
    """Add a line about an evaluation on the confirmation images."""
    new = not CONFIRMATIONS.exists()
    with CONFIRMATIONS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["date", "preset", "runs", "accuracy", "standard_error"])
        figures = (f"{row['accuracy']:.5f}", f"{row['error']:.5f}")
        writer.writerow([time.strftime("%Y-%m-%d"), preset, row["runs"], *figures])


def make_kinds_table(figures: dict[str, Any]) -> list[str]:
    """A row for each kind, compared with the first one by fold and by image."""
    lines = [
        f"{figures['images']:,} images, each predicted by the run of ten that did not train on it.",
        "",
        "| | accuracy | errors in even folds | in odd folds | loss / 1000 at the best temperature "
        "| calibration error before, after | difference from the first | McNemar's p | a run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in figures["rows"].items():
        lines.append(
            f"| {name} | {row['accuracy']:.3%} | {row['errors_in_even_folds']} "
            f"| {row['errors_in_odd_folds']} | {row['loss']:.2f} at {row['temperature']:.2f} "
            f"| {row['ece_before']:.2f}, {row['ece_after']:.2f} "
            f"| {row['gap']:+.3f} +- {row['gap_error']:.3f} | {row['mcnemar']:.2f} "
            f"| {row['seconds']:.0f} s |"
        )
    return lines


def make_confirmation_table(figures: dict[str, Any]) -> list[str]:
    """Accuracies on images that no choice used, and the number of evaluations on them."""
    lines = [
        f"Trained on four fifths, evaluated on {figures['images']:,} images that no choice used.",
        "",
        "| | accuracy | standard error, of images and seeds | runs | evaluations so far |",
        "|---|---|---|---|---|",
    ]
    for preset, row in figures["rows"].items():
        lines.append(
            f"| {preset} | {row['accuracy']:.3%} | {row['error']:.3%} | {row['runs']} "
            f"| {row['evaluations']} |"
        )
    return lines
