# %% Handwritten digits: from `train.csv` to `submission.csv`
# Load, split, augment, train with early stopping, predict, write. It needs no flags, and on Kaggle it
# finds the competition's data and the GPU by itself.
#
# What it reaches on digits that it never saw: 99.43 % with the preset `fast` (ten runs, 8,400 digits
# that no choice looked at, standard error 0.07) after 6 s of training on two CPU cores, 99.64 % with
# `balanced`, which runs on a CPU unless told otherwise (five splits, spread 0.14), after two minutes.
# On a GPU `best` runs, ten such networks.
#
# Each chapter needs only those above it, so it can be read from top to bottom. In a hurry: what is
# peculiar to digits is in the chapters on augmentation and the network, what makes it fast in those
# on the optimizer and training, and the order of it all in the run.
#
# Made by `make kernel` from digitkaggle/core; change it there.

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm


# %% What everything needs
# The digits, the place to compute, the two errors, the log. Images stay the bytes that they are:
# 42,000 take 33 MB and lie on the device whole, and a batch is a slice of a shuffled index. No
# loader, no workers.

VERSION = "0.3.0"
IMAGE_SIZE = 28  # pixels along a side
CLASSES = 10

logger = logging.getLogger("digitkaggle")
logger.addHandler(logging.NullHandler())  # as a library we stay silent


class InputError(Exception):
    """Wrong use or bad input: one line that says what is wrong, where, and what to do next."""


class TrainingError(InputError):
    """Training cannot go on, for its loss is no number any more."""


@dataclass(frozen=True)
class LabelledImages:
    """Images N x 1 x 28 x 28, uint8 (or float32 from 0 to 1), and int64 labels N.

    To train on, labels may be probabilities, float32, N x 10.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> LabelledImages:
        """The same images and labels on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Digits:
    """The competition's images. Labels of test images are known of the sample alone."""

    train_images: Tensor  # uint8, N x 1 x 28 x 28
    train_labels: Tensor  # int64, N
    test_images: Tensor  # uint8, M x 1 x 28 x 28
    test_labels: Tensor | None = None  # int64, M
    origin: str = ""  # where they came from

    def digest(self) -> str:
        """SHA-256 of all pixels and labels: the same for the same digits, however stored."""
        total = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            if tensor is not None:
                total.update(f"{tuple(tensor.shape)}".encode())
                total.update(tensor.contiguous().numpy().data)
        return total.hexdigest()


@dataclass(frozen=True)
class Compute:
    """Where the network runs, in which numbers its layers count, and why so."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    # Channels last: stored channel by channel, all is slower by up to a third.
    memory_format: torch.memory_format = torch.channels_last
    recorded: bool = False  # whether steps of training are recorded once, and replayed
    warning: str = ""  # why a GPU that should be there is not used

    def autocast(self) -> torch.autocast:
        """Layers inside count in `dtype` where that is safe; weights stay float32."""
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=half)


def keep_freed_memory(keep: bool = True) -> None:
    """Let this process keep the memory that tensors free for the next ones; or give it back."""
    # Else glibc gives a large tensor's pages back to Linux at once, which hands them out again page
    # by page, each filled with zeros: a fifth of the time of training on a CPU.
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems than glibc's
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**30 if keep else 2**17)
        libc.mallopt(mmap_threshold, 2**25)  # the most that it allows
        if not keep:
            libc.malloc_trim(0)


def show_log(level: int = logging.INFO) -> None:
    """Print messages of `level` and above: warnings on standard error, the rest on output."""
    usual, warnings = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    usual.addFilter(lambda record: record.levelno < logging.WARNING)
    warnings.setLevel(logging.WARNING)
    logger.handlers, logger.propagate = [usual, warnings], False
    logger.setLevel(level)


def progress(items: Any = None, **options: Any) -> tqdm:
    """A progress bar, on a terminal only, for what takes over two seconds; TQDM_DISABLE=1: none."""
    hidden = bool(os.environ.get("TQDM_DISABLE")) or None  # None: shown on a terminal only
    return tqdm(items, disable=hidden, **({"leave": False, "delay": 2} | options))


# %% Settings
# Everything that a run depends on stands in one table, with the values of `balanced`; the presets say
# in what they differ, side by side.
# Every field is a flag of the command line (`learning_rate` is `--learning-rate`) and an entry of
# `metrics.json`; what does not change the result (device, threads, folders) is no setting.

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


# %% The split
# A tenth of the images of each class is held out and never trained on. The accuracy on them is the
# only one claimed; its standard error at 99.6 % is 0.1 points on 4,200 images, so a single split
# decides nothing. Several members hold out one fold each, so that together they validate every
# image, each by a network that never saw it.

def member_rows(labels: Tensor, settings: Settings, number: int) -> tuple[Tensor, Tensor]:
    """The rows that a member, from 1, trains on, and those it holds out: all of them, each once."""
    fraction, by_class = settings.validation_fraction, settings.split_by_class
    if fraction == 0:
        return torch.arange(len(labels)), torch.empty(0, dtype=torch.int64)
    if settings.members == 1:
        return split_rows(labels, fraction, settings.split_seed, by_class=by_class)
    folds = max(2, round(1 / fraction))
    # When all folds have had their turn, the images are shuffled anew.
    turn, fold = divmod(number - 1, folds)
    seed = (settings.split_seed + turn) % 2**32
    return fold_rows(labels, folds, fold, seed, by_class=by_class)


def split_rows(
    labels: Tensor, fraction: float, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Rows to train on and a share of them to hold out, at random, of every class the same."""
    images, classes = round(fraction * len(labels)), labels.unique() if by_class else labels[:1]
    if images < len(classes) or images == len(labels):
        raise InputError(f"too few images to hold out {fraction:g} of them (of every class)")
    even_steps = ((torch.arange(images) + 0.5) * (len(labels) / images)).long()
    return parted(labels, even_steps, seed, by_class=by_class)


