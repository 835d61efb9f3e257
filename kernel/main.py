# %% Handwritten digits: from `train.csv` to `submission.csv`
# Load, split, augment, train with early stopping, predict, write. The program needs no arguments. On
# Kaggle it finds the competition's data and the GPU by itself.
#
# | preset | accuracy on digits it never saw | training, two CPU cores |
# |---|---|---|
# | `fast` | 99.43 +- 0.07 % (ten runs, 8,400 digits that no choice used; standard error) | 6 s |
# | `balanced`, the default on a CPU | 99.62 +- 0.07 % (three runs, the same digits) | 2 min |
# | `best`, the default on a GPU | 99.67 +- 0.06 % (one run, the same digits) | 6 min |
#
# Read it from top to bottom. What is needed but not about digits stands in later chapters, which may
# be skipped; comments name them. In a hurry, read the chapters on augmentation and the network for
# what is special about digits, the optimizer and training for what makes it fast, and the run for the
# order of it all.
#
# Made by `make kernel` from digitkaggle/core; change it there.

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


# %% Basics
# Data classes that all chapters share, two exceptions and the logger.

VERSION = "0.4.0"
IMAGE_SIZE = 28  # pixels along a side
CLASSES = 10

logger = logging.getLogger("digitkaggle")
logger.addHandler(logging.NullHandler())  # a library stays silent until its user asks for a log


class InputError(Exception):
    """Wrong use or bad input: one line that says what is wrong, where, and what to do next."""


class TrainingError(InputError):
    """Training cannot continue because the loss is NaN or infinite."""


@dataclass(frozen=True)
class LabeledImages:
    """Images N x 1 x 28 x 28, uint8 (or float32, 0 to 1); labels N, int64."""

    # All 42,000 images take 33 MB as uint8, so they live on the device as one tensor. A batch is a
    # slice of a shuffled index: no data loader, no worker processes.
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> LabeledImages:
        """The same images and labels on another device."""
        return LabeledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Digits:
    """The competition's images. Labels of test images are known only for the sample."""

    train_images: Tensor  # uint8, N x 1 x 28 x 28
    train_labels: Tensor  # int64, N
    test_images: Tensor  # uint8, M x 1 x 28 x 28
    test_labels: Tensor | None = None  # int64, M
    origin: str = ""  # the folder or file they were read from


@dataclass(frozen=True)
class Compute:
    """The device a network runs on, the dtype its layers compute in, and the reason for both."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    # Channels last: with channels first, every layer is slower by up to a third.
    memory_format: torch.memory_format = torch.channels_last
    cuda_graphs: bool = False  # whether training steps are recorded once and then replayed
    warning: str = ""  # why a GPU that should be there is not used

    def autocast(self) -> torch.autocast:
        """Layers inside compute in `dtype` where that is safe; weights stay float32."""
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=half)


# %% The data
# `train.csv` has the columns `label` and `pixel0` to `pixel783`; `test.csv` has only the pixels.
# numpy reads them, and every cell is checked: a bad one ends the run with its row and column.

TRAIN_FILE, TEST_FILE = "train.csv", "test.csv"
PIXEL_COLUMNS = [f"pixel{number}" for number in range(IMAGE_SIZE**2)]


def read_digits(folder: Path) -> Digits:
    """The images in a folder with both CSVs; InputError for a wrong file, column or value."""
    # read_table: see the chapter Parsing a table
    table = read_table(folder / TRAIN_FILE, ["label", *PIXEL_COLUMNS])
    labels = torch.from_numpy(table[:, 0].astype(np.int64))
    # A copy, because the pixels are a view of the table, with the labels between its rows.
    images = torch.from_numpy(table[:, 1:].copy()).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)
    return Digits(images, labels, read_images(folder / TEST_FILE), origin=str(folder))


def read_images(file: Path) -> Tensor:
    """The images of a CSV without labels, uint8, N x 1 x 28 x 28, in its order."""
    # read_table: see the chapter Parsing a table
    return torch.from_numpy(read_table(file, PIXEL_COLUMNS)).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)


# %% Settings
# Everything that a result depends on, in one table. Its defaults are the preset `balanced`; the other
# presets list what they change. Each field is a command-line flag (`learning_rate` is
# `--learning-rate`) and an entry of `metrics.json`. What does not change the result, such as device,
# threads and folders, is not a setting.

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
    # check_names, check_settings: see the chapter Checking settings
    check_names(preset, changes)
    # Whoever asks for N epochs gets N, also with few images.
    fewer_steps = {"minimum_steps": 0} if "epochs" in changes else {}
    changed = dataclasses.replace(PRESETS[preset], **(fewer_steps | dict(changes)))
    return check_settings(changed)


def derive_member_settings(settings: Settings, number: int) -> Settings:
    """The settings of a run's member, numbered from 1: it has a seed of its own."""
    return dataclasses.replace(settings, seed=(settings.seed + number - 1) % 2**63)


# %% The split
# A tenth of the images of each class is held out and never trained on. Only the accuracy on these
# images is claimed. Its standard error at 99.6 % is 0.1 points on 4,200 images, so one split decides
# nothing. Several members hold out one fold each: together they validate every image, each image by a
# network that did not train on it.

ADVICE = "--validation-fraction 0 trains on all"


def split_for_member(labels: Tensor, settings: Settings, number: int) -> tuple[Tensor, Tensor]:
    """The rows that a member, numbered from 1, trains on and holds out: int64, all rows once."""
    # split_fold: see the chapter Folds
    fraction, by_class = settings.validation_fraction, settings.split_by_class
    if fraction == 0:
        return torch.arange(len(labels)), torch.empty(0, dtype=torch.int64)
    if settings.members == 1:
        return split_indices(labels, fraction, settings.split_seed, by_class=by_class)
    folds = max(2, round(1 / fraction))
    # With more members than folds, the images are shuffled again for each round of folds.
    turn, fold = divmod(number - 1, folds)
    seed = (settings.split_seed + turn) % 2**32
    return split_fold(labels, folds, fold, seed, by_class=by_class)


