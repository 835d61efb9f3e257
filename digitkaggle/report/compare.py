"""Sets finished runs side by side: what they were told, how well they did, and if by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.basics import InputError
from ..core.results import write_file
from ..runs.results import Results, merged_by_row, read_results
from .figures import LIGHT, NARROW, dress, empty_figure, png_bytes, spread_near_one

COMPARISON = "compare.png"
# Told apart on screen and in print, and by whoever does not see red from green (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
CHANCE = 0.05


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test of two runs on the images that both held out."""

    images: int
    only_first: int  # right in the first run alone
    only_second: int  # right in the second run alone
    p_value: float  # how likely so uneven a split of those is, were both runs equally good


def mcnemar(first: Results, second: Results) -> PairedTest | None:
    """Whether two runs differ by more than chance on the images that both held out.

    The images on which both are right, or both wrong, tell nothing; of the rest, equally good runs
    would win half each. McNemar: Note on the sampling error of the difference between correlated
    proportions (1947); exact, by the binomial distribution.

    Returns:
        None where no image was held out by both.
    """
    from scipy.stats import binomtest

    if first.held_out is None or second.held_out is None:
        return None
    one, other = merged_by_row(first.held_out), merged_by_row(second.held_out)
    common, in_one, in_other = np.intersect1d(one.row, other.row, return_indices=True)
    if not len(common):
        return None
    right, right_too = one.right[in_one], other.right[in_other]
    only_first, only_second = int((right & ~right_too).sum()), int((right_too & ~right).sum())
    uneven = only_first + only_second
    p_value = float(binomtest(only_first, uneven).pvalue) if uneven else 1.0
    return PairedTest(len(common), only_first, only_second, p_value)


def compare_runs(folders: Sequence[Path], out: Path) -> str:
    """Compare the runs in these folders with the first of them, and draw all their curves to `out`.

    Returns:
        What there is to say, as text for the terminal.

    Raises:
        InputError: fewer than two folders, one that holds no finished run, or an unwritable `out`.
    """
    if len(folders) < 2:
        raise InputError("one run alone cannot be compared: name two or more")
    runs = [read_results(folder) for folder in folders]
    names = _short_names(folders)
    write_file(out, png_bytes(comparison_figure(runs, names)))
    parts = [
        aligned(["", *names], [*_result_rows(runs), *_setting_rows(runs)]),
        *(
            _verdict(runs[0], run, names[0], name)
            for run, name in zip(runs[1:], names[1:], strict=True)
        ),
    ]
    return "\n\n".join([parts[0], "\n".join(parts[1:]), f"curves     {out}"])


def comparison_figure(runs: Sequence[Results], names: Sequence[str]) -> Any:
    """Validation loss and accuracy of all runs over their epochs; dots mark the epochs kept."""
    figure = empty_figure(2.2 * NARROW, 4)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        values = np.concatenate([run.history[f"val_{quantity}"].to_numpy() for run in runs])
        for number, (run, name) in enumerate(zip(runs, names, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            members = [rows for _, rows in run.history.groupby("member")]
            for member, rows in enumerate(members):
                column = rows[f"val_{quantity}"]
                label = name if member == 0 else None
                axes.plot(rows["epoch"], column, color=colour, linewidth=1.3, label=label)
                if member < len(run.best_epochs):
                    kept = rows["epoch"] == run.best_epochs[member]
                    axes.plot(rows["epoch"][kept], column[kept], "o", color=colour, markersize=5)
        if quantity == "accuracy" and np.isfinite(values).any():
            spread_near_one(axes, float(np.nanmin(values)), float(np.nanmax(values)))
        dress(axes, title=f"validation {quantity}", xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].legend(frameon=False, labelcolor=LIGHT["ink"], fontsize=9)
    return figure


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def _result_rows(runs: Sequence[Results]) -> list[list[str]]:
    found = [run.metrics.get("validation") for run in runs]
    rows = [
        ["accuracy", *(f"{100 * part['accuracy']:.2f}%" if part else "none" for part in found)],
        ["+- error", *(f"{100 * part['standard_error']:.2f}%" if part else "" for part in found)],
        ["images", *(f"{part['images']:,}" if part else "" for part in found)],
        ["epoch kept", *(", ".join(map(str, run.best_epochs)) for run in runs)],
        ["seconds", *(f"{run.metrics['seconds']['total']:.0f}" for run in runs)],
        ["device", *(f"{run.metrics['device'].get('name')}" for run in runs)],
    ]
    for part, label in (("data", "data"), ("source_digest", "sources")):
        digests = [_digest(run.metrics.get(part)) for run in runs]
        if len(set(digests)) > 1:
            rows.append([label, *digests])
    return rows


def _digest(part: Any) -> str:
    digest = part.get("digest") if isinstance(part, Mapping) else part
    return str(digest or "unknown")[:8]


def _setting_rows(runs: Sequence[Results]) -> list[list[str]]:
    """The settings that are not the same in all runs."""
    every = [run.metrics["settings"] for run in runs]
    names = dict.fromkeys(name for settings in every for name in settings)
    rows = []
    for name in names:
        values = [_setting_in_words(settings.get(name)) for settings in every]
        if len(set(values)) > 1:
            rows.append([name, *values])
    return rows


def _setting_in_words(value: Any) -> str:
    if value is None:
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _verdict(first: Results, second: Results, first_name: str, second_name: str) -> str:
    """One line on whether the second run differs from the first by more than chance."""
    pair = f"{second_name} against {first_name}:"
    if first.metrics["data"].get("digest") != second.metrics["data"].get("digest"):
        return f"{pair} other data, so their images cannot be compared one by one"
    test = mcnemar(first, second)
    if test is None:
        return f"{pair} no common validation images, so only the accuracies can be compared"
    judged = "more than chance" if test.p_value < CHANCE else "no more than chance would give"
    return (
        f"{pair} on {test.images:,} common images {test.only_second:,} right only in "
        f"{second_name}, {test.only_first:,} only in {first_name}: {judged} "
        f"(McNemar's exact test, p = {test.p_value:.2g})"
    )


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, or as much of their paths as tells them apart."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]