def fold_rows(
    labels: Tensor, folds: int, fold: int, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Rows outside and inside one fold, from 0, of so many that share the images out evenly."""
    fewest = int(labels.unique(return_counts=True)[1].min()) if by_class else len(labels)
    if fewest < folds:
        raise InputError(f"{folds} folds need as many images (of every class), not {fewest}")
    return parted(labels, torch.arange(fold, len(labels), folds), seed, by_class=by_class)


def parted(labels: Tensor, places: Tensor, seed: int, *, by_class: bool) -> tuple[Tensor, Tensor]:
    """All rows shuffled, but those at the places, and these.

    By class, places are counted class after class, so that even steps take every class's share.
    """
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    counted = labels[rows].argsort(stable=True) if by_class else torch.arange(len(labels))
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[counted[places]] = True
    return rows[~held], rows[held]


# %% Augmentation
# A slightly turned, shifted, zoomed or leaning 7 is still a 7. Each time an image is seen it is
# changed anew, at random, so there is no end of training digits and nothing to learn by heart: 0.07
# points (give or take 0.03) even in the three epochs of `fast`, and half of it would do there.
# With a square erased, now here, now there, a network must learn to tell it by the rest.
#
# It runs on the device, on whole batches: 2.2 us an image on two CPU cores, 13 times faster than
# `scipy` image by image, and 2.8 % of a training step.

def augmented(
    images: Tensor, settings: Settings, generator: torch.Generator, size: int = IMAGE_SIZE
) -> Tensor:
    """A batch as training sees it: each image through a random affine map, some with a hole.

    From float, N x 1 x 28 x 28, to N x 1 x size x size. The generator is on the images' device, so
    that nothing is copied there; draws are even over the ranges of the settings.
    """
    ranges = (settings.rotation, settings.shift, settings.zoom, settings.shear)
    if settings.augmentation != "affine":
        return images
    if any(ranges) or size != images.shape[-1]:
        draws = torch.rand(len(images), 5, generator=generator, device=images.device) * 2 - 1
        matrices = affine_matrices(
            rotation=draws[:, 0] * settings.rotation,
            shift=draws[:, 1:3] * settings.shift,
            zoom=draws[:, 3] * settings.zoom + 1,
            shear=draws[:, 4] * settings.shear,
        )
        images = apply_affine(images, matrices, size)
    return erased(images, settings.erasing[0], generator) if settings.erasing[0] else images


def erased(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Half of the images with a square of `side` pixels of 28 blanked, anywhere, at random
    (Zhong et al., Random erasing data augmentation, 2017); float, N x 1 x size x size."""
    draws = torch.rand(len(images), 3, generator=generator, device=images.device)
    centres = draws[:, :2, None] * 2 - 1  # N x 2 x 1, between the image's edges, -1 and 1
    near = (centres - pixel_centres(images.shape[-1], images.device)).abs() < side / IMAGE_SIZE
    square = near[:, 0, None, :] & near[:, 1, :, None] & (draws[:, 2, None, None] < 0.5)
    return images.masked_fill(square[:, None], 0)


def affine_matrices(rotation: Tensor, shift: Tensor, zoom: Tensor, shear: Tensor) -> Tensor:
    """The maps that turn (degrees, counter-clockwise), shift (N x 2, pixels of 28 to the right and
    down), zoom (a factor) and shear (degrees to the right) a digit about the middle of its image.

    N x 2 x 3: from a place in the result to the place in the source that it shows, -1 to 1 across.
    """
    angle = rotation * (math.pi / 180)
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    lean = torch.tan(shear * (math.pi / 180))
    # Source = lean back (turn back (shrink back (result - shift))).
    of_x = torch.stack([cosine + lean * sine, lean * cosine - sine], dim=1)
    linear = torch.stack([of_x, torch.stack([sine, cosine], dim=1)], dim=1)
    offset = -linear @ (shift * (2 / IMAGE_SIZE)).unsqueeze(2)
    return torch.cat([linear, offset], dim=2)


def apply_affine(images: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Each image through its own map, bilinear, zeros outside.

    From N x 1 x H x W to N x 1 x size x size, which show all of the image, smaller or not.
    """
    centres = pixel_centres(size, images.device)
    # All pixels of a column share one product, all of a row another: 1.1 us an image, where
    # functional.affine_grid, which multiplies matrices for every pixel, takes 8.4.
    of_rows = matrices[:, :, 1, None] * centres + matrices[:, :, 2, None]
    planes = torch.addcmul(of_rows[..., None], matrices[:, :, 0, None, None], centres)
    grid = planes.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)


def pixel_centres(size: int, device: torch.device) -> Tensor:
    """Where the middles of `size` pixels lie between the image's edges, -1 and 1."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


# %% The published recipe
# What this grew out of, kept faithfully as the preset `classic`: every image seven times, made once
# before training, and a network of two wide convolutions with much dropout. 99.4 % on Kaggle, in a
# day and more on two CPU cores, so this chapter is history; ours come next.

# The original, four shifts in pixels (down, right), two rotations in degrees.
CLASSIC_SHIFTS, CLASSIC_ROTATIONS = ((0, -1), (0, 1), (-1, 0), (1, 0)), (-10, 10)
CLASSIC_COPIES = 1 + len(CLASSIC_SHIFTS) + len(CLASSIC_ROTATIONS)


def classic_expanded_set(images: Tensor) -> Tensor:
    """Every image seven times: as it is, shifted by one pixel four ways, rotated by -10 and +10.

    The copies lie one whole set after another, so labels go with them by `labels.repeat(7)`.
    From uint8, N x 1 x 28 x 28, to float32, 7N x 1 x 28 x 28, about 0 to 1: the recipe never
    clipped what splines of order 3 overshoot.
    """
    from scipy import ndimage

    pixels = images.squeeze(1).numpy().astype(np.float32) / np.float32(255)
    expanded = np.empty((CLASSIC_COPIES, *pixels.shape), dtype=np.float32)
    expanded[0] = pixels
    copies = iter(progress(expanded[1:], desc="augmenting"))
    for down, right in CLASSIC_SHIFTS:
        ndimage.shift(pixels, (0, down, right), output=next(copies), order=3, cval=0.0)
    for degrees in CLASSIC_ROTATIONS:
        # From axis 2 towards 1: of a stack what rotate() does by default of a single image.
        options = {"axes": (2, 1), "reshape": False, "order": 3, "cval": 0.0}
        ndimage.rotate(pixels, degrees, output=next(copies), **options)
    return torch.from_numpy(expanded.reshape(-1, 1, *pixels.shape[1:]))


def classic_network(dropout: float, generator: torch.Generator) -> nn.Sequential:
    """1,805,130 parameters, dropout after every layer; from N x 1 x 28 x 28 to logits, N x 10."""
    return nn.Sequential(
        nn.Conv2d(1, 64, kernel_size=5),  # 64 x 24 x 24
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.MaxPool2d(2),  # 64 x 12 x 12
        nn.Conv2d(64, 256, kernel_size=3),  # 256 x 10 x 10
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.MaxPool2d(2),  # 256 x 5 x 5
        nn.Flatten(),  # 6400
        nn.Linear(6400, 256),  # 256
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.Linear(256, 64),  # 64
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.Linear(64, CLASSES),  # 10
    )


class SeededDropout(nn.Module):
    """Dropout whose randomness comes from a generator that is passed in, not from global state."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability = probability
        self.generator = generator

    def forward(self, values: Tensor) -> Tensor:
        """In training some values become zero, and the others grow to make up."""
        if not self.training or self.probability == 0:
            return values
        keep = 1 - self.probability
        if values.device.type == "cpu":
            # torch spends a double on each value, one after the other: nearly a third of the
            # recipe's time. Four values out of each 64-bit number take a quarter of that.
            words = torch.empty(-(-values.numel() // 4), dtype=torch.int64)
            words.random_(-(2**63), None, generator=self.generator)
            shorts = words.view(torch.int16)[: values.numel()]
            shorts = shorts.as_strided(values.shape, values.stride())
            mask = shorts < round(keep * 2**16) - 2**15
        else:
            mask = torch.empty_like(values).bernoulli_(keep, generator=self.generator)
        return values * mask.to(values.dtype).div_(keep)


# %% The network
# Convolutions in three stages, batch-normalised. Three choices are worth a word:
#
# - The first layer takes steps of two pixels: at 28 x 28 a convolution costs most and sees only
#   strokes. That saves a quarter of the time for 0.04 points, no more than chance would give.
# - Two layers leave the edge out, where no digit reaches: their maps are two places smaller, and
#   training takes a quarter less, for no accuracy at all (99.42 % with and without, ten folds).
# - The last feature maps are pooled to their maxima. Where exactly a stroke lies matters little, no
#   large linear layer is needed, images of any size go in. Maxima beat averages by 0.05 points.

def compact_network(
    widths: Sequence[int], depths: Sequence[int], dropout: float, generator: torch.Generator
) -> nn.Sequential:
    """Three stages; from N x 1 x 28 x 28 to logits, N x 10. `depths`: of stages two and three."""
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(1, first, kernel_size=3, stride=2, padding=1, bias=False),  # first x 14 x 14
        nn.BatchNorm2d(first),
        nn.ReLU(),
        *convolutions(first, second, depths[0], halved=True),  # second x 6 x 6
        *convolutions(second, third, depths[1], halved=False),  # third x 4 x 4
        GlobalMaxPool(),  # third x 1 x 1
        nn.Flatten(),  # third
        SeededDropout(dropout, generator),
        nn.Linear(third, CLASSES),  # 10
    )


def convolutions(channels: int, width: int, depth: int, *, halved: bool) -> list[nn.Module]:
    """So many 3 x 3 convolutions from `channels` to `width`, the last one pooled or not.

    The first of those that are pooled, and the last of the others, leave the edge out.
    """
    layers: list[nn.Module] = []
    for number in range(depth):
        edge = int(number != (0 if halved else depth - 1))
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=edge, bias=False))
        if halved and number == depth - 1:
            # Before normalisation, which then has a quarter of the work.
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return layers


class GlobalMaxPool(nn.Module):
    """The maximum of each map, N x C x 1 x 1."""

    def forward(self, maps: Tensor) -> Tensor:
        """From N x C x H x W."""
        # torch's own is slow on a GPU; `amax` takes ten times as long as that on a CPU.
        if maps.device.type == "cpu":
            return functional.adaptive_max_pool2d(maps, 1)
        return maps.amax(dim=(2, 3), keepdim=True)


def build_network(
    settings: Settings, generator: torch.Generator, memory_format=torch.channels_last
) -> nn.Sequential:
    """The network of a member's settings, on the device of `generator`, which draws its weights."""
    if settings.network == "classic":
        network = classic_network(settings.dropout, generator)
    else:
        network = compact_network(settings.widths, settings.depths, settings.dropout, generator)
    network = network.to(generator.device, memory_format=memory_format)
    # torch's own default distributions, but out of our generator.
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                bound = 1 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return network


# %% The optimizer
# Muon steps each inner convolution by an orthogonalised gradient, so that no direction of its weights
# is neglected; plain Nesterov SGD does the rest. With Adam `fast` loses 0.10 points (give or take
# 0.07, as always over three seeds and splits).

def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest ones, N x rows x columns, whose singular values are 1: Newton-Schulz."""
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = wide @ wide.mT
        # Keller Jordan's coefficients (https://kellerjordan.github.io/posts/muon/) climb fastest
        # from small singular values, and leave them between 0.7 and 1.2, not at 1.
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        wide = torch.baddbmm(wide, polynomial, wide, beta=3.4445)
    return wide.mT if tall else wide


class Muon:
    """Momentum orthogonalised on convolutions of several input channels; Nesterov SGD on the rest.

    It is no `torch.optim.Optimizer`: making one imports torch's compiler, which takes two seconds.
    """

    # GradScaler then leaves it to us to undo its scale and mind its overflows: both stay on the
    # device, where torch would wait for every step to end, to ask whether it overflowed.
    _step_supports_amp_scaling = True
    found_inf = None

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        inner = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1]
        others = [p for p in network.parameters() if p.ndim != 4 or p.shape[1] == 1]
        groups: list[dict[str, Any]] = [
            {"params": inner, "lr": settings.muon_learning_rate, "orthogonal": True},
            {"params": others, "lr": settings.learning_rate, "orthogonal": False},
        ]
        self.param_groups = [group for group in groups if group["params"]]
        self.momentum, self.weight_decay = settings.momentum, settings.weight_decay
        parameters = (p for group in self.param_groups for p in group["params"])
        self.velocities = {parameter: torch.zeros_like(parameter) for parameter in parameters}

    @torch.no_grad()
    def step(self) -> None:
        """One step from the gradients that the parameters hold."""
        # Operations on lists: a GPU would wait longer for each to be launched than it takes.
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [parameter.grad for parameter in parameters]
            velocities = [self.velocities[parameter] for parameter in parameters]
            if self.found_inf is not None:  # an overflow counts as no gradient
                gradients = torch._foreach_mul(gradients, 1 / self.grad_scale)
                gradients = [g.masked_fill(self.found_inf > 0, 0) for g in gradients]
            if not group["orthogonal"]:
                gradients = torch._foreach_add(gradients, parameters, alpha=self.weight_decay)
            torch._foreach_mul_(velocities, self.momentum)
            torch._foreach_add_(velocities, gradients)
            updates = torch._foreach_add(gradients, velocities, alpha=self.momentum)
            if group["orthogonal"]:
                # The filters' norm is held, as in airbench94_muon, in place of weight decay.
                norms = torch._foreach_norm(parameters)
                sizes = [len(p) ** 0.5 / norm for p, norm in zip(parameters, norms, strict=True)]
                torch._foreach_mul_(parameters, sizes)
                updates = self.orthogonal(updates)
            if isinstance(group["lr"], Tensor):  # a recorded step reads it anew each time
                torch._foreach_sub_(parameters, torch._foreach_mul(updates, group["lr"]))
            else:
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    @staticmethod
    def orthogonal(updates: Sequence[Tensor]) -> list[Tensor]:
        """Each update orthogonalised, filters x the rest; those of one shape at once."""
        done = list(updates)
        for shape in {update.shape for update in updates}:
            places = [i for i, update in enumerate(updates) if update.shape == shape]
            together = torch.stack([updates[i].reshape(shape[0], -1) for i in places])
            for place, update in zip(places, orthogonalised(together), strict=True):
                done[place] = update.view(shape)
        return done


def make_optimizer(settings: Settings, network: nn.Module) -> Muon | torch.optim.Optimizer:
    """The optimizer of the settings; each group remembers its peak rate as `peak_lr`."""
    optimizer: Muon | torch.optim.Optimizer = Muon(network, settings)
    if settings.optimizer == "adam":
        rate, decay = settings.learning_rate, settings.weight_decay
        on_gpu = next(network.parameters()).is_cuda  # where `fused` minds overflows by itself
        optimizer = torch.optim.Adam(
            network.parameters(), lr=rate, weight_decay=decay, fused=on_gpu or None
        )
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


# %% Training
# One loop, a screen long. What makes it fast, beside Muon:
#
# - **One cycle**: the learning rate climbs in a straight line, then falls to zero in another, which
#   makes good use of few epochs: a constant rate loses 1.1 points.
# - **Small images first.** They cost less, and bring nearly all that can be learned early: two epochs
#   at 28 x 28 pixels alone, which take about as long, lose 0.14 points (give or take 0.02).
# - **Label smoothing** asks for a little less than certainty, for 0.13 points (give or take 0.02).
#
# The weights that count are those of the epoch with the lowest validation loss.

PREDICTION_BATCH = 1000  # bounds the memory that prediction takes, and keeps any device busy
MOST_EPOCHS_FOR_STEPS = 100  # a handful of images is known by heart then


@dataclass
class Training:
    """Everything that training needs and changes, but the images."""

    settings: Settings
    compute: Compute
    network: nn.Sequential
    optimizer: Muon | torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    order: torch.Generator  # on the CPU: order of the images, and there augmentation
    noise: torch.Generator  # on the device: first weights, dropout, and on a GPU augmentation
    epochs: int  # the plan, which whoever iterates may lower between two of them
    epoch: int = 0  # done
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def best_network(self) -> nn.Sequential:
        """The network with the weights of its best epoch, in evaluation mode."""
        self.network.load_state_dict(self.best_weights)
        return self.network.eval()


def start_training(settings: Settings, compute: Compute, images: int) -> Training:
    """A fresh network and all that trains it on so many images, drawn from the settings' seed."""
    keep_freed_memory()
    order = torch.Generator().manual_seed(settings.seed)
    noise = torch.Generator(compute.device).manual_seed(settings.seed)
    network = build_network(settings, noise, compute.memory_format)
    optimizer = make_optimizer(settings, network)
    # Float16 cannot hold small gradients: the scaler lifts the loss, less after an overflow.
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
    needed = math.ceil(settings.minimum_steps / math.ceil(images / settings.batch_size))
    epochs = max(settings.epochs, min(needed, MOST_EPOCHS_FOR_STEPS))
    return Training(settings, compute, network, optimizer, scaler, order, noise, epochs)


def train(
    training: Training, data: LabelledImages, held_out: LabelledImages | None
) -> Iterator[dict[str, float]]:
    """Train epoch by epoch, yielding each one's row of the history when it is done.

    Between two rows `training`, which is changed in place, is at rest: whoever takes the rows may
    save it, print, or stop.

    Args:
        data: to train on, on the training's device.
        held_out: to validate on, never augmented. None, or no images: the last epoch is the best.

    Raises:
        TrainingError: the loss went to NaN or infinity.
    """
    network, optimizer, settings = training.network, training.optimizer, training.settings
    step = make_step(training, data)
    while training.epoch < training.epochs:
        if 0 < settings.patience <= training.epoch - training.best_epoch:
            break
        epoch, started = training.epoch + 1, time.perf_counter()
        network.train()
        losses, hits = [], []
        order = torch.randperm(len(data), generator=training.order).to(data.labels.device)
        batches = order.split(settings.batch_size)
        for batch in progress(batches, desc=f"epoch {epoch}/{training.epochs}"):
            steps = training.epoch * len(batches) + len(losses)
            done = (steps + 0.5) / (training.epochs * len(batches))  # a share, 0 to 1
            for group in optimizer.param_groups:
                rate = group["peak_lr"] * learning_rate_factor(settings, done)
                on_device = isinstance(group["lr"], Tensor)
                group["lr"] = group["lr"].fill_(rate) if on_device else rate
            size = settings.image_sizes[int(done * len(settings.image_sizes))]
            loss, right = step(batch, size)
            losses.append(loss)
            hits.append(right)

        val_loss, val_accuracy = validate(training, held_out) if held_out else (math.nan, math.nan)
        train_loss = torch.stack(losses).sum().item() / len(data)
        if not math.isfinite(train_loss) or (held_out and not math.isfinite(val_loss)):
            raise TrainingError(f"the loss is nan in epoch {epoch}: try a lower --learning-rate")
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_accuracy": torch.stack(hits).sum().item() / len(data),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": float(optimizer.param_groups[-1]["lr"]),
            "seconds": time.perf_counter() - started,
        }
        training.epoch = epoch
        training.history.append(row)
        if not held_out or val_loss < training.best_loss:
            training.best_epoch, training.best_loss = epoch, val_loss
            # A copy: state_dict() alone would go on changing with the live weights.
            training.best_weights = copy.deepcopy(network.state_dict())
        yield row


def learning_rate_factor(settings: Settings, done: float) -> float:
    """The share of the peak learning rate when a share `done` of the training is done."""
    if settings.schedule == "constant":
        return 1.0
    return done / settings.warmup if done < settings.warmup else (1 - done) / (1 - settings.warmup)


def make_step(training: Training, data: LabelledImages) -> Callable[..., tuple[Tensor, Tensor]]:
    """`train_batch` of a batch and a size; where it pays, recorded once and then replayed.

    A step is 300 small operations, and telling a GPU of each takes five times as long as doing it.
    """
    plain = partial(train_batch, training, data)
    if not (training.compute.recorded and isinstance(training.optimizer, Muon)):
        return plain
    for group in training.optimizer.param_groups:  # a recorded step reads its rate from there
        group["lr"] = torch.as_tensor(group["lr"], device=training.compute.device)
    graphs: dict[tuple[int, int], Any] = {}

    def step(batch: Tensor, size: int) -> tuple[Tensor, Tensor]:
        key = (len(batch), size)
        if key not in graphs:
            graphs[key] = None  # once plainly, so that libraries are set up
            return plain(batch, size)
        if graphs[key] is None:
            graph, place, stream = torch.cuda.CUDAGraph(), batch.clone(), torch.cuda.Stream()
            graph.register_generator_state(training.noise)
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                graph.capture_begin()
                try:
                    results = plain(place, size)
                finally:  # or nothing would run on this GPU any more, not even a plain step
                    graph.capture_end()
            graphs[key] = graph, place, results
        graph, place, results = graphs[key]
        place.copy_(batch)
        graph.replay()
        return results[0].clone(), results[1].clone()

    return step


def train_batch(
    training: Training, data: LabelledImages, batch: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """One step of the optimizer on the images of a batch's index, brought to `size`.

    Returns the loss added up and the number of images classified right, both still on the device,
    so that nothing waits for them.
    """
    settings, compute, losses, hits = training.settings, training.compute, [], []
    draws = training.order if compute.device.type == "cpu" else training.noise
    training.network.zero_grad()
    # In pieces, whose gradients add up to the batch's unless normalisation mixes its images.
    for piece in batch.split(settings.piece_size or len(batch)):
        images = network_input(data.images[piece], compute.memory_format)
        images, labels = augmented(images, settings, draws, size), data.labels[piece]
        with compute.autocast():
            logits = training.network(images)
        logits = logits.float()
        loss = loss_sum(logits, labels, settings)
        training.scaler.scale(loss / len(batch)).backward()
        losses.append(loss.detach())
        named = labels if labels.ndim == 1 else labels.argmax(dim=1)
        hits.append((logits.detach().argmax(dim=1) == named).sum())
    training.scaler.step(training.optimizer)
    training.scaler.update()
    return torch.stack(losses).sum(), torch.stack(hits).sum()


def network_input(images: Tensor, memory_format=torch.channels_last) -> Tensor:
    """What a network takes of stored images: uint8 becomes float32 from 0 to 1; float stays."""
    pixels = images.float().div_(255) if images.dtype == torch.uint8 else images
    return pixels.contiguous(memory_format=memory_format)


def loss_sum(logits: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    """Cross-entropy added up over the batch, label smoothing included."""
    # The published recipe fed probabilities to a loss that applies softmax once more: it lies
    # between 1.4612 and 2.4612 an image then.
    scores = logits.softmax(dim=1) if settings.softmax_head else logits
    smoothing = settings.label_smoothing
    return functional.cross_entropy(scores, labels, reduction="sum", label_smoothing=smoothing)


def validate(training: Training, held_out: LabelledImages) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) in evaluation mode."""
    logits = predict_logits(training.network, held_out.images, training.compute)
    labels = held_out.labels.to(logits.device)
    # Label smoothing included: without it the loss would have taken epoch 5 of a run, at 99.14 %,
    # over epoch 8, at 99.45 %, for smoothed networks grow less sure as they grow better.
    loss = loss_sum(logits, labels, training.settings).item() / len(labels)
    return loss, (logits.argmax(dim=1) == labels).sum().item() / len(labels)


@torch.no_grad()
def predict_logits(
    network: nn.Module, images: Tensor, compute: Compute, view: Callable = torch.positive
) -> Tensor:
    """The network's logits, float32, N x 10 on its device, of images on any, seen as by `view`."""
    network.eval()
    logits = []
    for batch in images.split(PREDICTION_BATCH):
        pixels = view(network_input(batch.to(compute.device), compute.memory_format))
        with compute.autocast():
            logits.append(network(pixels).float())
    return torch.cat(logits)


def training_images(digits: Digits, rows: Tensor, settings: Settings) -> LabelledImages:
    """The images to train on: the rows as they are, or the classic set made of them."""
    images, labels = digits.train_images[rows], digits.train_labels[rows]
    if settings.augmentation == "expanded":
        return LabelledImages(classic_expanded_set(images), labels.repeat(CLASSIC_COPIES))
    return LabelledImages(images, labels)


# %% Prediction
# An image that the network is not sure of is looked at again, shifted along a diagonal both ways,
# then turned and zoomed a little, and the probabilities are averaged. Three views give a network
# trained as shortly as `fast` 0.1 points (99.31 to 99.42 %, ten folds). Of the images that it is sure
# of at first sight, 93 in 100, not one in 33,600 was named otherwise after more views: they are
# spared the time.
#
# Label smoothing makes a network say 91 % where it is right 99.9 % of the time. One number, the
# temperature that its logits are divided by, mends that; it is fitted on what it held out.

SURE = 0.98  # by how much the likeliest class must lead
# Degrees of rotation, pixels to the right and down, zoom.
VIEWS = [(0, (0, 0), 1), (0, (1, 1), 1), (0, (-1, -1), 1)]
VIEWS += [(7, (0, 0), 1), (-7, (0, 0), 1), (0, (0, 0), 1.06), (0, (0, 0), 0.94)]


def predict_probabilities(
    networks: Sequence[nn.Module], images: Tensor, compute: Compute, views: int = 1
) -> Tensor:
    """The mean of the probabilities of all networks for so many views of each image.

    From uint8 or float, N x 1 x 28 x 28, on any device, to float32, N x 10, on the CPU.
    """
    answers = torch.zeros(len(networks), len(images), CLASSES)
    for answer, network in zip(answers, networks if len(images) else [], strict=False):
        answer.copy_(one_network(network, images, compute, views))
    return sum(answers[1:], start=answers[0]) / len(networks)


def one_network(network: nn.Module, images: Tensor, compute: Compute, views: int) -> Tensor:
    """A network's probabilities, on its device: of one view where it is sure, else of all."""
    total = predict_logits(network, images, compute).softmax(dim=1)
    first, second = total.topk(2, dim=1).values.unbind(dim=1)
    unsure = (first - second < SURE).nonzero().squeeze(1)
    doubtful = images[unsure.to(images.device)]
    for view in VIEWS[1:views] if len(unsure) else []:
        logits = predict_logits(network, doubtful, compute, partial(viewed, view))
        total[unsure] += logits.softmax(dim=1)
    total[unsure] /= views
    return total


def calibrate(network: nn.Sequential, held_out: LabelledImages, compute: Compute) -> float:
    """Divide the network's logits by the temperature, which is returned, that makes its confidence
    true of held-out images (Guo et al., On calibration of modern neural networks, 2017)."""
    logits = predict_logits(network, held_out.images, compute).cpu()
    labels = held_out.labels.cpu()

    def loss(temperature: float) -> float:
        # As if a third of an image more were wrong: where none is, no confidence is too much.
        scaled, doubt = logits / temperature, 0.3 / len(labels)
        return functional.cross_entropy(scaled, labels, label_smoothing=doubt).item()

    temperature = min((0.1 * 1.02**step for step in range(200)), key=loss)  # 0.1 to 5
    with torch.no_grad():
        for parameter in network[-1].parameters():  # of the last layer, which is linear
            parameter.div_(temperature)
    return temperature


def viewed(view: tuple[float, tuple[float, float], float], pixels: Tensor) -> Tensor:
    """Images, float, N x 1 x 28 x 28, in another view, bilinear, zeros coming in at the edge."""
    if view == VIEWS[0]:
        return pixels
    rotation, shift, zoom = (torch.tensor([value], dtype=torch.float32) for value in view)
    matrix = affine_matrices(rotation, shift, zoom, shear=torch.zeros(1)).to(pixels.device)
    return apply_affine(pixels, matrix.expand(pixels.shape[0], -1, -1), pixels.shape[-1])


# %% The run
# All of it in order: split, augment, train, predict, for every member. A member depends on the data,
# the settings and its number alone, so wherever it is trained it is the same; on a GPU, nearly.
# `best` trains ten, each of which holds out another fortieth of the images, and averages what they
# say. A second round may learn from the test images as well, as the first has named them: with
# probabilities, so that doubt stays doubt. It is off, for it makes one network better (by one wrong
# digit in eleven), but not several together: 171 wrong of 50,400 for 173.

Epochs = Iterator[dict[str, float]]
Watch = Callable[[int, Training, Epochs], Epochs]


@dataclass(frozen=True)
class Member:
    """A network that is trained, and all that the run wants of it."""

    number: int  # from 1
    weights: dict[str, Tensor]  # of its best epoch, on the CPU
    history: list[dict[str, float]]  # a row an epoch
    planned_epochs: int
    best_epoch: int
    best_loss: float
    temperature: float  # that its logits are divided by; its weights have it in them
    held_rows: Tensor  # int64, n: of the training images
    held_probabilities: Tensor  # float32, n x 10
    probabilities: Tensor  # float32, test images x 10
    seconds: dict[str, float]  # of augmentation, training and prediction


@dataclass(frozen=True)
class Result:
    """What there is to know after a run: its members by number, maybe fewer than were asked for."""

    settings: Settings
    compute: Compute
    members: list[Member]
    teachers: list[Member] = field(default_factory=list)  # whose answers the members learned from

    @property
    def probabilities(self) -> Tensor:
        """The mean of the members', float32, test images x 10; added in order: the same bytes."""
        return mean_answer(self.members)


def mean_answer(members: list[Member]) -> Tensor:
    """The mean of the members' probabilities of test images."""
    first, *others = [member.probabilities for member in members]
    return sum(others, start=first) / len(members)


def unwatched(number: int, training: Training, epochs: Epochs) -> Epochs:
    """The epochs of a member as they are."""
    return epochs


def run(
    settings: Settings, digits: Digits, compute: Compute, *, watch: Watch = unwatched, each=map
) -> Result:
    """Train every member, predict, and return all there is to know.

    Args:
        watch: wraps the iterator of a member's epochs: it may save, print, shorten or stop.
        each: decides where members are trained, and may yield them in any order; `map` does here.
    """
    learn = partial(train_member, settings=settings, digits=digits, compute=compute, watch=watch)

    def trained(learn: Callable[..., Member], first: int) -> list[Member]:
        members = []
        for member in each(learn, range(first, first + settings.members)):
            members.append(member)
            named = member.held_probabilities.argmax(dim=1)
            logger.info(
                "member %d: %d of %d held-out images wrong, weights of epoch %d of %d, %.0f s",
                member.number,
                (named != digits.train_labels[member.held_rows]).sum(),
                *(len(named), member.best_epoch, len(member.history), member.seconds["train"]),
            )
        return sorted(members, key=lambda member: member.number)

    members, teachers = trained(learn, 1), []
    if settings.learn_from_test and len(members) == settings.members:  # else time is up
        taught = partial(learn, test_answers=mean_answer(members))
        if students := trained(taught, settings.members + 1):
            members, teachers = students, members
    keep_freed_memory(False)
    return Result(settings, compute, members, teachers)


def train_member(
    number: int,
    settings: Settings,
    digits: Digits,
    compute: Compute,
    watch: Watch = unwatched,
    test_answers: Tensor | None = None,
) -> Member:
    """Train one member of a run, from 1, to its end, and let it predict.

    With `test_answers`, probabilities, float32, test images x 10, it learns from test images, too.
    """
    settings = member_settings(settings, number)
    train_rows, held_rows = member_rows(digits.train_labels, settings, number)
    held_out = LabelledImages(digits.train_images[held_rows], digits.train_labels[held_rows])
    held_out = held_out.to(compute.device)

    started = time.perf_counter()
    data = training_images(digits, train_rows, settings)
    if test_answers is not None:
        answers = torch.cat([functional.one_hot(data.labels, CLASSES).float(), test_answers])
        data = LabelledImages(torch.cat([data.images, digits.test_images]), answers)
    data = data.to(compute.device)
    expanded = time.perf_counter()
    training = start_training(settings, compute, len(data))
    planned_epochs = training.epochs
    epochs = train(training, data, held_out)
    logger.info("%d images to train on, %d held out", len(data), len(held_out))
    for row in watch(number, training, epochs):
        logger.info(
            "epoch %3d/%d  loss %.4f  right %6.2f %%  held out loss %.4f  right %6.2f %% %6.1f s%s",
            *(row["epoch"], training.epochs, row["train_loss"], 100 * row["train_accuracy"]),
            *(row["val_loss"], 100 * row["val_accuracy"], row["seconds"]),
            "  best" if training.best_epoch == row["epoch"] else "",
        )
    trained = time.perf_counter()

    network = training.best_network()
    temperature = calibrate(network, held_out, compute) if len(held_out) else 1.0
    answers = [
        predict_probabilities([network], images, compute, settings.views)
        for images in (held_out.images, digits.test_images.to(compute.device))
    ]
    weights = {name: w.detach().cpu().contiguous() for name, w in network.state_dict().items()}
    times = (expanded - started, trained - expanded, time.perf_counter() - trained)
    return Member(
        *(number, weights, training.history, planned_epochs),
        *(training.best_epoch, training.best_loss, temperature, held_rows, *answers),
        seconds=dict(zip(("augment", "train", "predict"), times, strict=True)),
    )


# %% Reading the digits
# `train.csv` has the columns `label` and `pixel0` to `pixel783`, `test.csv` the pixels alone. They
# are read by numpy, and checked: what is no pixel ends the run with its row and column.

COMPETITION = "digit-recognizer"
KAGGLE_TEST_IMAGES = 28_000
TRAIN_FILE, TEST_FILE = "train.csv", "test.csv"
PIXEL_COLUMNS = [f"pixel{number}" for number in range(IMAGE_SIZE**2)]
GET_IT_AGAIN = f"download it from https://www.kaggle.com/c/{COMPETITION}/data again"


def on_kaggle() -> bool:
    """Whether this is a Kaggle machine: it sets this variable in scripts and notebooks alike."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def kaggle_folder(name: str) -> Path:
    """Kaggle's `input` or `working`; DIGITKAGGLE_KAGGLE_ROOT stands in for `/kaggle` in a test."""
    return Path(os.environ.get("DIGITKAGGLE_KAGGLE_ROOT", "/kaggle")) / name


def find_data() -> Path | None:
    """The usual place that has data, or None."""
    if on_kaggle():
        inputs = kaggle_folder("input")
        places = [p.parent for p in inputs.rglob(TRAIN_FILE) if (p.parent / TEST_FILE).is_file()]
        # The mount has changed before: /kaggle/input/digit-recognizer until 2026.
        return min(places, key=lambda path: (COMPETITION not in path.parts, path), default=None)
    return Path("data") if Path("data", TRAIN_FILE).exists() else None


def read_digits(folder: Path) -> Digits:
    """Training and test images from a folder, or a `zipfile.Path`, with both CSVs.

    Raises:
        InputError: something is missing or wrong; names file, row and column.
    """
    table = read_table(folder / TRAIN_FILE, ["label", *PIXEL_COLUMNS])
    labels = torch.from_numpy(table[:, 0].astype(np.int64))
    if len(labels.unique()) == 1:
        raise InputError(f"{folder / TRAIN_FILE}: every label is {labels[0]}: {GET_IT_AGAIN}")
    images = torch.from_numpy(table[:, 1:].copy()).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)
    return Digits(images, labels, read_images(folder / TEST_FILE), origin=str(folder))


def read_images(file: Path) -> torch.Tensor:
    """The images of a CSV without labels, uint8, N x 1 x 28 x 28, in its order."""
    return torch.from_numpy(read_table(file, PIXEL_COLUMNS)).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)