def split_indices(
    labels: Tensor, fraction: float, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Hold out a fraction of the rows at random, with `by_class` the same of every class.

    Returns the rows to train on and the held-out rows, int64. Raises InputError if there are too
    few images.
    """
    # split_at_positions: see the chapter Folds
    count, classes = round(fraction * len(labels)), labels.unique() if by_class else labels[:1]
    if count < len(classes) or count == len(labels):
        raise InputError(f"too few images to hold out {fraction:g} of every class: {ADVICE}")
    # The middles of equal steps, so that first and last class lose the same fraction, too.
    even_steps = ((torch.arange(count) + 0.5) * (len(labels) / count)).long()
    return split_at_positions(labels, even_steps, seed, by_class=by_class)


# %% Augmentation
# A 7 that is rotated, shifted, zoomed or sheared a little is still a 7. Each time training sees an
# image, it transforms it again at random, so no two epochs are the same and nothing can be memorized:
# 0.07 points (standard error 0.03) even in the three epochs of `fast`. It runs on the device on whole
# batches, 13 times faster than scipy image by image: 2.8 % of a training step on two CPU cores.

def augment(
    images: Tensor, settings: Settings, generator: torch.Generator, size: int = IMAGE_SIZE
) -> Tensor:
    """Transform each image of a batch by its own random affine map.

    From float, N x 1 x 28 x 28, to N x 1 x size x size; the generator is on the images' device.
    """
    # apply_affine, build_affine_matrices: see the chapter Affine maps
    if settings.augmentation != "affine":
        return images
    ranges = (settings.rotation, settings.shift, settings.zoom, settings.shear)
    if any(ranges) or size != images.shape[-1]:
        # Uniform from -1 to 1. Drawn in one call, because each call costs a launch on a GPU.
        draws = torch.rand(len(images), 5, generator=generator, device=images.device) * 2 - 1
        matrices = build_affine_matrices(
            rotation=draws[:, 0] * settings.rotation,
            shift=draws[:, 1:3] * settings.shift,
            zoom=draws[:, 3] * settings.zoom + 1,
            shear=draws[:, 4] * settings.shear,
        )
        # The same resampling shrinks the images to this epoch's size.
        images = apply_affine(images, matrices, size)
    return images


# %% The network
# Convolutions in three stages with batch normalization, and a maximum over each of the last feature
# maps. It is small: 61 thousand parameters in `fast`, 279 thousand in `balanced`, where the published
# recipe has 1.8 million.

def build_compact_network(
    widths: Sequence[int], depths: Sequence[int], dropout: float, generator: torch.Generator
) -> nn.Sequential:
    """Three stages; from N x 1 x 28 x 28 to logits, N x 10. `depths`: of stages two and three.

    Shapes below are those of 28 x 28 images; any size from 15 x 15 works.
    """
    # BatchNorm, GlobalMaxPool, SeededDropout: see the chapter Layers
    first, second, third = widths
    layers: list[nn.Module] = [
        # Stride 2: at 28 x 28 a convolution costs most and sees only strokes. It saves a quarter of
        # the time for 0.04 points, which is within noise. No bias: the normalization adds one.
        nn.Conv2d(1, first, kernel_size=3, stride=2, padding=1, bias=False),  # first x 14 x 14
        BatchNorm(first),
        nn.ReLU(),
        # No padding here and in the last convolution: no digit reaches the edge, and smaller maps
        # take a quarter less time at the same accuracy (99.42 % with and without, ten folds).
        nn.Conv2d(first, second, kernel_size=3, padding=0, bias=False),  # second x 12 x 12
    ]
    for _ in range(depths[0] - 1):
        layers += [
            BatchNorm(second),
            nn.ReLU(),
            nn.Conv2d(second, second, kernel_size=3, padding=1, bias=False),  # second x 12 x 12
        ]
    layers += [
        # Pooled before the normalization, which then has a quarter of the work.
        nn.MaxPool2d(2),  # second x 6 x 6
        BatchNorm(second),
        nn.ReLU(),
    ]
    channels = second
    for _ in range(depths[1] - 1):
        layers += [
            nn.Conv2d(channels, third, kernel_size=3, padding=1, bias=False),  # third x 6 x 6
            BatchNorm(third),
            nn.ReLU(),
        ]
        channels = third
    layers += [
        nn.Conv2d(channels, third, kernel_size=3, padding=0, bias=False),  # third x 4 x 4
        BatchNorm(third),
        nn.ReLU(),
        # Where exactly a stroke lies matters little. So there is no large linear layer, and images
        # of any size fit. The maximum is 0.05 points better than the mean.
        GlobalMaxPool(),  # third x 1 x 1
        nn.Flatten(),  # third
        SeededDropout(dropout, generator),
        nn.Linear(third, CLASSES),  # 10
    ]
    return nn.Sequential(*layers)


def build_network(
    settings: Settings, generator: torch.Generator, memory_format=torch.channels_last
) -> nn.Sequential:
    """The network that the settings name, on the device of `generator`, which draws its weights."""
    if settings.network == "classic":
        # build_classic_network: see the chapter The published recipe
        network = build_classic_network(settings.dropout, generator)
    elif settings.network == "compact":
        widths, depths = settings.widths, settings.depths
        network = build_compact_network(widths, depths, settings.dropout, generator)
    else:
        raise ValueError(f"there is no network {settings.network!r}")
    network = network.to(generator.device, memory_format=memory_format)
    # torch's own default distributions, but drawn from our generator: its layers draw from a global
    # one, which whatever ran before has moved.
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                bound = 1 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return network


# %% The optimizer
# Muon replaces the gradient of each inner convolution by a nearby orthogonal matrix, so that no
# direction of its weights is neglected. Nesterov SGD updates all other parameters. With Adam instead,
# `fast` loses 0.10 points (standard error 0.07, over three seeds and splits).

def newton_schulz(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Roughly the nearest orthogonal matrices, N x rows x columns, by Newton-Schulz iterations."""
    # The products below are rows x rows, so the shorter side comes first.
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    # The iteration converges only from singular values of at most 1, which the norm ensures.
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = wide @ wide.mT
        # Keller Jordan's coefficients (https://kellerjordan.github.io/posts/muon/) grow small
        # singular values fastest. They end between 0.7 and 1.2, not at 1, which is good enough.
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        wide = torch.baddbmm(wide, polynomial, wide, beta=3.4445)
    return wide.mT if tall else wide


def orthogonalize_by_shape(updates: Sequence[Tensor]) -> list[Tensor]:
    """`newton_schulz` of each update as a matrix, filters x the rest; equal shapes in one call."""
    results = list(updates)
    for shape in {update.shape for update in updates}:
        indices = [i for i, update in enumerate(updates) if update.shape == shape]
        matrices = torch.stack([updates[i].reshape(shape[0], -1) for i in indices])
        for index, update in zip(indices, newton_schulz(matrices), strict=True):
            results[index] = update.view(shape)
    return results


class Muon:
    """Orthogonalized momentum for inner convolutions, Nesterov SGD for all other parameters."""

    # Not a torch.optim.Optimizer: to make one imports torch's compiler, which takes two seconds.

    # Tells GradScaler to leave scale and overflows to `step`, which keeps both on the device. torch
    # itself would wait for every step to end, to ask whether it overflowed.
    _step_supports_amp_scaling = True
    found_inf = None  # GradScaler sets it before a step, and then `grad_scale`, too

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        # The first convolution has one input channel: nothing to orthogonalize.
        inner = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1]
        others = [p for p in network.parameters() if p.ndim != 4 or p.shape[1] == 1]
        groups: list[dict[str, Any]] = [
            {"params": inner, "lr": settings.muon_learning_rate, "orthogonalize": True},
            {"params": others, "lr": settings.learning_rate, "orthogonalize": False},
        ]
        self.param_groups = [group for group in groups if group["params"]]
        self.momentum, self.weight_decay = settings.momentum, settings.weight_decay
        parameters = (p for group in self.param_groups for p in group["params"])
        self.velocities = {parameter: torch.zeros_like(parameter) for parameter in parameters}

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters from the gradients that they hold."""
        # On lists of tensors: on a GPU a small operation takes less time than its launch.
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:  # all are frozen
                continue
            gradients = [parameter.grad for parameter in parameters]
            velocities = [self.velocities[parameter] for parameter in parameters]
            if self.found_inf is not None:  # after an overflow the gradient counts as zero
                gradients = torch._foreach_mul(gradients, 1 / self.grad_scale)
                gradients = [g.masked_fill(self.found_inf > 0, 0) for g in gradients]
            if not group["orthogonalize"]:
                gradients = torch._foreach_add(gradients, parameters, alpha=self.weight_decay)
            torch._foreach_mul_(velocities, self.momentum)
            torch._foreach_add_(velocities, gradients)
            # Nesterov: the gradient once more, as if the momentum had already moved on.
            updates = torch._foreach_add(gradients, velocities, alpha=self.momentum)
            if group["orthogonalize"]:
                # In place of weight decay the norm of the filters is fixed, as in airbench94_muon.
                norms = torch._foreach_norm(parameters)
                scales = [len(p) ** 0.5 / norm for p, norm in zip(parameters, norms, strict=True)]
                torch._foreach_mul_(parameters, scales)
                updates = orthogonalize_by_shape(updates)
            if isinstance(group["lr"], Tensor):  # replayed CUDA graphs read the rate from there
                torch._foreach_sub_(parameters, torch._foreach_mul(updates, group["lr"]))
            else:
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def make_optimizer(settings: Settings, network: nn.Module) -> Muon | torch.optim.Optimizer:
    """The optimizer that the settings name; each group keeps its peak rate as `peak_lr`."""
    # make_adam: see the chapter The published recipe
    optimizer: Muon | torch.optim.Optimizer
    if settings.optimizer == "muon":
        optimizer = Muon(network, settings)
    elif settings.optimizer == "adam":
        optimizer = make_adam(network, settings.learning_rate, settings.weight_decay)
    else:
        raise ValueError(f"there is no optimizer {settings.optimizer!r}")
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


# %% Training
# One loop that fits on one screen. Three things besides Muon make it fast: a one-cycle schedule,
# small images first, and label smoothing. The result is a copy of the weights of the epoch with the
# lowest validation loss.

PREDICTION_BATCH = 1000  # limits the memory that prediction takes, and keeps any device busy
MOST_EPOCHS_FOR_STEPS = 100  # more would only memorize a handful of images


@dataclass
class Training:
    """Everything that training needs and changes, except the images."""

    settings: Settings
    compute: Compute
    network: nn.Sequential
    optimizer: Muon | torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    cpu_generator: torch.Generator  # order of the images; on a CPU also augmentation
    device_generator: torch.Generator  # first weights, dropout; on a GPU also augmentation
    epochs: int  # the plan; whoever iterates over `train` may lower it between two epochs
    epoch: int = 0  # epochs done
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_logits: Tensor | None = None  # of the held-out images by these weights, at full size


def start_training(settings: Settings, compute: Compute, images: int) -> Training:
    """A new network and all that trains it on N images, seeded by the settings."""
    cpu_generator = torch.Generator().manual_seed(settings.seed)
    device_generator = torch.Generator(compute.device).manual_seed(settings.seed)
    network = build_network(settings, device_generator, compute.memory_format)
    optimizer = make_optimizer(settings, network)
    # Small gradients vanish in float16: the scaler multiplies the loss, by less after an overflow.
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
    # Few images make few steps per epoch, so they need more epochs for the same training.
    needed = math.ceil(settings.minimum_steps / math.ceil(images / settings.batch_size))
    epochs = max(settings.epochs, min(needed, MOST_EPOCHS_FOR_STEPS))
    return Training(
        settings, compute, network, optimizer, scaler, cpu_generator, device_generator, epochs
    )


def train(
    training: Training, data: LabeledImages, held_out: LabeledImages | None
) -> Iterator[dict[str, float]]:
    """Train epoch by epoch, and yield each epoch's row of the history when it is done.

    Changes `training` in place; between two rows whoever iterates may save it, print, or stop. The
    data are on its device. Without held-out images the last epoch counts as the best. Raises
    TrainingError if the loss is NaN or infinite.
    """
    # show_progress: see the chapter The console
    # make_step: see the chapter The device
    network, optimizer, settings = training.network, training.optimizer, training.settings
    step = make_step(training, data)
    validates = held_out is not None and len(held_out) > 0
    while training.epoch < training.epochs:
        if 0 < settings.patience <= training.epoch - training.best_epoch:
            break
        epoch, started = training.epoch + 1, time.perf_counter()
        network.train()
        losses, correct = [], []
        # Drawn on the CPU, so that the order is the same on every device.
        order = torch.randperm(len(data), generator=training.cpu_generator).to(data.labels.device)
        batches = order.split(settings.batch_size)

        for batch in show_progress(batches, desc=f"epoch {epoch}/{training.epochs}"):
            steps = training.epoch * len(batches) + len(losses)
            fraction_done = (steps + 0.5) / (training.epochs * len(batches))
            for group in optimizer.param_groups:
                rate = group["peak_lr"] * learning_rate_factor(settings, fraction_done)
                on_device = isinstance(group["lr"], Tensor)  # where replayed CUDA graphs read it
                group["lr"] = group["lr"].fill_(rate) if on_device else rate
            # Small images first: they cost less and teach nearly all that can be learned early. Two
            # epochs at 28 x 28, which take about as long, lose 0.14 points (standard error 0.02).
            size = settings.image_sizes[int(fraction_done * len(settings.image_sizes))]
            loss, hits = step(batch, size)
            # Tensors, not numbers: `.item()` would wait for the device at every step.
            losses.append(loss)
            correct.append(hits)

        logits, val_loss, val_accuracy = None, math.nan, math.nan
        if validates:
            # At the size of the last step: a network that saw only smaller images fails at 28 x 28.
            logits, val_loss, val_accuracy = validate(training, held_out, size)
        train_loss = torch.stack(losses).sum().item() / len(data)
        if not math.isfinite(train_loss) or (validates and not math.isfinite(val_loss)):
            raise TrainingError(f"the loss is nan in epoch {epoch}: try a lower --learning-rate")

        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_accuracy": torch.stack(correct).sum().item() / len(data),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": float(optimizer.param_groups[-1]["lr"]),
            "seconds": time.perf_counter() - started,
        }
        training.epoch = epoch
        training.history.append(row)
        # Losses at different sizes do not compare. So an epoch at a smaller size is kept, in case
        # time is up, but any later epoch replaces it.
        at_full_size = size == settings.image_sizes[-1]
        if not validates or not at_full_size or val_loss < training.best_loss:
            training.best_epoch = epoch
            training.best_loss = val_loss if at_full_size else math.inf
            # A copy: the tensors of state_dict() itself change as training continues.
            training.best_weights = copy.deepcopy(network.state_dict())
            training.best_logits = logits if at_full_size else None
        yield row


def learning_rate_factor(settings: Settings, fraction_done: float) -> float:
    """The factor on the peak learning rate when a fraction (0 to 1) of the training is done."""
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "one-cycle":
        # Linear up, then linear down to zero. A constant rate loses `fast` 1.1 points.
        if fraction_done < settings.warmup:
            return fraction_done / settings.warmup
        return (1 - fraction_done) / (1 - settings.warmup)
    raise ValueError(f"there is no schedule {settings.schedule!r}")


def train_batch(
    training: Training, data: LabeledImages, batch: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """One step of the optimizer on the images of a batch's index, resampled to `size`.

    Returns the sum of the losses and the number of correct predictions, as tensors on the device.
    """
    settings, compute, losses, hits = training.settings, training.compute, [], []
    on_cpu = compute.device.type == "cpu"
    generator = training.cpu_generator if on_cpu else training.device_generator
    training.network.zero_grad()
    # Gradients of pieces add up to the batch's, except that batch normalization sees only a piece.
    for piece in batch.split(settings.piece_size or len(batch)):
        images = prepare_input(data.images[piece], compute.memory_format)
        images, labels = augment(images, settings, generator, size), data.labels[piece]
        # A first layer that has seen small images knows its strokes. Not to train it on larger ones
        # saves a seventh of the time of `fast` in float32 for 0.02 points, which is within noise.
        frozen = settings.frozen_layers if size > settings.image_sizes[0] else 0
        with compute.autocast():
            with torch.no_grad():
                images = training.network[:frozen](images)
            logits = training.network[frozen:](images)
        logits = logits.float()
        loss = compute_loss_sum(logits, labels, settings)
        training.scaler.scale(loss / len(batch)).backward()
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(dim=1) == labels).sum())
    training.scaler.step(training.optimizer)
    training.scaler.update()
    return torch.stack(losses).sum(), torch.stack(hits).sum()


def prepare_input(images: Tensor, memory_format=torch.channels_last) -> Tensor:
    """Stored images as a network's input: uint8 becomes float32 from 0 to 1; float stays."""
    pixels = images.float().div_(255) if images.dtype == torch.uint8 else images
    return pixels.contiguous(memory_format=memory_format)


