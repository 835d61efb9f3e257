"""Compare finished runs: their settings, their accuracies, and whether these differ by chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.basics import InputError
from ..core.drawing import STYLE, format_error_axis
from ..core.results import write_file
from ..runs.finished import FinishedRun, average_by_row, read_run
from .figures import WIDE, make_axes, render_png

SIGNIFICANCE_LEVEL = 0.05
ACCURACY = "accuracy (standard error)"


def compute_mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test of two classifiers on the same images.

    From what each classifies correctly, bool, N, to the number of images that only the first
    classifies correctly, the number for the second, and the p-value: the probability of a split at
    least as uneven between equally good classifiers. McNemar, Note on the sampling error of the
    difference between correlated proportions or percentages, 1947.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return only_first, only_second, p_value


def compare_runs(folders: Sequence[Path], out: Path) -> str:
    """Compare runs with the first one: return a table and verdicts, draw all curves to `out`.

    Raises InputError for fewer than two folders, a folder without a finished run, or an `out` that
    cannot be written.
    """
    import pandas as pd
    from matplotlib import style

    if len(folders) < 2:
        raise InputError("one run cannot be compared: name two or more")
    runs = [read_run(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    with style.context(["tableau-colorblind10", STYLE]):
        write_file(out, render_png(plot_comparison(runs, names)))
    table = pd.DataFrame([describe_run(run) for run in runs], index=names).T.fillna("-")
    differing = table[(table.index == ACCURACY) | (table.nunique(axis=1) > 1)]
    others = zip(runs[1:], names[1:], strict=True)
    verdicts = [judge(runs[0], run, names[0], name) for run, name in others]
    return "\n".join([differing.to_string(), "", *verdicts, "", f"curves in {out}"])


def describe_run(run: FinishedRun) -> dict[str, str]:
    """A run's column of the table: its results and settings by name."""
    metrics, accuracy = run.metrics, "none"
    if found := metrics.get("validation"):
        rates = f"{found['accuracy']:.2%} ({found['standard_error']:.2%})"
        accuracy = f"{rates} of {found['images']:,}"
    values = {
        ACCURACY: accuracy,
        "epoch": metrics["best_epoch"],
        "seconds": round(metrics["seconds"]["total"]),
        "device": metrics["device"].get("name"),
        "data": str(metrics["data"].get("digest"))[:8],
        "sources": str(metrics.get("source_digest"))[:8],
    }
    return {name: str(value) for name, value in (values | metrics["settings"]).items()}


def judge(first: FinishedRun, second: FinishedRun, first_name: str, second_name: str) -> str:
    """One line: whether the second run's accuracy differs from the first's by more than chance."""
    pair = f"{second_name} against {first_name}:"
    if first.metrics["data"].get("digest") != second.metrics["data"].get("digest"):
        return f"{pair} other data, so they have no images in common"
    rows: Any = []
    if first.held_out and second.held_out:
        one, other = average_by_row(first.held_out), average_by_row(second.held_out)
        rows, in_one, in_other = np.intersect1d(one.row, other.row, return_indices=True)
    if not len(rows):
        return f"{pair} no common validation images, so only the accuracies can be compared"
    only_first, only_second, p_value = compute_mcnemar(one.correct[in_one], other.correct[in_other])
    verdict = "significant" if p_value < SIGNIFICANCE_LEVEL else "not significant"
    return (
        f"{pair} of {len(rows):,} common images {only_second:,} are correct only in {second_name}, "
        f"{only_first:,} only in {first_name}: {verdict} (McNemar's exact test, p = {p_value:.2g})"
    )


def plot_comparison(runs: Sequence[FinishedRun], names: Sequence[str]) -> Any:
    """Validation loss and error rate of all runs over the epochs."""
    losses, errors = make_axes(WIDE, 4, columns=2)
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        for member in np.unique(run.history["member"]):
            rows = run.history[run.history["member"] == member]
            label = name if member == run.history["member"].min() else None
            losses.plot(rows["epoch"], rows["val_loss"], f"C{number}", label=label)
            error_rate = (1 - rows["val_accuracy"]).clip(min=2e-4)
            errors.plot(rows["epoch"], error_rate, f"C{number}")
    losses.set(title="validation loss", xlabel="epoch")
    errors.set(title="validation error rate", xlabel="epoch")
    format_error_axis(errors)
    losses.legend()
    return losses.figure