def read_table(path: Path, columns: list[str]) -> np.ndarray:
    """A CSV's columns, which may stand in any order, as uint8, rows x columns; checked."""
    names: list[str] = []
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a file without rows, refused below
            # numpy before 2.3 takes 300 for 44, -1 for 255 and 3.7 for 3, with a warning only.
            warnings.simplefilter("error", DeprecationWarning)
            lines = filter(str.strip, io.TextIOWrapper(file, "utf-8-sig"))
            header = next(lines, "")
            if header.lstrip()[:1] == "<":
                raise ValueError("a web page, not the data: sign in and accept the rules")
            names = [name.strip().strip('"') for name in header.split(",")]
            for name in [*columns, *names]:
                if name not in columns or names.count(name) != 1:
                    raise ValueError(f"line 1: column {name!r:.40} is missing, strange or twice")
            # It takes two thirds of the time of pandas, and nothing but whole numbers up to 255.
            how = {"delimiter": ",", "quotechar": '"', "comments": None, "ndmin": 2}
            bar = progress(lines, desc=f"reading {path.name}", unit=" rows")
            table = np.loadtxt(bar, np.uint8, **how)
        if not table.size:
            raise ValueError("it has a header but no rows")
        if table.shape[1] != len(names):
            raise ValueError(f"a row has {table.shape[1]} values, not {len(names)}")
        if names != columns:
            table = table[:, [names.index(name) for name in columns]]
        for row in np.flatnonzero(table[:, 0] >= CLASSES)[:1] if columns[0] == "label" else []:
            raise ValueError(f"row {row + 1}, column label: {table[row, 0]} is no digit")
        return table
    except ValueError as error:
        raise InputError(f"{path}: {cell_named(str(error), names)}: {GET_IT_AGAIN}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {GET_IT_AGAIN}") from error


