"""Settings.

Everything that a run depends on stands in one table, with the values of `balanced`; the presets say
in what they differ, side by side.
Every field is a flag of the command line (`learning_rate` is `--learning-rate`) and an entry of
`metrics.json`; what does not change the result (device, threads, folders) is no setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .basics import IMAGE_SIZE, InputError


def setting(default: Any, meaning: str, low: float = 0, high: float = 1e9, choices=()) -> Any:
    """A field of Settings: default, one line of meaning, and the least and greatest value."""
    metadata = {"meaning": meaning, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All settings of a run; wrong values raise InputError when the object is made."""

    preset: str = setting("balanced", "the preset that the other settings start from")
    seed: int = setting(0, "of weights, order, augmentation and dropout", high=2**63 - 1)
    members: int = setting(1, "networks trained, whose probabilities are averaged", 1, 1000)
    learn_from_test: bool = setting(False, "a second round learns from the test's pixels, too")
    # The split
    split_seed: int = setting(0, "of the split, fixed so that runs compare", high=2**32 - 1)
    validation_fraction: float = setting(0.1, "share held out; 0: train on all images", high=0.9)
    split_by_class: bool = setting(True, "hold out the same share of every class")
    # Augmentation of training images: random for each batch, the classic seven-fold set, or none
    augmentation: str = setting("affine", "of images", choices=("affine", "expanded", "none"))
    rotation: float = setting(10.0, "affine: up to so many degrees either way", high=180)
    shift: float = setting(2.8, "affine: up to so many pixels each way", high=28)
    zoom: float = setting(0.1, "affine: up to such a part larger or smaller", high=0.99)
    shear: float = setting(10.0, "affine: up to so many degrees of lean", high=80)
    erasing: tuple[int, ...] = setting((0,), "affine: squares of so many pixels, by member", 0, 28)
    image_sizes: tuple[int, ...] = setting((20, 20, 28), "affine: pixels a side, in turn", 15, 28)
    # The network
    network: str = setting("compact", "the architecture", choices=("compact", "classic"))
    widths: tuple[int, ...] = setting((32, 64, 128), "compact: channels a stage", 1, 4096)
    depths: tuple[int, ...] = setting((2, 2), "compact: convolutions of stages 2 and 3", 1, 100)
    dropout: float = setting(0.0, "share of values dropped in training", high=0.99)
    softmax_head: bool = setting(False, "feed softmax, not logits, to the loss, as published")
    # Training
    optimizer: str = setting("muon", "muon (beside SGD), or adam", choices=("muon", "adam"))
    learning_rate: float = setting(0.1, "of Adam, or of SGD beside Muon; the peak", 1e-9, 1e6)
    muon_learning_rate: float = setting(0.1, "of Muon's convolutions; the peak", 1e-9, 1e6)
    momentum: float = setting(0.75, "of Muon and its SGD, Nesterov's", high=0.999)
    weight_decay: float = setting(5e-4, "L2 penalty, not on Muon's part", high=1e6)
    label_smoothing: float = setting(0.1, "share of the target spread evenly", high=0.99)
    schedule: str = setting("one-cycle", "of the rate", choices=("one-cycle", "constant"))
    warmup: float = setting(0.25, "one-cycle: share of the steps that climb", high=0.99)
    epochs: int = setting(14, "times through the training images", 1)
    minimum_steps: int = setting(400, "more epochs, if so many steps need them: for few images")
    batch_size: int = setting(256, "images a step", 1)
    piece_size: int = setting(0, "images at once, gradients adding up; 0: the whole batch")
    patience: int = setting(0, "stop after so many epochs without a lower loss; 0: never")
    views: int = setting(3, "views averaged at prediction: plain, shifted, turned, zoomed", 1, 7)
    precision: str = setting("auto", "numbers", choices=("auto", "float32", "bfloat16", "float16"))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))
        if self.network == "compact" and (len(self.widths), len(self.depths)) != (3, 2):
            raise InputError("the compact network has three widths and two depths")
        if self.augmentation != "affine" and set(self.image_sizes) != {IMAGE_SIZE}:
            raise InputError(f"image_sizes {self.image_sizes}: only affine changes sizes")
        if self.patience and not self.validation_fraction:
            raise InputError("patience needs held-out images: a validation_fraction above 0")


def checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """`value` in the field's own type, or InputError saying what the field takes."""
    kind, choices = type(field.default), field.metadata["choices"]
    low, high = field.metadata["low"], field.metadata["high"]
    items = list(value) if isinstance(value, list | tuple) and kind is tuple else [value]
    item_kind = int if kind is tuple else kind
    right = [type(item) is item_kind or (kind is float and type(item) is int) for item in items]
    if not items or not all(right):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        raise InputError(f"{field.name} is {names.get(kind, 'whole numbers')}, not {value!r}")
    if choices and value not in choices:
        raise InputError(f"{field.name} is {' or '.join(choices)}, not {value!r}")
    if item_kind in (int, float) and not all(low <= item <= high for item in items):  # nor NaN
        raise InputError(f"{field.name} {value} is outside {low:g} to {high:g}")
    return tuple(items) if kind is tuple else kind(value)


# Each member holds out another fortieth. Every other one erases squares, and is wrong about others
# for it: of 50,400 digits two of one kind have 168 wrong together, two of both 159.
ENSEMBLE = {"members": 10, "views": 7, "erasing": (0, 7), "validation_fraction": 0.025}
PRESETS = {
    "fast": Settings(
        preset="fast", widths=(16, 32, 64), depths=(1, 2), image_sizes=(16, 20, 28), epochs=3
    ),
    "balanced": Settings(),
    "best": Settings(preset="best", **ENSEMBLE),
    # For the hours of a GPU; on two T4 about a quarter of one.
    "record": Settings(
        **ENSEMBLE | {"preset": "record", "members": 20, "epochs": 30, "widths": (48, 96, 192)}
    ),
    "classic": Settings(
        preset="classic",
        validation_fraction=0.25,
        split_by_class=False,
        augmentation="expanded",
        image_sizes=(28,),
        network="classic",
        dropout=0.5,
        softmax_head=True,
        optimizer="adam",
        learning_rate=2e-4,
        weight_decay=0.0,
        label_smoothing=0.0,
        schedule="constant",
        epochs=150,
        minimum_steps=0,
        batch_size=4096,
        piece_size=256,
        views=1,
        precision="float32",
    ),
}


def make_settings(preset: str, changes: Mapping[str, Any]) -> Settings:
    """A preset with some fields changed; InputError for a name or a value that is not allowed."""
    if preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    known = {field.name for field in dataclasses.fields(Settings)} - {"preset"}
    if unknown := sorted(set(changes) - known):
        raise InputError(
            f"there is no setting {unknown[0]!r}: known are {', '.join(sorted(known))}"
        )
    fewer_steps = {"minimum_steps": 0} if "epochs" in changes else {}  # who sets epochs gets them
    return dataclasses.replace(PRESETS[preset], **(fewer_steps | dict(changes)))


def member_settings(settings: Settings, number: int) -> Settings:
    """The settings of a run's member, from 1: its own seed, what it erases alone."""
    erasing = settings.erasing[(number - 1) % len(settings.erasing)]
    seed = (settings.seed + number - 1) % 2**63
    return dataclasses.replace(settings, seed=seed, erasing=(erasing,))
