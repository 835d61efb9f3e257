"""What a run depends on: one frozen dataclass, and the presets, which are values of it.

Every field is a flag of the command line (`learning_rate` is `--learning-rate`) and a row of
`metrics.json`. What does not change the result on one machine (device, threads, paths, verbosity)
is no setting.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InputError

VERSION = "0.1.0"


def setting(default: Any, meaning: str, *, within: str = "", choices: tuple[str, ...] = ()) -> Any:
    """A field of Settings: default, one line of meaning, and the interval or choices allowed.

    The interval is written as in a textbook, `(0, 1]`; the type is that of the default.
    """
    metadata = {"meaning": meaning, "within": within, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All settings of a run; wrong values raise InputError when the object is made."""

    preset: str = setting("balanced", "the preset that the other settings start from")
    seed: int = setting(0, "seed of weights, order, augmentation and dropout", within="[0, 2**63)")
    members: int = setting(
        1, "networks trained, whose probabilities are averaged", within="[1, 1000]"
    )

    # The split
    split_seed: int = setting(
        0, "seed of the split, fixed so that runs compare", within="[0, 2**32)"
    )
    validation_fraction: float = setting(0.1, "share of the images held out", within="(0, 1)")
    split_by_class: bool = setting(True, "hold out the same share of every class")

    # Augmentation, of training images only
    augmentation: str = setting(
        "affine",
        "affine: random for each batch; expanded: the classic seven-fold set; none",
        choices=("affine", "expanded", "none"),
    )
    rotation: float = setting(10.0, "affine: up to so many degrees either way", within="[0, 180]")
    shift: float = setting(2.8, "affine: up to so many pixels each way", within="[0, 28]")
    zoom: float = setting(0.1, "affine: up to such a part larger or smaller", within="[0, 1)")
    shear: float = setting(10.0, "affine: up to so many degrees of lean", within="[0, 80]")

    image_sizes: tuple[int, ...] = setting(
        (28,), "affine: pixels a side, each for an equal share of the training", within="[8, 28]"
    )

    # The network
    network: str = setting("compact", "the architecture", choices=("compact", "classic"))
    digit_widths: tuple[int, ...] = setting(
        (0,),
        "members in turn see digits upright and so many pixels wide (by moments); 0 as they stand",
        within="[0, 28]",
    )
    widths: tuple[int, ...] = setting(
        (32, 64, 128), "compact: channels of its three stages", within="[1, 4096]"
    )
    depths: tuple[int, ...] = setting(
        (2, 2), "compact: convolutions of its second and third stage", within="[1, 100]"
    )
    dropout: float = setting(0.0, "share of values dropped in training", within="[0, 1)")
    softmax_head: bool = setting(
        False, "feed softmax, not logits, to the loss, as the published recipe did"
    )

    # Training
    optimizer: str = setting(
        "muon", "muon: on inner convolutions, with SGD on the rest; adam", choices=("muon", "adam")
    )
    learning_rate: float = setting(
        0.1, "of Adam, or of SGD beside Muon; the peak", within="(0, 1e6]"
    )
    muon_learning_rate: float = setting(0.1, "of Muon's convolutions; the peak", within="(0, 1e6]")
    momentum: float = setting(0.6, "of Muon and its SGD, Nesterov's", within="[0, 1)")
    weight_decay: float = setting(5e-4, "L2 penalty, not on Muon's part", within="[0, 1e6]")
    label_smoothing: float = setting(0.1, "share of the target spread evenly", within="[0, 1)")
    schedule: str = setting(
        "one-cycle", "of the learning rate over steps", choices=("one-cycle", "constant")
    )
    warmup: float = setting(0.25, "one-cycle: share of the steps that climb", within="[0, 1)")
    epochs: int = setting(8, "times through the training images", within="[1, 1e9]")
    minimum_steps: int = setting(
        0, "more epochs, if so many steps need them: for small data", within="[0, 1e9]"
    )
    batch_size: int = setting(256, "images a step", within="[1, 1e9]")
    piece_size: int = setting(
        0, "images at once, a batch's gradients adding up; 0 is the whole batch", within="[0, 1e9]"
    )
    patience: int = setting(
        0,
        "stop after so many epochs without a lower validation loss; 0 is never",
        within="[0, 1e9]",
    )
    refit: bool = setting(
        False, "then train anew on all images, for as many epochs as validation found best"
    )
    views: int = setting(
        7, "views averaged at prediction: as it is, shifted, turned, zoomed", within="[1, 7]"
    )
    precision: str = setting(
        "auto",
        "numbers of the network's arithmetic; auto: the fastest the device has",
        choices=("auto", "float32", "bfloat16", "float16"),
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = checked_value(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if self.network == "compact" and len(self.widths) != 3:
            raise InputError(f"widths {self.widths}: the compact network has three stages")
        if self.network == "compact" and len(self.depths) != 2:
            raise InputError(f"depths {self.depths}: the compact network has two deep stages")
        if self.augmentation != "affine" and set(self.image_sizes) != {28}:
            raise InputError(
                f"image_sizes {self.image_sizes}: only affine augmentation changes sizes"
            )

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, as JSON has them."""
        values = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


def checked_value(field: dataclasses.Field[Any], value: Any) -> Any:
    """`value` in the field's own type, or InputError saying what the field takes."""
    name, default = field.name, field.default
    choices, within = field.metadata["choices"], field.metadata["within"]
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not value:
            raise InputError(f"{name} is a list of whole numbers, not {value!r}")
        return tuple(_checked_number(name, item, int, within) for item in value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"{name} is true or false, not {value!r}")
        return value
    if isinstance(default, str):
        if not isinstance(value, str):
            raise InputError(f"{name} is a word, not {value!r}")
        if choices and value not in choices:
            raise InputError(f"{name} is one of {', '.join(choices)}, not {value!r}")
        return value
    return _checked_number(name, value, type(default), within)


def _checked_number(name: str, value: Any, kind: type, within: str) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not (kind is float and isinstance(value, float)):
        noun = "whole number" if kind is int else "number"
        raise InputError(f"{name} is a {noun}, not {value!r}")
    low, high = within[1:-1].split(",")
    above = value >= _bound(low) if within[0] == "[" else value > _bound(low)
    below = value <= _bound(high) if within[-1] == "]" else value < _bound(high)
    if not (above and below):
        raise InputError(f"{name} {value} is outside {within}")
    return kind(value)


def _bound(text: str) -> float:
    base, _, power = text.strip().partition("**")
    return math.inf if base == "inf" else float(base) ** float(power or 1)


PRESETS = {
    "fast": Settings(
        preset="fast",
        image_sizes=(16, 20, 28),
        widths=(16, 32, 64),
        depths=(1, 2),
        epochs=3,
        minimum_steps=400,
        views=3,
    ),
    "balanced": Settings(
        preset="balanced",
        image_sizes=(20, 20, 28),
        widths=(32, 64, 128),
        depths=(2, 2),
        epochs=10,
        minimum_steps=400,
        views=3,
    ),
    "best": Settings(
        preset="best",
        image_sizes=(20, 20, 28),
        widths=(32, 64, 128),
        depths=(2, 2),
        epochs=10,
        minimum_steps=400,
        members=10,
        digit_widths=(0, 8, 0, 11),
    ),
    "classic": Settings(
        preset="classic",
        validation_fraction=0.25,
        split_by_class=False,
        augmentation="expanded",
        network="classic",
        dropout=0.5,
        softmax_head=True,
        optimizer="adam",
        learning_rate=2e-4,
        weight_decay=0.0,
        label_smoothing=0.0,
        schedule="constant",
        epochs=150,
        batch_size=4096,
        piece_size=256,
        views=1,
        precision="float32",
    ),
}


def preset_settings(name: str) -> Settings:
    """The preset of that name.

    Raises:
        InputError: there is none; names those there are.
    """
    if name not in PRESETS:
        raise InputError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def member_settings(settings: Settings, number: int) -> Settings:
    """The settings of one of a run's members, from 1: its own seed, its own width of digits first.

    Member 1 has those of the run.
    """
    turn = (number - 1) % len(settings.digit_widths)
    return dataclasses.replace(
        settings,
        seed=(settings.seed + number - 1) % 2**63,
        digit_widths=settings.digit_widths[turn:] + settings.digit_widths[:turn],
    )


def recorded_settings(values: Mapping[str, Any]) -> Settings:
    """The settings that a run left in `metrics.json`, whatever version of this made it.

    Fields that are not known here are left out, those that were not known there are at their
    defaults.

    Raises:
        InputError: a value is not allowed here.
    """
    known = [field.name for field in dataclasses.fields(Settings)]
    return Settings(**{name: values[name] for name in known if name in values})


def make_settings(preset: str, changes: Mapping[str, Any]) -> Settings:
    """A preset with some fields changed; whoever sets epochs gets them, whatever minimum_steps.

    Raises:
        InputError: the preset or a field does not exist, or a value is not allowed.
    """
    known = {field.name for field in dataclasses.fields(Settings)} - {"preset"}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise InputError(
            f"there is no setting {unknown[0]!r}: choose among {', '.join(sorted(known))}"
        )
    changes = dict(changes)
    if "epochs" in changes:
        changes.setdefault("minimum_steps", 0)
    return dataclasses.replace(preset_settings(preset), **changes)