def cell_named(fault: str, names: list[str]) -> str:
    """What numpy says of a cell that is no pixel, by the name of its column."""
    found = re.match(r"could not convert string (.*) to .* at row (\d+), column (\d+)", fault)
    if not found:
        return fault.partition(";")[0]
    row, column = int(found[2]) + 1, dict(enumerate(names, 1)).get(int(found[3]), "surplus")
    return f"row {row}, column {column}: {found[1]:.40} is no whole number from 0 to 255"


# %% The device
# Chosen by doing the real work on it, a step of training and a prediction with this run's network,
# for what a GPU says of itself may not hold: Kaggle's P100 is there, and torch has no code for it; a
# T4 says that it supports bfloat16, and emulates it. What fails there is tried in plainer forms, then
# on the CPU, and why is told.

TRIAL_IMAGES = 256  # at most, for too large a batch is no fault of the device's
# How images lie in memory, whether layers may count in half precision, and whether steps are
# recorded: the fastest first.
FORMS = ((torch.channels_last, True, True), (torch.channels_last, True, False))
FORMS += ((torch.contiguous_format, True, False), (torch.contiguous_format, False, False))


def choose_compute(settings: Settings = PRESETS["balanced"], device: str = "auto") -> Compute:
    """The named device, or the first of CUDA, MPS and CPU, on which these settings really train.

    Raises:
        InputError: the named device does not work.
    """
    names, faults = usual_devices() if device == "auto" else ([device], [])
    for name, (layout, half, recorded) in ((name, form) for name in names for form in FORMS):
        try:
            chosen = torch.device(name)
            if chosen.type == "cuda":
                if not torch.cuda.is_available():
                    raise RuntimeError("torch sees no GPU that it can use")
                torch.cuda.set_device(chosen.index or 0)
            plain = "auto" if half else "float32"
            precision = plain if settings.precision == "auto" else settings.precision
            dtype = fastest_dtype(chosen) if precision == "auto" else getattr(torch, precision)
            compute = Compute(chosen, dtype, "", layout, recorded and chosen.type == "cuda")
            model = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
            if chosen.type != "cpu":
                try_out(settings, compute)
            warning = "; ".join(faults) if chosen.type == "cpu" else ""
            reason = "; ".join([*faults, f"{model} works"])
            return dataclasses.replace(compute, reason=reason, warning=warning)
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            fault = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            faults.append(f"{name} does not work here ({fault})")
            faults = list(dict.fromkeys(faults))
    raise InputError(f"{'; '.join(faults)}: leave the device to --device auto")


