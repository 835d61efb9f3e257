"""Checking settings.

A wrong value ends the run before it starts, with what the setting takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from .basics import IMAGE_SIZE, InputError
from .settings import PRESETS, Settings


def check_names(preset: str, changes: Iterable[str]) -> None:
    """InputError for a preset or a setting that does not exist."""
    if preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    known = {field.name for field in dataclasses.fields(Settings)} - {"preset"}
    if unknown := sorted(set(changes) - known):
        names = ", ".join(sorted(known))
        raise InputError(f"there is no setting {unknown[0]!r}: choose from {names}")


def check_settings(settings: Settings) -> Settings:
    """The settings with every value in its own type; InputError for one that is wrong."""
    fields = dataclasses.fields(settings)
    checked = {field.name: check_value(field, getattr(settings, field.name)) for field in fields}
    settings = dataclasses.replace(settings, **checked)
    stages = len(settings.widths), len(settings.depths)
    if settings.network != "classic" and stages != (3, 2):
        raise InputError(
            f"the network has three widths and two depths, not {stages[0]} and {stages[1]}"
        )
    if set(settings.image_sizes) != {IMAGE_SIZE}:
        if settings.augmentation != "affine":
            raise InputError(f"image_sizes {settings.image_sizes}: only affine changes sizes")
        if settings.network == "classic":
            raise InputError(f"image_sizes {settings.image_sizes}: the classic network takes 28")
    if settings.patience and not settings.validation_fraction:
        raise InputError("patience needs held-out images: a validation_fraction above 0")
    return settings


def check_value(field: dataclasses.Field[Any], value: Any) -> Any:
    """`value` in the field's own type, or InputError that says what the field takes."""
    kind, choices = type(field.default), field.metadata["choices"]
    low, high = field.metadata["low"], field.metadata["high"]
    # numpy's arrays and scalars, which grid searches pass, become lists and numbers.
    value = value.tolist() if hasattr(value, "tolist") else value
    items = list(value) if isinstance(value, list | tuple) and kind is tuple else [value]
    items = [item.tolist() if hasattr(item, "tolist") else item for item in items]
    item_kind = int if kind is tuple else kind
    # The type itself, not isinstance: True is an int to Python, but not a number of epochs.
    fits = [type(item) is item_kind or (kind is float and type(item) is int) for item in items]
    if not items or not all(fits):
        names = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}
        raise InputError(f"{field.name} is {names.get(kind, 'integers')}, not {value!r}")
    if choices and value not in choices:
        raise InputError(f"{field.name} is {' or '.join(choices)}, not {value!r}")
    if item_kind in (int, float) and not all(low <= item <= high for item in items):  # nor NaN
        raise InputError(f"{field.name} {value} is outside {low:g} to {high:g}")
    return tuple(items) if kind is tuple else kind(value)
