"""Sets finished runs side by side: their settings, how well they did, and if by chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.basics import InputError
from ..core.results import write_file
from ..runs.results import Results, merged_by_row, read_results
from .figures import NARROW, STYLE, finish_curves, new_figure, png_bytes
from .page import in_words

# Told apart on screen and in print, and by whoever does not see red from green (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
CHANCE = 0.05


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
    """Compare the runs in these folders with the first of them, and draw all their curves to `out`.

    Returns:
        What there is to say, as text for the terminal.

    Raises:
        InputError: fewer than two folders, one that holds no finished run, or an unwritable `out`.
    """
    from matplotlib import rc_context

    if len(folders) < 2:
        raise InputError("one run alone cannot be compared: name two or more")
    runs = [read_results(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    with rc_context(STYLE):
        write_file(out, png_bytes(comparison_figure(runs, names)))
    results, details = [run_results(run) for run in runs], [run_details(run) for run in runs]
    rows = [[name, *(result[name] for result in results)] for name in results[0]]
    for name in dict.fromkeys(name for detail in details for name in detail):
        values = [detail.get(name, "-") for detail in details]
        if len(set(values)) > 1:
            rows.append([name, *values])
    others = zip(runs[1:], names[1:], strict=True)
    verdicts = [verdict(runs[0], run, names[0], name) for run, name in others]
    return "\n".join([*aligned([["", *names], *rows]), "", *verdicts, "", f"curves in {out}"])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def run_results(run: Results) -> dict[str, str]:
    """How a run did, to stand in a column."""
    found, metrics = run.metrics.get("validation"), run.metrics
    return {
        "accuracy": f"{found['accuracy']:.2%}" if found else "none",
        "standard error": f"{found['standard_error']:.2%}" if found else "",
        "images": f"{found['images']:,}" if found else "",
        "epoch": in_words(run.best_epochs),
        "seconds": f"{metrics['seconds']['total']:.0f}",
        "device": str(metrics["device"].get("name")),
    }


def run_details(run: Results) -> dict[str, str]:
    """What a run was made from; the same in all runs, it need not be shown."""
    data, sources = run.metrics["data"].get("digest"), run.metrics.get("source_digest")
    settings = {name: in_words(value) for name, value in run.metrics["settings"].items()}
    return {"data": str(data)[:8], "sources": str(sources)[:8]} | settings


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
    figure = new_figure(2 * NARROW, 4)
    panels = figure.subplots(1, 2)
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for number, (run, name) in enumerate(zip(runs, names, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            for member, rows in run.history.groupby("member"):
                values = rows[f"val_{quantity}"]
                values = values if quantity == "loss" else (1 - values).clip(lower=2e-4)
                label = name if member == run.history["member"].min() else None
                axes.plot(rows["epoch"], values, color=colour, label=label)
            finish_curves(axes, run, quantity, colour)
        axes.set(xlabel="epoch")
    panels[0].set_title("loss on held-out images")
    panels[1].set_title("share of them named wrong")
    panels[0].legend()
    return figure