def usual_devices() -> tuple[list[str], list[str]]:
    """The devices to try, and why there is no GPU where there should be one."""
    with warnings.catch_warnings(record=True) as caught:  # such as of too old a driver
        warnings.simplefilter("always")
        names = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    faults = [str(warning.message).partition("\n")[0] for warning in caught]
    if on_kaggle() and not names:
        faults.append("Kaggle gave no GPU: choose GPU T4 x2 in the session's options")
    return [*names, "cpu"], faults


def fastest_dtype(device: torch.device) -> torch.dtype:
    """What the device counts fastest in; half precision only where the hardware has it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    # Private in torch, and missing in some versions: then float32, which is always right.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and supported() else torch.float32


def try_out(settings: Settings, compute: Compute) -> None:
    """A step at each size of image, and a prediction, as a run does them; raises what fails."""
    settings = dataclasses.replace(settings, erasing=(max(settings.erasing),))  # if any member does
    count = min(settings.piece_size or settings.batch_size, TRIAL_IMAGES)
    pixels = torch.arange(count * IMAGE_SIZE**2).remainder(251).to(torch.uint8)
    images = pixels.view(count, 1, IMAGE_SIZE, IMAGE_SIZE)
    data = LabelledImages(images, torch.arange(count) % CLASSES).to(compute.device)
    training = start_training(settings, compute, count)
    batch, step = torch.arange(count, device=compute.device), make_step(training, data)
    for group in training.optimizer.param_groups:
        group["lr"] = group["lr"] * 0  # too high a rate is no fault of the device's either
    # Three times, for the first is done plainly, the second is recorded, and both are replayed.
    losses = [step(batch, size)[0] for size in set(settings.image_sizes) for _ in range(3)]
    total = sum(losses) + predict_logits(training.network, images, compute).sum()
    if not math.isfinite(total.item()):
        raise RuntimeError("a first step gave numbers that are not finite")


# %% The results
# What a run leaves: the submission, the weights, the history of the training, a few figures as JSON,
# what it says of every image, and one picture to look at. Every file is written beside its place and
# renamed, so it is whole or not there.

SUBMISSION, MODEL, HISTORY = "submission.csv", "model.pt", "history.csv"
METRICS, PICTURE = "metrics.json", "result.png"
PROBABILITIES, VALIDATION = "probabilities.npy", "validation.npz"
FIRST, SECOND = "#2563c9", "#c2510c"  # colours of training and validation


def write_results(
    folder: Path, result: Result, digits: Digits, metrics: dict, submission: str = SUBMISSION
) -> None:
    """Put a run's files into a folder, last of all `metrics.json`, from `run_metrics`."""
    probabilities, held_out = result.probabilities.numpy(), held_out_answers(result, digits)
    table, lines = history_table(result), enumerate(probabilities.argmax(axis=1), start=1)
    answers = "".join(["ImageId,Label\n", *(f"{number},{digit}\n" for number, digit in lines)])
    weights = {member.number: member.weights for member in result.members}
    model = {"settings": vars(result.settings), "members": weights}
    how = {"fmt": "%.9g", "delimiter": ",", "header": ",".join(table.dtype.names), "comments": ""}
    write_file(folder / MODEL, lambda file: torch.save(model, file))
    write_file(folder / HISTORY, lambda file: np.savetxt(file, table, **how))
    write_file(folder / PROBABILITIES, lambda file: np.save(file, probabilities))
    write_file(folder / PICTURE, lambda file: picture(result, digits).savefig(file))
    write_file(folder / submission, lambda file: file.write(answers.encode()))
    if len(held_out["row"]):
        write_file(folder / VALIDATION, lambda file: np.savez(file, **held_out))
    write_file(folder / METRICS, lambda file: file.write(json.dumps(metrics, indent=2).encode()))


