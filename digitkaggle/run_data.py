"""Finds again the digits that a run was made from, for whoever wants to look at them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .data import DataSource, Digits, files_source
from .errors import InputError
from .locations import find_data
from .sample import SAMPLE_SOURCE


def digits_of_run(
    metrics: Mapping[str, Any], named: Path | None = None, *, progress_bar: bool = False
) -> tuple[Digits | None, str]:
    """The very digits that a run learned from and predicted.

    They are looked for where the run found them, then where a run today would; their digest says
    whether they are the same.

    Args:
        metrics: the run's.
        named: where they are now, if somebody knows better.
        progress_bar: show one while reading.

    Returns:
        The digits and an empty text, or None and why they could not be had.

    Raises:
        InputError: what was named is missing or damaged, or holds other digits.
    """
    digest = metrics["data"].get("digest")
    if named is not None:
        digits = files_source(named, progress_bar=progress_bar).read()
        if digits.digest() != digest:
            raise InputError(f"{named} holds other digits than those of the run: name its data")
        return digits, ""
    for source in _likely_sources(str(metrics["data"].get("origin")), progress_bar):
        try:
            digits = source.read()
        except InputError:
            continue
        if digits.digest() == digest:
            return digits, ""
    return None, (
        f"the run's data are not in {metrics['data'].get('origin')} any more, so images are left "
        "out: name the data by --data"
    )


def _likely_sources(origin: str, progress_bar: bool) -> list[DataSource]:
    if origin == SAMPLE_SOURCE.origin:
        return [SAMPLE_SOURCE]
    places = dict.fromkeys([Path(origin), find_data()])
    return [
        files_source(place, progress_bar=progress_bar)
        for place in places
        if place is not None and place.exists()
    ]
