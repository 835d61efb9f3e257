"""Sets finished runs side by side: their settings, how well they did, and if by chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.basics import InputError
from ..core.results import write_file
from ..runs.results import Results, merged_by_row, read_results
from .figures import STYLE, WIDE, new_axes, rendered, show_errors

CHANCE = 0.05
ACCURACY = "accuracy (standard error)"


def mcnemar(right: np.ndarray, right_too: np.ndarray) -> tuple[int, int, float]:
    """How many images only the one has right, how many only the other, and if that is chance.

    The images on which both are right, or both wrong, say nothing; of the rest, equally good ones
    would win half each: the last number is how likely so uneven a split is then. McNemar: Note on
    the sampling error of the difference between correlated proportions (1947); exact, by the
    binomial distribution.
    """
    from scipy.stats import binomtest

    only_one, only_other = int((right & ~right_too).sum()), int((right_too & ~right).sum())
    uneven = only_one + only_other
    return only_one, only_other, float(binomtest(only_one, uneven).pvalue) if uneven else 1.0


def compare_runs(folders: Sequence[Path], out: Path) -> str:
    """Compare runs with the first of them, in words, and draw all their curves to `out`.

    InputError: fewer than two folders, one that holds no finished run, or an unwritable `out`.
    """
    import pandas as pd
    from matplotlib import style

    if len(folders) < 2:
        raise InputError("one run alone cannot be compared: name two or more")
    runs = [read_results(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    with style.context(["tableau-colorblind10", STYLE]):
        write_file(out, rendered(comparison_figure(runs, names)))
    table = pd.DataFrame([described(run) for run in runs], index=names).T.fillna("-")
    differing = table[(table.index == ACCURACY) | (table.nunique(axis=1) > 1)]
    others = zip(runs[1:], names[1:], strict=True)
    verdicts = [verdict(runs[0], run, names[0], name) for run, name in others]
    return "\n".join([differing.to_string(), "", *verdicts, "", f"curves in {out}"])


def described(run: Results) -> dict[str, str]:
    """How a run did and what it was made from, to stand in a column."""
    metrics, accuracy = run.metrics, "none"
    if found := metrics.get("validation"):
        shares = f"{found['accuracy']:.2%} ({found['standard_error']:.2%})"
        accuracy = f"{shares} of {found['images']:,}"
    values = {
        ACCURACY: accuracy,
        "epoch": metrics["best_epoch"],
        "seconds": round(metrics["seconds"]["total"]),
        "device": metrics["device"].get("name"),
        "data": str(metrics["data"].get("digest"))[:8],
        "sources": str(metrics.get("source_digest"))[:8],
    }
    return {name: str(value) for name, value in (values | metrics["settings"]).items()}


def verdict(first: Results, second: Results, first_name: str, second_name: str) -> str:
    """Whether the second run differs from the first by more than chance, in one line."""
    pair = f"{second_name} against {first_name}:"
    if first.metrics["data"].get("digest") != second.metrics["data"].get("digest"):
        return f"{pair} other data, so their images cannot be compared one by one"
    rows: Any = []
    if first.held_out and second.held_out:
        one, other = merged_by_row(first.held_out), merged_by_row(second.held_out)
        rows, in_one, in_other = np.intersect1d(one.row, other.row, return_indices=True)
    if not len(rows):
        return f"{pair} no common validation images, so only the accuracies can be compared"
    only_first, only_second, p_value = mcnemar(one.right[in_one], other.right[in_other])
    judged = "more than chance" if p_value < CHANCE else "no more than chance would give"
    return (
        f"{pair} on {len(rows):,} common images {only_second:,} right only in {second_name}, "
        f"{only_first:,} only in {first_name}: {judged} (McNemar's exact test, p = {p_value:.2g})"
    )


def comparison_figure(runs: Sequence[Results], names: Sequence[str]) -> Any:
    """Validation of all runs over their epochs."""
    losses, errors = new_axes(WIDE, 4, columns=2)
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        for member in np.unique(run.history["member"]):
            rows = run.history[run.history["member"] == member]
            label = name if member == run.history["member"].min() else None
            losses.plot(rows["epoch"], rows["val_loss"], f"C{number}", label=label)
            wrong = (1 - rows["val_accuracy"]).clip(min=2e-4)
            errors.plot(rows["epoch"], wrong, f"C{number}")
    losses.set(title="loss on held-out images", xlabel="epoch")
    errors.set(title="share of them named wrong", xlabel="epoch")
    show_errors(errors)
    losses.legend()
    return losses.figure