def write_file(path: Path, save: Callable[[BinaryIO], object] | bytes) -> None:
    """Put bytes, or what `save` writes, at `path` in one step: a reader sees old or new, whole."""
    aside, buffer = path.with_name(f".{path.name}.{os.getpid()}.part"), io.BytesIO()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Through memory: torch would put a file's name among the bytes.
        buffer.write(save) if isinstance(save, bytes) else save(buffer)
        aside.write_bytes(buffer.getbuffer())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        advice = "free some space, mind its rights, or name another folder"
        raise InputError(f"{path} cannot be written ({error.strerror}): {advice}") from error


def history_table(result: Result) -> np.ndarray:
    """The members' histories, one record an epoch, with its columns by name."""
    members = result.teachers + result.members
    rows = [{"member": m.number, **row} for m in members for row in m.history]
    return np.array([tuple(row.values()) for row in rows], [(name, float) for name in rows[0]])


def held_out_answers(result: Result, digits: Digits) -> dict[str, np.ndarray]:
    """Of every held-out image its row in train.csv, label, probabilities, and who judged it."""
    members = result.members
    rows = torch.cat([member.held_rows for member in members])
    return {
        "row": rows.numpy(),
        "label": digits.train_labels[rows].numpy(),
        "probabilities": torch.cat([member.held_probabilities for member in members]).numpy(),
        "member": np.repeat([m.number for m in members], [len(m.held_rows) for m in members]),
    }


