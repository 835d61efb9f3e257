"""Settings.

Everything that a result depends on, in one table. Its defaults are the preset `balanced`; the other
presets list what they change. Each field is a command-line flag (`learning_rate` is
`--learning-rate`) and an entry of `metrics.json`. What does not change the result, such as device,
threads and folders, is not a setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def setting(default: Any, meaning: str, low: float = 0, high: float = 1e9, choices=()) -> Any:
    """A field of Settings: default, one line of meaning, smallest and largest value."""
    metadata = {"meaning": meaning, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All settings of a run; `check_settings` refuses wrong values."""

    preset: str = setting("balanced", "the preset that the other settings start from")
    seed: int = setting(0, "seed of weights, order, augmentation and dropout", high=2**63 - 1)
    members: int = setting(1, "networks to train; their probabilities are averaged", 1, 1000)
    # The split
    split_seed: int = setting(0, "seed of the split, fixed so that runs compare", high=2**32 - 1)
    validation_fraction: float = setting(0.1, "fraction held out; 0: train on all", high=0.9)
    split_by_class: bool = setting(True, "hold out the same fraction of every class")
    # Augmentation of training images: random in each batch, the classic fixed copies, or none
    augmentation: str = setting("affine", "kind", choices=("affine", "expanded", "none"))
    rotation: float = setting(10.0, "affine: largest rotation, degrees either way", high=180)
    shift: float = setting(2.8, "affine: largest shift, pixels either way", high=28)
    zoom: float = setting(0.1, "affine: largest zoom, fraction larger or smaller", high=0.99)
    shear: float = setting(10.0, "affine: largest shear, degrees either way", high=80)
    image_sizes: tuple[int, ...] = setting((20, 20, 28), "affine: pixels a side, in turn", 15, 28)
    # The network
    network: str = setting("compact", "the architecture", choices=("compact", "classic"))
    widths: tuple[int, ...] = setting((32, 64, 128), "compact: channels of each stage", 1, 4096)
    depths: tuple[int, ...] = setting((2, 2), "compact: convolutions of stages 2 and 3", 1, 100)
    frozen_layers: int = setting(0, "first layers that learn at the first size only", high=13)
    dropout: float = setting(0.0, "fraction of values dropped in training", high=0.99)
    softmax_head: bool = setting(False, "apply softmax before the loss too, as published")
    # Training
    optimizer: str = setting("muon", "muon (with SGD) or adam", choices=("muon", "adam"))
    learning_rate: float = setting(0.1, "peak, of Adam or of the SGD next to Muon", 1e-9, 1e6)
    muon_learning_rate: float = setting(0.1, "peak, of Muon's convolutions", 1e-9, 1e6)
    momentum: float = setting(0.75, "Nesterov momentum of Muon and its SGD", high=0.999)
    weight_decay: float = setting(5e-4, "L2 penalty, except on Muon's convolutions", high=1e6)
    label_smoothing: float = setting(0.1, "fraction of the target spread evenly", high=0.99)
    schedule: str = setting("one-cycle", "of the learning rate", choices=("one-cycle", "constant"))
    warmup: float = setting(0.25, "one-cycle: fraction of the steps that climb", high=0.99)
    epochs: int = setting(14, "passes through the images; given, minimum_steps is 0", 1)
    minimum_steps: int = setting(400, "more epochs if fewer steps; 0 where epochs are given")
    batch_size: int = setting(256, "images per step", 1)
    piece_size: int = setting(0, "images at once, gradients accumulated; 0: the whole batch")
    patience: int = setting(0, "stop after N epochs without a lower loss; 0: never")
    views: int = setting(3, "test-time augmentation: plain, shifted, rotated, zoomed", 1, 7)
    precision: str = setting("auto", "dtype", choices=("auto", "float32", "bfloat16", "float16"))


PRESETS = {
    # Half the channels, smaller first images and 3 epochs: a twentieth of the time of `balanced`.
    "fast": Settings(
        preset="fast",
        widths=(16, 32, 64),
        depths=(1, 2),
        image_sizes=(16, 20, 28),
        frozen_layers=3,
        epochs=3,
    ),
    "balanced": Settings(),
    # Of 67,200 hidden digits a member misclassifies 284, four 261, and ten of 14 epochs, in three
    # times the time, 249. Each holds out another fortieth of the images.
    "best": Settings(preset="best", members=4, views=7, validation_fraction=0.025, epochs=10),
    # For a GPU: by arithmetic about a quarter of an hour on two T4. Never measured.
    "record": Settings(
        preset="record",
        members=20,
        views=7,
        validation_fraction=0.025,
        epochs=30,
        widths=(48, 96, 192),
    ),
    # The published recipe, field by field.
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
        piece_size=256,  # the same step, in pieces that fit a CPU's caches
        views=1,
        precision="float32",
    ),
}


def make_settings(preset: str, changes: Mapping[str, Any]) -> Settings:
    """A preset with some fields changed; InputError for a wrong name or value."""
    from .checks import check_names, check_settings

    check_names(preset, changes)
    # Whoever asks for N epochs gets N, also with few images.
    fewer_steps = {"minimum_steps": 0} if "epochs" in changes else {}
    changed = dataclasses.replace(PRESETS[preset], **(fewer_steps | dict(changes)))
    return check_settings(changed)


def derive_member_settings(settings: Settings, number: int) -> Settings:
    """The settings of a run's member, numbered from 1: it has a seed of its own."""
    return dataclasses.replace(settings, seed=(settings.seed + number - 1) % 2**63)