def compute_loss_sum(logits: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    """The sum of the cross-entropy over the batch, with label smoothing."""
    # The published recipe applies softmax before a loss that applies it again. That bounds the loss
    # to 1.4612 to 2.4612 per image.
    scores = logits.softmax(dim=1) if settings.softmax_head else logits
    # Smoothing asks for 91 % in place of 100 %: 0.13 points (standard error 0.02).
    smoothing = settings.label_smoothing
    return functional.cross_entropy(scores, labels, reduction="sum", label_smoothing=smoothing)


def validate(training: Training, held_out: LabeledImages, size: int) -> tuple[Tensor, float, float]:
    """Logits, mean loss and accuracy (0 to 1) in evaluation mode, on images of a size."""
    # resize: see the chapter Affine maps
    transform = partial(resize, size=size)
    logits = predict_logits(training.network, held_out.images, training.compute, transform)
    labels = held_out.labels.to(logits.device)
    # With label smoothing: the plain loss would choose epoch 5 of a run, at 99.14 %, over epoch 8,
    # at 99.45 %, because smoothed networks become less confident as they improve.
    loss = compute_loss_sum(logits, labels, training.settings).item() / len(labels)
    return logits, loss, (logits.argmax(dim=1) == labels).sum().item() / len(labels)


@torch.no_grad()
def predict_logits(
    network: nn.Module, images: Tensor, compute: Compute, transform: Callable = torch.positive
) -> Tensor:
    """Logits, float32, N x 10 on the network's device, of transformed images on any device."""
    network.eval()
    logits = []
    for batch in images.split(PREDICTION_BATCH):
        pixels = transform(prepare_input(batch.to(compute.device), compute.memory_format))
        with compute.autocast():
            logits.append(network(pixels).float())
    return torch.cat(logits)


# %% Prediction
# Test-time augmentation: where the network is not confident, it also looks at shifted, rotated and
# zoomed views of the image, and the probabilities are averaged.

# Degrees of rotation, pixels to the right and down, zoom. The first view is the image itself.
TTA_VIEWS = [(0, (0, 0), 1), (0, (1, 1), 1), (0, (-1, -1), 1)]
TTA_VIEWS += [(7, (0, 0), 1), (-7, (0, 0), 1), (0, (0, 0), 1.06), (0, (0, 0), 0.94)]
# Where the first class leads the second by this much, no other view ever changed the prediction: of
# 33,600 images the 93 % that lead by it are spared the time.
CONFIDENT_MARGIN = 0.98


@dataclass(frozen=True)
class Model:
    """Trained networks, and what is needed to predict with them."""

    networks: Sequence[nn.Module]
    settings: Settings
    compute: Compute

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities, the average over all members; TrainingError if they are NaN.

        From uint8 or float, N x 1 x 28 x 28, on any device, to float32, N x 10, on the CPU.
        """
        if not len(images):
            return torch.empty(0, CLASSES)
        views = self.settings.views
        probabilities = average_members(
            [predict_with_tta(n, images, self.compute, views).cpu() for n in self.networks]
        )
        if not probabilities.isfinite().all():
            raise TrainingError("the network predicts nan: train it at a lower --learning-rate")
        return probabilities


def average_members(probabilities: Sequence[Any]) -> Any:
    """The mean of the members' probabilities, tensors or arrays: members x N x 10 to N x 10."""
    # Added one after another, in order: `mean` may add in another order, and give other bytes.
    return sum(probabilities[1:], start=probabilities[0]) / len(probabilities)


def predict_with_tta(
    network: nn.Module, images: Tensor, compute: Compute, tta_views: int
) -> Tensor:
    """One network's probabilities, N x 10, on its device: averaged over views where unconfident."""
    # apply_view: see the chapter Affine maps
    # Three views gain `fast`, which trains for so short a time, 0.1 points (99.31 to 99.42 %, ten
    # folds).
    total = predict_logits(network, images, compute).softmax(dim=1)
    unconfident = (~is_confident(total)).nonzero().squeeze(1)
    if len(unconfident):
        selected = images[unconfident.to(images.device)]
        for view in TTA_VIEWS[1:tta_views]:
            logits = predict_logits(network, selected, compute, partial(apply_view, view))
            total[unconfident] += logits.softmax(dim=1)
        total[unconfident] /= tta_views
    return total


def is_confident(probabilities: Tensor) -> Tensor:
    """Whether the first class leads the second by the margin: from N x 10 to bool, N."""
    first, second = probabilities.topk(2, dim=1).values.unbind(dim=1)
    return first - second >= CONFIDENT_MARGIN


# %% The run
# All of it in order, for every member: split, augment, train, predict. A member depends only on the
# data, the settings and its number, so it is the same wherever it is trained (on a GPU, nearly).
# `best` trains four, each of which holds out another fortieth of the images, and averages their
# probabilities.

Epochs = Iterator[dict[str, float]]
WrapEpochs = Callable[[int, Training, Epochs], Epochs]


@dataclass(frozen=True)
class Member:
    """One trained network, as plain tensors and numbers, with its predictions."""

    number: int  # from 1
    weights: dict[str, Tensor]  # of its best epoch, on the CPU
    history: list[dict[str, float]]  # a row per epoch
    planned_epochs: int
    best_epoch: int
    best_loss: float
    temperature: float  # already applied to the weights
    held_out_rows: Tensor  # int64, n: rows of the training images
    held_out_probabilities: Tensor  # float32, n x 10
    probabilities: Tensor  # float32, test images x 10
    seconds: dict[str, float]  # of augmentation, training and prediction


@dataclass(frozen=True)
class Result:
    """Everything that a run found out. It may have fewer members than its settings."""

    settings: Settings
    compute: Compute
    members: list[Member]  # by number

    @property
    def probabilities(self) -> Tensor:
        """The average of the members' probabilities, float32, test images x 10."""
        return average_members([member.probabilities for member in self.members])


def run(
    settings: Settings,
    digits: Digits,
    compute: Compute,
    *,
    wrap_epochs: WrapEpochs | None = None,
    map_members: Callable[..., Iterable[Member]] = map,
) -> Result:
    """Train every member, predict, and return everything that was found out.

    Args:
        wrap_epochs: wraps the iterator of a member's epochs; it may save, print, shorten or stop.
        map_members: maps the training function over the members' numbers; `map` trains them here.
    """
    # log_members: see the chapter The console
    train_one = partial(
        train_member, settings=settings, digits=digits, compute=compute, wrap_epochs=wrap_epochs
    )
    trained = map_members(train_one, range(1, settings.members + 1))
    members = sorted(log_members(trained, digits), key=attrgetter("number"))
    return Result(settings, compute, members)


def train_member(
    number: int,
    settings: Settings,
    digits: Digits,
    compute: Compute,
    wrap_epochs: WrapEpochs | None = None,
) -> Member:
    """Train one member of a run, numbered from 1, and let it predict."""
    # calibrate: see the chapter Calibration
    # select_training_images: see the chapter The published recipe
    # log_epoch, log_plan: see the chapter The console
    # reuse_freed_memory: see the chapter The device
    own_settings = derive_member_settings(settings, number)
    train_rows, held_out_rows = split_for_member(digits.train_labels, settings, number)
    held_out = LabeledImages(digits.train_images[held_out_rows], digits.train_labels[held_out_rows])
    held_out = held_out.to(compute.device)
    with reuse_freed_memory():
        started = time.perf_counter()
        data = select_training_images(digits, train_rows, own_settings).to(compute.device)
        augmented_at = time.perf_counter()

        training = start_training(own_settings, compute, len(data))
        planned_epochs = training.epochs
        epochs = train(training, data, held_out)
        epochs = wrap_epochs(number, training, epochs) if wrap_epochs else epochs
        log_plan(training, len(data), len(held_out))
        for row in epochs:
            log_epoch(row, training)
        trained_at = time.perf_counter()

        network = training.network
        network.load_state_dict(training.best_weights)
        logits = training.best_logits
        if logits is None and len(held_out):  # the last epoch was at a smaller size
            logits = predict_logits(network, held_out.images, compute)
        temperature = 1.0 if logits is None else calibrate(network, logits, held_out.labels)
        model = Model([network], settings, compute)
        held_out_probabilities = model.predict(held_out.images)
        probabilities = model.predict(digits.test_images.to(compute.device))
        predicted_at = time.perf_counter()
    return Member(
        number=number,
        weights={name: w.detach().cpu().contiguous() for name, w in network.state_dict().items()},
        history=training.history,
        planned_epochs=planned_epochs,
        best_epoch=training.best_epoch,
        best_loss=training.history[training.best_epoch - 1]["val_loss"],
        temperature=temperature,
        held_out_rows=held_out_rows,
        held_out_probabilities=held_out_probabilities,
        probabilities=probabilities,
        seconds={
            "augment": augmented_at - started,
            "train": trained_at - augmented_at,
            "predict": predicted_at - trained_at,
        },
    )


# %% The rest may be skipped
# The program needs it, but it is not about digits: device, files, pictures and the like.

import argparse
import builtins
import contextlib
import ctypes
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import warnings
from concurrent.futures import BrokenExecutor
from typing import BinaryIO, NoReturn

from tqdm import tqdm


# %% The device
# Chosen by real work, a training step and a prediction with this run's network, because what a GPU
# reports is not reliable. Kaggle's P100 is available, but torch has no code for it; a T4 claims to
# support bfloat16, but emulates it. What fails is tried in plainer forms, then on the CPU, and the
# reason is reported.

TRIAL_IMAGES = 256  # at most, because a batch that is too large is not the device's failure
# Memory format, half precision, CUDA graphs: the fastest first.
FORMS = (
    (torch.channels_last, True, True),
    (torch.channels_last, True, False),
    (torch.contiguous_format, True, False),
    (torch.contiguous_format, False, False),
)


def choose_compute(settings: Settings = PRESETS["balanced"], device: str = "auto") -> Compute:
    """The named device, or the first of CUDA, MPS and CPU, on which these settings really train.

    Raises:
        InputError: the named device does not work.
    """
    names, failures = list_devices() if device == "auto" else ([device], [])
    for name in names:
        try:
            chosen, title = open_device(name)
        except RuntimeError as error:
            failures.append(describe_failure(name, error))
            continue
        for memory_format, half, cuda_graphs in FORMS:
            precision = settings.precision
            if precision == "auto" and half:
                dtype = find_fastest_dtype(chosen)
            else:
                dtype = torch.float32 if precision == "auto" else getattr(torch, precision)
            on_cuda = chosen.type == "cuda"
            compute = Compute(chosen, dtype, "", memory_format, cuda_graphs and on_cuda)
            if chosen.type != "cpu":
                try:
                    run_trial(settings, compute)
                except RuntimeError as error:  # torch's own; any other class is our mistake
                    failures.append(describe_failure(name, error))
                    continue
            failures = list(dict.fromkeys(failures))
            warning = "; ".join(failures) if chosen.type == "cpu" else ""
            reason = "; ".join([*failures, f"{title} works"])
            return dataclasses.replace(compute, reason=reason, warning=warning)
    failures = list(dict.fromkeys(failures))
    raise InputError(f"{'; '.join(failures)}: leave the device to --device auto")


def list_devices() -> tuple[list[str], list[str]]:
    """The devices to try, and why there is no GPU where there should be one."""
    # on_kaggle: see the chapter Kaggle
    with warnings.catch_warnings(record=True) as caught:  # such as about a driver that is too old
        warnings.simplefilter("always")
        names = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    failures = [str(warning.message).partition("\n")[0] for warning in caught]
    if on_kaggle() and not names:
        failures.append("Kaggle gave no GPU: choose GPU T4 x2 in the session's options")
    return [*names, "cpu"], failures


def open_device(name: str) -> tuple[torch.device, str]:
    """The device and its title, after one operation on it; RuntimeError if that fails."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU that it can use")
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.set_device(device.index or 0)
        torch.ones(1, device=device).item()
        title = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    except Exception as error:  # drivers and backends raise all kinds
        raise RuntimeError(str(error) or type(error).__name__) from error
    return device, title


def describe_failure(name: str, error: Exception) -> str:
    """One line about a device that failed."""
    reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return f"{name} does not work here ({reason})"


def find_fastest_dtype(device: torch.device) -> torch.dtype:
    """The dtype the device computes fastest in; half precision only where the hardware has it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and "AVX512" in torch.backends.cpu.get_cpu_capability():
        # Private in torch, and missing in some versions: then float32, which is always right.
        has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return torch.bfloat16 if has_bfloat16() else torch.float32
    return torch.float32


def run_trial(settings: Settings, compute: Compute) -> None:
    """Train a step at each image size and predict, as a run does; RuntimeError if that fails."""
    count = min(settings.piece_size or settings.batch_size, TRIAL_IMAGES)
    pixels = torch.arange(count * IMAGE_SIZE**2).remainder(251).to(torch.uint8)
    images = pixels.view(count, 1, IMAGE_SIZE, IMAGE_SIZE)
    data = LabeledImages(images, torch.arange(count) % CLASSES).to(compute.device)
    training = start_training(settings, compute, count)
    batch, step = torch.arange(count, device=compute.device), make_step(training, data)
    for group in training.optimizer.param_groups:
        group["lr"] = group["lr"] * 0  # a rate that is too high is not the device's failure either
    # Three times: a CUDA graph is recorded at the second step and replayed at the third.
    losses = [step(batch, size)[0] for size in set(settings.image_sizes) for _ in range(3)]
    total = sum(losses) + predict_logits(training.network, images, compute).sum()
    if not math.isfinite(total.item()):
        raise RuntimeError("a first step gave values that are not finite")


def make_step(training: Training, data: LabeledImages) -> Callable[..., tuple[Tensor, Tensor]]:
    """`train_batch` as a function of batch and size; where it pays, recorded as CUDA graphs."""
    step = partial(train_batch, training, data)
    if training.compute.cuda_graphs and isinstance(training.optimizer, Muon):
        return record_cuda_graphs(training, step)
    return step


def record_cuda_graphs(
    training: Training, step: Callable[..., tuple[Tensor, Tensor]]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A training step that is recorded once for each batch length and size, and then replayed."""
    # A step is 300 small operations, and to launch them takes five times as long as to compute
    # them: 5.4 ms for 1.0 ms in `fast` on an H200.
    for group in training.optimizer.param_groups:  # a replayed step reads its rate from there
        group["lr"] = torch.as_tensor(group["lr"], device=training.compute.device)
    graphs: dict[tuple[int, int], Any] = {}

    def replay_step(batch: Tensor, size: int) -> tuple[Tensor, Tensor]:
        key = (len(batch), size)
        if key not in graphs:
            graphs[key] = None  # the first step is a plain one, so that libraries are set up
            return step(batch, size)
        if graphs[key] is None:
            graph, place, stream = torch.cuda.CUDAGraph(), batch.clone(), torch.cuda.Stream()
            graph.register_generator_state(training.device_generator)
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                graph.capture_begin()
                try:
                    results = step(place, size)
                finally:  # otherwise nothing runs on this GPU any more, not even a plain step
                    graph.capture_end()
            graphs[key] = graph, place, results
        graph, place, results = graphs[key]
        place.copy_(batch)
        graph.replay()
        return results[0].clone(), results[1].clone()

    return replay_step


@contextlib.contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Let this process keep the memory that tensors free, for the next tensors."""
    # By default glibc returns the pages of a large tensor to Linux at once, which hands them out
    # again one by one, filled with zeros: a fifth of the time of training on a CPU.
    trim_threshold, mmap_threshold = -1, -3
    largest = 2**25  # bytes, the largest mmap_threshold that glibc allows
    try:
        libc = ctypes.CDLL(None)
        set_option, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc: macOS, Windows, musl
        yield
        return
    set_option(trim_threshold, 2**30)
    set_option(mmap_threshold, largest)
    try:
        yield
    finally:
        # glibc's default. The other one stays where glibc's own rule raises it, once it has freed a
        # tensor of this size.
        set_option(trim_threshold, 2**17)
        trim(0)


def set_threads(threads: int | None) -> None:
    """Set torch's number of threads, or the default; InputError for none or far too many."""
    cores = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= 4 * cores:
        raise InputError(f"--threads {threads}: this machine has {cores} cores")
    torch.set_num_threads(threads or count_default_threads())


def count_default_threads() -> int:
    """torch's own number of threads, but at most the cores that this process may use."""
    from joblib import cpu_count  # a tenth of a second; it knows affinity and cgroup quotas

    return max(1, min(torch.get_num_threads(), cpu_count()))


# %% Layers
# torch has these, too, but slower, with randomness of its own, or not for a lone image.

class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that also trains on a lone image, such as the last one of an epoch."""

    def forward(self, maps: Tensor) -> Tensor:
        """From N x C x H x W to the same shape."""
        # A single value of a channel has no variance, and torch refuses it. The statistics of
        # earlier batches serve as well.
        if self.training and maps.numel() == self.num_features:
            mean, variance = self.running_mean, self.running_var
            return functional.batch_norm(maps, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(maps)


class GlobalMaxPool(nn.Module):
    """The maximum of each feature map, N x C x 1 x 1."""

    def forward(self, maps: Tensor) -> Tensor:
        """From N x C x H x W."""
        # torch's own layer is slow on a GPU; on a CPU `amax` takes ten times as long as that layer.
        if maps.device.type == "cpu":
            return functional.adaptive_max_pool2d(maps, 1)
        return maps.amax(dim=(2, 3), keepdim=True)


class SeededDropout(nn.Module):
    """Dropout whose randomness comes from a generator that is passed in, not from global state."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability = probability
        self.generator = generator

    def forward(self, values: Tensor) -> Tensor:
        """In training, set values to zero at random and scale the others up to make up for it."""
        if not self.training or self.probability == 0:
            return values
        keep = 1 - self.probability
        mask = draw_mask(values, keep, self.generator)
        return values * mask.to(values.dtype).div_(keep)


def draw_mask(values: Tensor, keep: float, generator: torch.Generator) -> Tensor:
    """A mask for dropout in the shape and memory layout of `values`, 1 with probability `keep`."""
    if values.device.type != "cpu":
        return torch.empty_like(values).bernoulli_(keep, generator=generator)
    # torch draws a double for each value: nearly a third of this recipe's time. Four 16-bit values
    # out of each 64-bit draw take a quarter of that.
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    shorts = words.view(torch.int16)[: values.numel()]
    shorts = shorts.as_strided(values.shape, values.stride())
    return shorts < round(keep * 2**16) - 2**15


# %% Affine maps
# Rotation, shift, zoom and shear of whole batches, each image by its own map.

def build_affine_matrices(rotation: Tensor, shift: Tensor, zoom: Tensor, shear: Tensor) -> Tensor:
    """Affine maps about the center of the image, N x 2 x 3, as `functional.affine_grid` takes them.

    Rotation in degrees counterclockwise, N; shift in pixels of 28 to the right and down, N x 2;
    zoom as a factor, N; shear in degrees to the right, N.
    """
    angle = rotation * (math.pi / 180)
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    slope = torch.tan(shear * (math.pi / 180))
    # From a place in the result to the place in the source that it shows, so every map is inverted:
    # source = unshear(unrotate(unzoom(result - shift))).
    of_x = torch.stack([cosine + slope * sine, slope * cosine - sine], dim=1)
    linear = torch.stack([of_x, torch.stack([sine, cosine], dim=1)], dim=1)
    # An image is 2 wide in these coordinates, and IMAGE_SIZE pixels.
    offset = -linear @ (shift * (2 / IMAGE_SIZE)).unsqueeze(2)
    return torch.cat([linear, offset], dim=2)


def apply_affine(images: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Resample each image by its own map, bilinear, to N x 1 x size x size, with zeros outside."""
    centers = get_pixel_centers(size, images.device)
    # All pixels of a column share one product, all of a row another: 1.1 us an image, where
    # functional.affine_grid multiplies a matrix for every pixel and takes 8.4 us.
    of_rows = matrices[:, :, 1, None] * centers + matrices[:, :, 2, None]
    planes = torch.addcmul(of_rows[..., None], matrices[:, :, 0, None, None], centers)
    grid = planes.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)


def resize(images: Tensor, size: int) -> Tensor:
    """Images, float, N x 1 x H x W, at the size of an epoch, resampled as `augment` does."""
    if size == images.shape[-1]:
        return images
    identity = torch.eye(2, 3, device=images.device).expand(len(images), -1, -1)
    return apply_affine(images, identity, size)


def get_pixel_centers(size: int, device: torch.device) -> Tensor:
    """The coordinates of `size` pixel centers; the edges of the image are -1 and 1."""
    return (2 * torch.arange(size, device=device) + 1) / size - 1


def apply_view(view: tuple[float, tuple[float, float], float], pixels: Tensor) -> Tensor:
    """Images, float, N x 1 x 28 x 28, in another view: bilinear, zeros outside."""
    rotation, shift, zoom = (torch.tensor([value], dtype=torch.float32) for value in view)
    matrix = build_affine_matrices(rotation, shift, zoom, shear=torch.zeros(1)).to(pixels.device)
    return apply_affine(pixels, matrix.expand(pixels.shape[0], -1, -1), pixels.shape[-1])


# %% Folds
# Which rows a split holds out: all images are shuffled, then sorted by class, so that rows at even
# steps hold out the same fraction of every class.

def split_fold(
    labels: Tensor, folds: int, fold: int, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Hold out one of several equal folds, numbered from 0; as `split_indices`."""
    fewest = int(labels.unique(return_counts=True)[1].min()) if by_class else len(labels)
    if fewest < folds:
        raise InputError(f"{folds} folds need {folds} images of every class: {ADVICE}")
    return split_at_positions(
        labels, torch.arange(fold, len(labels), folds), seed, by_class=by_class
    )


def split_at_positions(
    labels: Tensor, positions: Tensor, seed: int, *, by_class: bool
) -> tuple[Tensor, Tensor]:
    """Shuffle all rows and hold out those at the given positions of the shuffled sequence.

    With `by_class` the shuffled sequence is sorted by class first, so that positions at even steps
    take the same fraction of every class. Both results keep the shuffled order.
    """
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    sequence = labels[rows].argsort(stable=True) if by_class else torch.arange(len(labels))
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    is_held_out[sequence[positions]] = True
    return rows[~is_held_out], rows[is_held_out]


# %% Parsing a table
# A bad file is refused with the row and the column where it is wrong.

def read_table(path: Path, columns: list[str], rows: np.ndarray | None = None) -> np.ndarray:
    """These columns of a CSV, which has them in any order, as uint8, rows x columns.

    `rows`: what `parse_rows` returned for the file, if somebody has called it already.
    """
    # InputError: see the chapter Basics
    # show_progress: see the chapter The console
    header: list[str] = []
    try:
        with path.open("rb") as file:
            lines = filter(str.strip, io.TextIOWrapper(file, "utf-8-sig"))  # without blank lines
            header = [name.strip().strip('"') for name in next(lines, "").split(",")]
            check_header(header, columns)
            if rows is None:
                rows = parse_rows(show_progress(lines, desc=f"reading {path.name}", unit=" rows"))
        check_table(rows, header)
    except ValueError as error:
        raise InputError(f"{path}: {name_cell(str(error), header)}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    return rows if header == columns else rows[:, [header.index(name) for name in columns]]


def check_header(header: list[str], columns: list[str]) -> None:
    """Raise ValueError unless the header has each of the columns once, and no other."""
    if header[0].startswith("<"):
        raise ValueError("a web page, not the data: sign in and accept the rules")
    for name in columns:
        if name not in header:
            raise ValueError(f"line 1: column {name!r} is missing")
    for name in header:
        if name not in columns:
            raise ValueError(f"line 1: column {name!r:.40} is unknown")
        if header.count(name) > 1:
            raise ValueError(f"line 1: column {name!r} appears twice")


def parse_rows(lines: Iterable[str]) -> np.ndarray:
    """Rows of numbers as uint8; ValueError for a cell that is not an integer from 0 to 255."""
    with warnings.catch_warnings():
        # numpy before 2.3 reads 300 as 44, -1 as 255 and 3.7 as 3, and only warns.
        warnings.simplefilter("error", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)  # about a file without rows, refused later
        # pandas' C engine takes half as long again for the same file.
        return np.loadtxt(lines, np.uint8, delimiter=",", quotechar='"', comments=None, ndmin=2)


def check_table(table: np.ndarray, header: list[str]) -> None:
    """Raise ValueError for a table without rows, with wrong rows, or with wrong labels."""
    if not table.size:
        raise ValueError("it has a header but no rows")
    if table.shape[1] != len(header):
        raise ValueError(f"a row has {table.shape[1]} values, not {len(header)}")
    # CLASSES: see the chapter Basics
    if "label" in header:
        labels = table[:, header.index("label")]
        wrong_rows = np.flatnonzero(labels >= CLASSES)
        if len(wrong_rows):
            row = wrong_rows[0]
            raise ValueError(f"row {row + 1}, column label: {labels[row]} is not a digit")
        if labels.min() == labels.max():
            raise ValueError(f"every label is {labels[0]}")


def name_cell(message: str, header: list[str]) -> str:
    """numpy's message about a bad cell, with the name of its column in place of its number."""
    found = re.match(r"could not convert string (.*) to .* at row (\d+), column (\d+)", message)
    if not found:
        return message.partition(";")[0]
    row, column = int(found[2]) + 1, dict(enumerate(header, 1)).get(int(found[3]), "surplus")
    return f"row {row}, column {column}: {found[1]:.40} is not an integer from 0 to 255"


# %% Checking settings
# A wrong value ends the run before it starts, with what the setting takes.

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


# %% Kaggle
# Where the data and the results are on Kaggle's machines, and here.

COMPETITION = "digit-recognizer"
KAGGLE_TEST_IMAGES = 28_000


def on_kaggle() -> bool:
    """Whether this is a Kaggle machine."""
    # Kaggle sets this variable in scripts and in notebooks.
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def get_kaggle_folder(name: str) -> Path:
    """Kaggle's `input` or `working`; in tests DIGITKAGGLE_KAGGLE_ROOT replaces `/kaggle`."""
    return Path(os.environ.get("DIGITKAGGLE_KAGGLE_ROOT", "/kaggle")) / name


def find_data() -> Path | None:
    """The folder with both CSVs, below Kaggle's input folder or below `data`; None without one."""
    root = get_kaggle_folder("input") if on_kaggle() else Path("data")
    folders = [p.parent for p in root.rglob(TRAIN_FILE) if (p.parent / TEST_FILE).is_file()]
    # Searched, not named, because Kaggle moved the folder in 2026. Where other data sets are
    # attached too, the folder of the competition comes first.
    return min(folders, key=lambda path: (COMPETITION not in path.parts, path), default=None)


def require_data(explicit: Path | None = None) -> Path:
    """The explicit folder, or the one that `find_data` finds; InputError without either."""
    location = explicit or find_data()
    if location is None:
        place = get_kaggle_folder("input") if on_kaggle() else "data"
        raise InputError(f"no data in {place}: add the competition's, or name a folder by --data")
    return location


# %% Calibration
# Label smoothing makes a network claim 91 % where it is correct 99.9 % of the time. One number, the
# temperature that its logits are divided by, makes its confidence match its accuracy.

def calibrate(network: nn.Sequential, logits: Tensor, labels: Tensor) -> float:
    """Divide the network's logits by the temperature that minimizes the held-out loss; return it.

    Logits, float32, N x 10, and labels, int64, N, are those of held-out images, on any device.
    Guo et al., On calibration of modern neural networks, 2017.
    """
    last = network[-1]
    if not isinstance(last, nn.Linear):
        raise TypeError(f"only the logits of a linear layer can be scaled, not of {last}")
    logits, labels = logits.cpu(), labels.cpu()

    def measure_loss(temperature: float) -> float:
        # As if a third of one more image were misclassified: without any error, no confidence
        # would be too high.
        scaled, doubt = logits / temperature, 0.3 / len(labels)
        return functional.cross_entropy(scaled, labels, label_smoothing=doubt).item()

    temperature = min((0.1 * 1.02**step for step in range(200)), key=measure_loss)  # 0.1 to 5
    with torch.no_grad():
        for parameter in last.parameters():  # so that nothing else has to know the temperature
            parameter.div_(temperature)
    return temperature


# %% The published recipe
# Where this project started, kept faithfully as the preset `classic`: seven fixed copies of every
# image and a network of two wide convolutions with dropout. It reaches 99.4 % on Kaggle, after more
# than a day on two CPU cores.

# The original, four shifts in pixels (down, right), two rotations in degrees.
CLASSIC_SHIFTS, CLASSIC_ROTATIONS = ((0, -1), (0, 1), (-1, 0), (1, 0)), (-10, 10)
CLASSIC_COPIES = 1 + len(CLASSIC_SHIFTS) + len(CLASSIC_ROTATIONS)


def expand_classic_set(data: LabeledImages) -> LabeledImages:
    """Every image seven times: as it is, shifted by one pixel four ways, rotated by -10 and +10.

    One whole set follows another. From uint8, N x 1 x 28 x 28, to float32, 7N x 1 x 28 x 28.
    """
    from scipy import ndimage

    # show_progress: see the chapter The console
    pixels = data.images.squeeze(1).numpy().astype(np.float32) / np.float32(255)
    # Values go a little beyond 0 and 1: splines of order 3 overshoot, and the recipe never clips.
    expanded = np.empty((CLASSIC_COPIES, *pixels.shape), dtype=np.float32)
    expanded[0] = pixels
    copies = iter(show_progress(expanded[1:], desc="augmenting"))
    for down, right in CLASSIC_SHIFTS:
        ndimage.shift(pixels, (0, down, right), output=next(copies), order=3, cval=0.0)
    for degrees in CLASSIC_ROTATIONS:
        # From axis 2 towards 1: what rotate() does by default to a single image.
        ndimage.rotate(
            pixels, degrees, axes=(2, 1), reshape=False, output=next(copies), order=3, cval=0.0
        )
    images = torch.from_numpy(expanded.reshape(-1, 1, *pixels.shape[1:]))
    return LabeledImages(images, data.labels.repeat(CLASSIC_COPIES))


def select_training_images(digits: Digits, rows: Tensor, settings: Settings) -> LabeledImages:
    """The images of these rows to train on: as they are, or with the classic recipe's copies."""
    data = LabeledImages(digits.train_images[rows], digits.train_labels[rows])
    if settings.augmentation == "expanded":
        data = expand_classic_set(data)
    return data


def build_classic_network(dropout: float, generator: torch.Generator) -> nn.Sequential:
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


def make_adam(network: nn.Module, rate: float, decay: float) -> torch.optim.Adam:
    """Adam for all parameters of a network."""
    on_gpu = next(network.parameters()).is_cuda  # there `fused` handles overflows by itself
    return torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay, fused=on_gpu or None)


# %% The console
# What a reader sees while the program runs.

def configure_logging(level: int = logging.INFO) -> None:
    """Print messages of `level` and above: warnings to standard error, others to output."""
    output, errors = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    output.addFilter(lambda record: record.levelno < logging.WARNING)
    errors.setLevel(logging.WARNING)
    logger.handlers, logger.propagate = [output, errors], False
    logger.setLevel(level)


def show_progress(items: Any = None, **options: Any) -> tqdm:
    """A progress bar around `items`, on a terminal only, once it takes over two seconds."""
    disabled = bool(os.environ.get("TQDM_DISABLE")) or None  # None: tqdm asks if it is a terminal
    return tqdm(items, disable=disabled, **({"leave": False, "delay": 2} | options))


def find_size_changes(image_sizes: Sequence[int], epochs: int) -> list[tuple[int, int]]:
    """The size that each epoch ends at, as pairs: the first epoch with a size, and the size."""
    changes: list[tuple[int, int]] = []
    if not image_sizes:  # of a run that another version made
        return changes
    for epoch in range(1, epochs + 1):
        size = image_sizes[math.ceil(epoch / epochs * len(image_sizes)) - 1]
        if not changes or changes[-1][1] != size:
            changes.append((epoch, size))
    return changes


def log_plan(training: Training, images: int, held_out: int) -> None:
    """Log how many images train, and at which sizes."""
    logger.info(f"{images:,} images to train on, {held_out:,} held out to validate on")
    epochs = training.epochs
    changes = find_size_changes(training.settings.image_sizes, epochs)
    parts = []
    for (first, size), following in zip(changes, [*changes[1:], (epochs + 1, 0)], strict=True):
        last = following[0] - 1
        span = f"epochs {first} to {last}" if last > first else f"epoch {first}"
        parts.append(f"{span} of {epochs} on {size} x {size} pixels")
    if len(parts) > 1:
        logger.info("Small images first: " + ", ".join(parts) + "; validation uses the same sizes.")


def log_epoch(row: dict[str, float], training: Training) -> None:
    """Log one aligned line for an epoch."""
    # Epochs at smaller sizes cannot be the best.
    comparable = training.best_loss < math.inf
    best = "  best" if training.best_epoch == row["epoch"] and comparable else ""
    logger.info(
        f"epoch {row['epoch']:3}/{training.epochs}  loss {row['train_loss']:.4f}  "
        f"accuracy {row['train_accuracy']:7.2%}  validation loss {row['val_loss']:.4f}  "
        f"accuracy {row['val_accuracy']:7.2%}  {row['seconds']:5.1f} s{best}"
    )


def log_members(members: Iterable[Member], digits: Digits) -> Iterator[Member]:
    """The members, and for each a line about the images that it held out."""
    for member in members:
        labels = digits.train_labels[member.held_out_rows]
        errors = (member.held_out_probabilities.argmax(dim=1) != labels).sum()
        logger.info(
            f"member {member.number}: {errors} of {len(labels)} held-out images misclassified, "
            f"weights of epoch {member.best_epoch} of {len(member.history)}, "
            f"{member.seconds['train']:.0f} s"
        )
        yield member


# %% The results
# What a run leaves on disk: the submission, the weights, the history of the training, metrics as
# JSON, all probabilities, and one picture. Every file is written under another name and then renamed,
# so it is either complete or not there.

SUBMISSION, MODEL, HISTORY = "submission.csv", "model.pt", "history.csv"
METRICS, PICTURE = "metrics.json", "result.png"
PROBABILITIES, VALIDATION = "probabilities.npy", "validation.npz"


@dataclass(frozen=True)
class HeldOutPredictions:
    """The predictions for held-out images, each by a network that did not train on it."""

    row: np.ndarray  # int64, N: rows of train.csv, from 0
    label: np.ndarray  # int64, N: the true classes
    probabilities: np.ndarray  # float32, N x 10
    member: np.ndarray | None = None  # int64, N: the number of that network, if known

    def __len__(self) -> int:
        return len(self.row)

    @property
    def predicted(self) -> np.ndarray:
        """The most likely class of each image, int64, N."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of that class, float32, N."""
        return self.probabilities.max(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Whether that class is the true one, bool, N."""
        return self.predicted == self.label


def collect_held_out(result: Result, digits: Digits) -> HeldOutPredictions:
    """The members' predictions for the images that they held out."""
    rows = torch.cat([member.held_out_rows for member in result.members])
    counts = [len(member.held_out_rows) for member in result.members]
    return HeldOutPredictions(
        row=rows.numpy(),
        label=digits.train_labels[rows].numpy(),
        probabilities=torch.cat([m.held_out_probabilities for m in result.members]).numpy(),
        member=np.repeat([member.number for member in result.members], counts),
    )


def compute_data_digest(digits: Digits) -> str:
    """SHA-256 of all pixels and labels: the same for the same digits, however stored."""
    total = hashlib.sha256()
    tensors = (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels)
    for tensor in tensors:
        if tensor is not None:
            # The shape too: else a row moved from train to test would not change the digest.
            total.update(f"{tuple(tensor.shape)}".encode())
            total.update(tensor.contiguous().numpy().data)
    return total.hexdigest()


def write_results(
    folder: Path, result: Result, digits: Digits, metrics: dict, submission: str = SUBMISSION
) -> None:
    """Write a run's files; `metrics.json`, which marks a finished run, comes last."""
    # QUICK_PNG, draw_result: see the chapter Drawing
    probabilities = result.probabilities.numpy()
    held_out = collect_held_out(result, digits)
    history = make_history_table(result)
    columns = ",".join(history.dtype.names)
    lines = [
        f"{number},{digit}\n" for number, digit in enumerate(probabilities.argmax(axis=1), start=1)
    ]
    weights = {member.number: member.weights for member in result.members}
    model = {"settings": vars(result.settings), "members": weights}
    write_file(folder / MODEL, lambda file: torch.save(model, file))
    write_file(
        folder / HISTORY,
        lambda file: np.savetxt(
            file, history, fmt="%.9g", delimiter=",", header=columns, comments=""
        ),
    )
    write_file(folder / PROBABILITIES, lambda file: np.save(file, probabilities))
    picture = draw_result(result, digits)
    write_file(folder / PICTURE, lambda file: picture.savefig(file, pil_kwargs=QUICK_PNG))
    write_file(folder / submission, "".join(["ImageId,Label\n", *lines]).encode())
    if len(held_out):
        write_file(folder / VALIDATION, lambda file: np.savez(file, **vars(held_out)))
    write_file(folder / METRICS, json.dumps(metrics, indent=2).encode())


def prepare_folder(folder: Path) -> None:
    """Create a folder for results; InputError, before any work, if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{folder} cannot be used ({error.strerror}): choose another --out"
        ) from error


def write_file(path: Path, save: Callable[[BinaryIO], object] | bytes) -> None:
    """Put bytes, or what `save` writes, at `path` in one step: readers see the old or new file."""
    temporary, buffer = path.with_name(f".{path.name}.{os.getpid()}.part"), io.BytesIO()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(save, bytes):
            buffer.write(save)
        else:  # through memory: torch would write the file's name into the file
            save(buffer)
        temporary.write_bytes(buffer.getbuffer())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        advice = "free some space, check its permissions, or name another folder"
        raise InputError(f"{path} cannot be written ({error.strerror}): {advice}") from error


def make_history_table(result: Result) -> np.ndarray:
    """The members' histories: one record per epoch, with named columns."""
    rows = [{"member": member.number, **row} for member in result.members for row in member.history]
    return np.array([tuple(row.values()) for row in rows], [(name, float) for name in rows[0]])


def collect_metrics(
    result: Result, digits: Digits, source_digest: str, seconds: dict[str, float]
) -> dict[str, Any]:
    """The contents of `metrics.json`; `best_epoch` and `epochs` of several members are lists."""
    members, compute = result.members, result.compute
    held_out = collect_held_out(result, digits)
    validation = None
    if len(held_out):
        # Each held-out image is predicted by its own member, which did not train on it.
        validation = measure_accuracy(held_out.probabilities, held_out.label)
        validation["loss"] = sum(member.best_loss for member in members) / len(members)
    spent = {part: sum(m.seconds[part] for m in members) for part in members[0].seconds}
    best_epochs, epochs = [m.best_epoch for m in members], [len(m.history) for m in members]
    several = result.settings.members > 1
    return {
        "settings": vars(result.settings),
        "versions": {"digitkaggle": VERSION, "torch": torch.__version__, "numpy": np.__version__},
        "source_digest": source_digest,
        "data": {
            "origin": digits.origin,
            "digest": compute_data_digest(digits),
            "training_images": len(digits.train_images),
            "test_images": len(digits.test_images),
        },
        "device": {"name": str(compute.device), "dtype": str(compute.dtype), "why": compute.reason},
        "warnings": [compute.warning] if compute.warning else [],
        "seconds": {name: round(value, 3) for name, value in (spent | seconds).items()},
        "validation": validation,
        "temperatures": [round(member.temperature, 3) for member in members],
        "best_epoch": best_epochs if several else best_epochs[0],
        "epochs": epochs if several else epochs[0],
    }


def measure_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy (0 to 1), its binomial standard error, and the number of images."""
    images = len(labels)
    accuracy = int((probabilities.argmax(axis=1) == labels).sum()) / images
    error = math.sqrt(accuracy * (1 - accuracy) / images)
    return {"accuracy": accuracy, "standard_error": error, "images": images}


# %% Drawing
# The pictures of a run, each drawn into the matplotlib axes that it is given.

# For a report's figures and for the one picture of a run.
STYLE = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "font.size": 9,
    "grid.alpha": 0.4,
    "legend.frameon": False,
    "savefig.dpi": 130,
}
QUICK_PNG = {"compress_level": 1}  # a third of the time of savefig's own
TRAIN_COLOR, VALIDATION_COLOR = "#2563c9", "#c2510c"


def draw_images(axes: Any, images: Tensor, captions: Sequence[str] = (), columns: int = 10) -> None:
    """Small images, uint8, N x 1 x 28 x 28, in rows, dark on white, with captions below them."""
    height, width = IMAGE_SIZE + (16 if captions else 4), IMAGE_SIZE + 4
    rows = max(1, -(-len(images) // columns))
    canvas = np.zeros((rows * columns, height, width), dtype=np.uint8)
    canvas[: len(images), :IMAGE_SIZE, 2:-2] = images.squeeze(1).numpy()
    canvas = canvas.reshape(rows, columns, height, width).swapaxes(1, 2)
    axes.imshow(canvas.reshape(rows * height, -1), cmap="gray_r", vmin=0, vmax=255)
    axes.axis("off")
    for place, caption in enumerate(captions):
        x, y = place % columns * width + width / 2, place // columns * height + IMAGE_SIZE + 1
        axes.text(x, y, caption, ha="center", va="top", fontsize=7)


def draw_curves(
    axes: Any, history: np.ndarray, quantity: str, image_sizes: Sequence[int] = ()
) -> None:
    """`loss`, or `accuracy` as the error rate on a logarithmic scale, over epochs.

    A line marks each epoch from which on images of another size are trained and validated on.
    """
    from matplotlib.ticker import MaxNLocator

    is_loss = quantity == "loss"
    for part, label, color in (
        ("train", "training", TRAIN_COLOR),
        ("val", "validation", VALIDATION_COLOR),
    ):
        for number in np.unique(history["member"]):
            rows = history[history["member"] == number]
            values = rows[f"{part}_{quantity}"]
            # A logarithmic scale has no zero.
            values = values if is_loss else (1 - values).clip(min=2e-4)
            label_once = label if number == history["member"].min() else None
            axes.plot(rows["epoch"], values, ".-", color=color, alpha=0.8, label=label_once)
    axes.set(xlabel="epoch", ylabel="loss" if is_loss else "error rate")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not is_loss:
        format_error_axis(axes)
    for epoch, size in find_size_changes(image_sizes, int(history["epoch"].max()))[1:]:
        axes.axvline(epoch - 0.5, linestyle="--", color="grey", linewidth=1)
        above = axes.get_xaxis_transform()  # x in epochs, y from 0 to 1, the top of the axes
        text = f"{size} x {size}"
        axes.text(epoch - 0.5, 1.01, text, transform=above, ha="center", fontsize=8, color="grey")
    axes.legend(loc="upper right")


def format_error_axis(axes: Any) -> None:
    """Give error rates a logarithmic scale with ticks such as 1 % and 0.5 %."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, position: f"{100 * value:g} %")


def draw_confusion(axes: Any, held_out: HeldOutPredictions) -> None:
    """The confusion matrix as counts; colors on a logarithmic scale."""
    pairs = CLASSES * held_out.label + held_out.predicted
    counts = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    # Half an image more in each cell, because a logarithmic scale has no zero.
    axes.imshow(counts + 0.5, cmap="Blues", norm="log")
    for row, column in np.argwhere(counts):
        color = "white" if row == column else "black"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    axes.set(
        xlabel="predicted digit",
        ylabel="true digit",
        xticks=range(CLASSES),
        yticks=range(CLASSES),
    )
    axes.grid(visible=False)


def draw_mistakes(axes: Any, digits: Digits, held_out: HeldOutPredictions, most: int = 40) -> None:
    """The misclassified held-out images, the most confident first, with prediction and truth."""
    wrong = np.flatnonzero(~held_out.correct)
    first = wrong[np.argsort(-held_out.confidence[wrong], kind="stable")][:most]
    captions = [
        f"{held_out.predicted[i]}, {held_out.confidence[i]:.0%}\nis a {held_out.label[i]}"
        for i in first
    ]
    columns = 10 if len(first) > 20 else 5  # a few are drawn larger
    draw_images(axes, digits.train_images[held_out.row[first]], captions, columns)
    axes.set_title(f"most confident of {len(wrong)} errors on {len(held_out):,} held-out images")


def draw_result(result: Result, digits: Digits) -> Any:
    """Curves, confusion matrix and mistakes, as one matplotlib figure."""
    # Imported here because it takes a second. A Figure of its own needs no display.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    held_out = collect_held_out(result, digits)
    with rc_context(STYLE):
        # Fixed places: matplotlib's layouts draw everything twice to find them.
        figure = Figure(figsize=(13, 10 if len(held_out) else 4))
        curves, *below = figure.subfigures(2 if len(held_out) else 1, 1, squeeze=False).flat
        edges = {"left": 0.05, "right": 0.99, "bottom": 0.12, "top": 0.92, "wspace": 0.15}
        losses, errors = curves.subplots(1, 2, gridspec_kw=edges)
        history = make_history_table(result)
        draw_curves(losses, history, "loss", result.settings.image_sizes)
        draw_curves(errors, history, "accuracy", result.settings.image_sizes)
        for part in below:
            edges = {"left": 0.05, "right": 0.99, "bottom": 0.1, "top": 0.95, "wspace": 0.05}
            confusion, mistakes = part.subplots(1, 2, width_ratios=(1, 1.7), gridspec_kw=edges)
            draw_confusion(confusion, held_out)
            draw_mistakes(mistakes, digits, held_out)
    return figure


# %% The program
# Every setting is a flag, and no flag is needed. On Kaggle's two GPUs a process each trains every
# other member, which changes only the time.

SOURCE_DIGEST = "a42bdc385c6fd427ab0dce3102cf8d23bdbd5724406e8ccfc0829f0732471ac5"


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, so that they are printed like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise the error, with the command that prints help."""
        raise InputError(f"{message}: see {self.prog} --help")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a run to a parser: how to run, then one for each field of Settings."""
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder with both CSVs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    for field in dataclasses.fields(Settings):
        options: dict[str, Any] = {"type": type(field.default), "metavar": "N"}
        if isinstance(field.default, bool):
            options = {"action": argparse.BooleanOptionalAction}
        elif isinstance(field.default, tuple):
            options = {"type": integers, "metavar": "N,N"}
        elif isinstance(field.default, str):
            options = {"choices": field.metadata["choices"] or list(PRESETS)}
        text = f"{field.metadata['meaning']} ({describe_presets(field.name)})".replace("%", "%%")
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, dest=field.name, default=None, help=text, **options)


def integers(text: str) -> tuple[int, ...]:
    """The value of a flag such as `--widths 8,8,8`."""
    return tuple(map(int, text.split(",")))


def describe_presets(name: str) -> str:
    """A setting's default, then the presets with another value: `14; 3 fast, 150 classic`."""
    values = {preset: getattr(settings, name) for preset, settings in PRESETS.items()}
    shown = {
        preset: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for preset, value in values.items()
    }
    default = shown["balanced"]
    others = [f"{value} {preset}" for preset, value in shown.items() if value != default]
    return "; ".join([default, ", ".join(others)] if others and name != "preset" else [default])


def settings_from_args(
    args: argparse.Namespace, default_preset: str, changes: Mapping[str, Any] | None = None
) -> Settings:
    """The preset with changes, over which the flags win."""
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)}
    values = dict(changes or {}) | {name: v for name, v in given.items() if v is not None}
    return make_settings(values.pop("preset", default_preset), values)


def map_on_gpus(
    compute: Compute, train_one: Callable[..., Member], numbers: Sequence[int]
) -> Iterator[Member]:
    """Members trained by a process for each GPU, as they finish; without several GPUs, here."""
    finished = set()
    gpus = torch.cuda.device_count() if compute.device == torch.device("cuda") else 1
    if min(gpus, len(numbers)) > 1:
        from joblib import Parallel, delayed  # a tenth of a second, only where it is needed

        jobs = (
            delayed(train_on_gpu)(train_one, compute, number, number % gpus) for number in numbers
        )
        # Only failures of a device or of its process: any other error would come again.
        failures = (BrokenExecutor, torch.OutOfMemoryError)
        failures += (getattr(torch, "AcceleratorError", BrokenExecutor),)  # from torch 2.8 on
        try:
            for member in Parallel(n_jobs=gpus, return_as="generator_unordered")(jobs):
                finished.add(member.number)
                yield member
        except failures as error:
            reason = str(error).strip().partition("\n")[0]
            logger.warning("A GPU failed (%s): one GPU trains the remaining members.", reason)
    yield from map(train_one, [number for number in numbers if number not in finished])


def train_on_gpu(
    train_one: Callable[..., Member], compute: Compute, number: int, gpu: int
) -> Member:
    """A member trained on one of several GPUs, in this process."""
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return train_one(number, compute=dataclasses.replace(compute, device=device))


def run_kernel(arguments: Sequence[str]) -> Path:
    """The full run with these flags; returns the folder with the results."""
    parser = OneLineParser(description="Trains on Kaggle's Digit Recognizer: submission.csv.")
    add_run_arguments(parser)
    args = parser.parse_args(arguments)
    configure_logging()
    set_threads(args.threads)
    started = time.perf_counter()
    settings = settings_from_args(args, "best")  # minutes on a GPU
    compute = choose_compute(settings, args.device)
    if compute.device.type == "cpu":
        settings = settings_from_args(args, "balanced")
    digits = read_digits(require_data(args.data))
    loaded = time.perf_counter()
    folder = args.out or (get_kaggle_folder("working") if on_kaggle() else Path("runs") / "kernel")
    prepare_folder(folder)
    logger.info("preset %s, %s: %s", settings.preset, compute.dtype, compute.reason)
    warn_without_gpu(compute)
    result = run(settings, digits, compute, map_members=partial(map_on_gpus, compute))
    seconds = {"load": loaded - started, "total": time.perf_counter() - started}
    metrics = collect_metrics(result, digits, SOURCE_DIGEST, seconds)
    write_results(folder, result, digits, metrics)
    logger.info("validation %s\nfiles in %s", metrics["validation"], folder)
    warn_without_gpu(compute)
    return folder


def warn_without_gpu(compute: Compute) -> None:
    """Warn, impossible to miss, that a GPU that should be there is not used."""
    if compute.warning:
        logger.warning("%s\nNO GPU IS USED. %s\n%s", "*" * 80, compute.warning, "*" * 80)


def main(arguments: Sequence[str]) -> int:
    """Run the kernel and return its exit code, 2 after an error that the user can fix."""
    try:
        run_kernel(arguments)
    except (InputError, torch.OutOfMemoryError) as error:
        advice = "" if isinstance(error, InputError) else ": lower --piece-size or --batch-size"
        print(f"error: {error}".partition("\n")[0] + advice, file=sys.stderr)
        return 2
    return 0


def in_notebook() -> bool:
    """Whether this runs in a notebook's cell, where `sys.argv` belongs to the notebook."""
    return hasattr(builtins, "get_ipython")


if __name__ == "__main__":
    if in_notebook():
        main([])  # sys.exit would look like an error there
    else:
        sys.exit(main(sys.argv[1:]))