def run_metrics(
    result: Result, digits: Digits, source_digest: str, seconds: dict[str, float]
) -> dict[str, Any]:
    """What `metrics.json` says; `best_epoch` and `epochs` of several members are lists.

    The accuracy is that of each held-out image's own member, which never learned from it.
    """
    members, compute, held_out = result.members, result.compute, held_out_answers(result, digits)
    best, epochs = [m.best_epoch for m in members], [len(m.history) for m in members]
    loss = {"loss": sum(member.best_loss for member in members) / len(members)}
    images = {"training_images": len(digits.train_images), "test_images": len(digits.test_images)}
    all_members = result.teachers + members
    spent = {part: sum(m.seconds[part] for m in all_members) for part in members[0].seconds}
    judged = accuracy(held_out["probabilities"], held_out["label"]) | loss
    return {
        "settings": vars(result.settings),
        "versions": {"digitkaggle": VERSION, "torch": torch.__version__, "numpy": np.__version__},
        "source_digest": source_digest,
        "data": {"origin": digits.origin, "digest": digits.digest()} | images,
        "device": {"name": str(compute.device), "dtype": str(compute.dtype), "why": compute.reason},
        "warnings": [compute.warning] if compute.warning else [],
        "seconds": {name: round(value, 3) for name, value in (spent | seconds).items()},
        "validation": judged if judged["images"] else None,
        "temperatures": [round(member.temperature, 3) for member in members],
        "best_epoch": best if result.settings.members > 1 else best[0],
        "epochs": epochs if result.settings.members > 1 else epochs[0],
    }


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy (0 to 1), its binomial standard error, and the number of images; 0 of none."""
    images = len(labels)
    right = int((probabilities.argmax(axis=1) == labels).sum()) / max(images, 1)
    error = math.sqrt(right * (1 - right) / max(images, 1))
    return {"accuracy": right, "standard_error": error, "images": images}


def picture(result: Result, digits: Digits) -> Any:
    """Curves, confusions and the surest mistakes, as one matplotlib figure."""
    # A Figure of its own needs no display; imported here, for it costs a second.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 10))
    losses, errors, confusion, mistakes = figure.subplots(2, 2).flat
    draw_curves(losses, history_table(result), "loss")
    draw_curves(errors, history_table(result), "accuracy")
    held_out = held_out_answers(result, digits)
    if len(held_out["row"]):
        draw_confusion(confusion, held_out)
        draw_mistakes(mistakes, digits, held_out)
    return figure


def draw_curves(axes: Any, history: np.ndarray, quantity: str) -> None:
    """`loss`, or `accuracy` as errors on a scale that shows one in a thousand, over epochs."""
    for part, label, colour in (("train", "training", FIRST), ("val", "held out", SECOND)):
        for number in np.unique(history["member"]):
            rows = history[history["member"] == number]
            values = rows[f"{part}_{quantity}"]
            values = values if quantity == "loss" else (1 - values).clip(min=2e-4)
            named = {"label": label} if number == history["member"].min() else {}
            axes.plot(rows["epoch"], values, ".-", color=colour, alpha=0.8, **named)
    axes.set(xlabel="epoch", title="loss" if quantity == "loss" else "share named wrong")
    axes.set_yscale("linear" if quantity == "loss" else "log")
    axes.legend()


def draw_confusion(axes: Any, held_out: Mapping[str, np.ndarray]) -> None:
    """How often each true class was taken for each other; colours on a logarithmic scale."""
    pairs = CLASSES * held_out["label"] + held_out["probabilities"].argmax(axis=1)
    counts = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    axes.imshow(counts + 0.5, cmap="Blues", norm="log")
    for row, column in np.argwhere(counts):
        colour = "white" if row == column else "black"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    ticks = {"xticks": range(CLASSES), "yticks": range(CLASSES)}
    axes.set(xlabel="predicted digit", ylabel="true digit", **ticks)


def draw_mistakes(axes: Any, digits: Digits, held_out: Mapping[str, np.ndarray]) -> None:
    """The held-out images that were named wrong, the surest first: what was said, how surely."""
    predicted, labels = held_out["probabilities"].argmax(axis=1), held_out["label"]
    confidence = held_out["probabilities"].max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    first = wrong[np.argsort(-confidence[wrong], kind="stable")][:40]
    captions = [f"{predicted[i]}, {confidence[i]:.0%}\nis a {labels[i]}" for i in first]
    draw_images(axes, digits.train_images[held_out["row"][first]], captions)
    axes.set_title(f"the surest of {len(wrong)} mistakes among {len(labels)} held-out images")


def draw_images(axes: Any, images: Tensor, captions: Sequence[str] = (), columns: int = 10) -> None:
    """Small images, uint8, N x 1 x 28 x 28, in rows, dark on white as one reads, captions below."""
    high, wide = IMAGE_SIZE + (16 if captions else 4), IMAGE_SIZE + 4
    rows = max(1, -(-len(images) // columns))
    canvas = np.zeros((rows * columns, high, wide), dtype=np.uint8)
    canvas[: len(images), :IMAGE_SIZE, 2:-2] = images.squeeze(1).numpy()
    canvas = canvas.reshape(rows, columns, high, wide).swapaxes(1, 2).reshape(rows * high, -1)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)
    axes.axis("off")
    for place, caption in enumerate(captions):
        x, y = place % columns * wide + wide / 2, place // columns * high + IMAGE_SIZE + 1
        axes.text(x, y, caption, ha="center", va="top", fontsize=7)


# %% The program
# Every setting is a flag, and none is needed. On Kaggle's two GPUs members are dealt out to a process
# each; a member depends on its number alone, so that changes nothing but the time.

SOURCE_DIGEST = "0838024a2ed14f9e7a6423ebc310a0fe403abe2f1e27734f965a9b30d117723a"


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are InputErrors, so that they come out like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint, with where help is."""
        raise InputError(f"{message}: see {self.prog} --help")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags of a run: how to run, then one for each field of Settings."""
    parser.add_argument("--data", type=Path, metavar="PATH", help="where both CSVs are")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    for field in dataclasses.fields(Settings):
        values = {name: getattr(settings, field.name) for name, settings in PRESETS.items()}
        shown = values if len(set(values.values())) > 1 else field.default
        options: dict[str, Any] = {"type": type(field.default), "metavar": "N"}
        if isinstance(field.default, bool):
            options = {"action": argparse.BooleanOptionalAction}
        elif isinstance(field.default, tuple):
            options = {"type": lambda text: tuple(map(int, text.split(","))), "metavar": "N,N"}
        elif isinstance(field.default, str):
            options = {"choices": field.metadata["choices"] or list(PRESETS)}
        meaning = f"{field.metadata['meaning']} ({shown})".replace("%", "%%")
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, dest=field.name, default=None, help=meaning, **options)


def settings_from_flags(
    flags: argparse.Namespace, preset: str, changes: Mapping[str, Any] | None = None
) -> Settings:
    """The preset, unless another is named, with changes, and what the flags say on top."""
    given = {field.name: getattr(flags, field.name) for field in dataclasses.fields(Settings)}
    changed = dict(changes or {}) | {name: v for name, v in given.items() if v is not None}
    return make_settings(changed.pop("preset", preset), changed)


def on_every_gpu(learn: Callable[..., Member], numbers: Sequence[int]) -> Iterable[Member]:
    """Members dealt out to a process a GPU, in whatever order they are done; else one by one."""
    compute, done = learn.keywords["compute"], set()
    gpus = torch.cuda.device_count() if compute.device == torch.device("cuda") else 1
    if min(gpus, len(numbers)) > 1:
        from joblib import Parallel, delayed  # a tenth of a second that others need not wait

        jobs = (delayed(on_gpu)(learn, number, number % gpus) for number in numbers)
        try:
            for member in Parallel(n_jobs=gpus, return_as="generator_unordered")(jobs):
                done.add(member.number)
                yield member
        except InputError:
            raise
        except Exception as error:  # whatever a GPU or its process dies of
            fault = str(error).strip().partition("\n")[0]
            logger.warning("not all of the %d GPUs work (%s): one does the rest", gpus, fault)
    yield from map(learn, [number for number in numbers if number not in done])


def on_gpu(learn: Callable[..., Member], number: int, gpu: int) -> Member:
    """A member trained on one of several GPUs, in a process that has it for its own."""
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return learn(number, compute=dataclasses.replace(learn.keywords["compute"], device=device))


def kernel_run(arguments: Sequence[str]) -> Path:
    """The full run with these flags; returns its folder."""
    parser = OneLineParser(description="Trains on Kaggle's Digit Recognizer: submission.csv.")
    add_run_flags(parser)
    flags = parser.parse_args(arguments)
    show_log()
    torch.set_num_threads(flags.threads or torch.get_num_threads())
    started = time.perf_counter()
    settings = settings_from_flags(flags, "best")  # which a GPU has in minutes
    compute = choose_compute(settings, flags.device)
    if compute.device.type == "cpu":
        settings = settings_from_flags(flags, "balanced")
    location = flags.data or find_data()
    if location is None:
        place = kaggle_folder("input") if on_kaggle() else "data"
        raise InputError(f"no data in {place}: add the competition's, or name some by --data")
    digits = read_digits(location)
    loaded = time.perf_counter()
    logger.info("preset %s, %s: %s", settings.preset, compute.dtype, compute.reason)
    warn(compute)
    result = run(settings, digits, compute, each=on_every_gpu)
    seconds = {"load": loaded - started, "total": time.perf_counter() - started}
    metrics = run_metrics(result, digits, SOURCE_DIGEST, seconds)
    folder = flags.out or (kaggle_folder("working") if on_kaggle() else Path("runs") / "kernel")
    write_results(folder, result, digits, metrics)
    logger.info("validation %s\nfiles in %s", metrics["validation"], folder)
    warn(compute)
    return folder


def warn(compute: Compute) -> None:
    """Say, so that it cannot be missed, that a GPU that should be there is not used."""
    if compute.warning:
        logger.warning("%s\nNO GPU IS USED. %s\n%s", "*" * 80, compute.warning, "*" * 80)


if __name__ == "__main__":
    try:
        kernel_run(sys.argv[1:])
    except (InputError, torch.OutOfMemoryError) as error:
        advice = "" if isinstance(error, InputError) else ": lower --piece-size or --batch-size"
        print(f"error: {error}".partition("\n")[0] + advice, file=sys.stderr)
        sys.exit(2)
