"""Rehearsals of the competition: learn from some training images, predict others that are hidden.

A draw splits the four fifths of the images that choices may use into 20,160 to learn from and
13,440 hidden ones. Each member's probabilities for the hidden ones are kept, so that ensembles of
any members can be judged later, also on another machine:

    python -m tests.benchmarks.rehearsals --data data --draw 1 --train best:1 best:2 large:1
    python -m tests.benchmarks.rehearsals --data data --draw 1
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from digitkaggle.core.affine import apply_affine, build_affine_matrices
from digitkaggle.core.augment import augment
from digitkaggle.core.basics import CLASSES, IMAGE_SIZE, Compute, Digits, LabeledImages
from digitkaggle.core.calibration import calibrate
from digitkaggle.core.device import choose_compute, reuse_freed_memory
from digitkaggle.core.prediction import predict_with_tta
from digitkaggle.core.run import Epochs, train_member
from digitkaggle.core.settings import Settings, derive_member_settings, make_settings
from digitkaggle.core.split import split_for_member
from digitkaggle.core.training import Training, predict_logits, prepare_input
from digitkaggle.runs.data import read_data

from .evaluation import split_off_confirmation

FOLDER = Path("docs/rehearsals")
HIDDEN = 0.4  # of the four fifths: 13,440 of 33,600
VIEWS = 7
LARGE_WIDTH, LARGE_BATCH = 64, 32  # 128 channels in the original
# Epochs at each rate; the last one on images as they are.
LARGE_RATES = [(13, 1e-3), (3, 1e-4), (3, 1e-5)]
LAST_RATE = 1e-5
SMOOTHING = 0.1
# Kinds that differ from `best` in their settings only. Teachers: smoothing hides what else a digit
# resembles (Müller et al., arXiv 1906.02629).
CHANGES: dict[str, dict[str, Any]] = {
    "teacher": {"label_smoothing": 0.0},
    "short": {"epochs": 10},
}


def split_draw(digits: Digits, draw: int) -> tuple[Digits, Tensor]:
    """A draw's images to learn from, with the hidden ones as test images; and the hidden labels."""
    usable, _ = split_off_confirmation(digits)
    labels = usable.train_labels.numpy()
    rows, hidden = train_test_split(
        np.arange(len(labels)), test_size=HIDDEN, stratify=labels, random_state=draw
    )
    images, labels = usable.train_images, usable.train_labels
    return Digits(images[rows], labels[rows], images[hidden]), labels[hidden]


class SqueezeExcite(nn.Module):
    """Each channel times a factor from 0 to 1, computed from all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factors = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, channels // 32),
            nn.ReLU(),
            nn.Linear(channels // 32, channels),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """From N x C x H x W to the same."""
        return maps * self.factors(maps)[:, :, None, None]


class MaxAndMean(nn.Module):
    """The maximum and the mean of each map, from N x C x H x W to N x 2 C."""

    def forward(self, maps: Tensor) -> Tensor:
        """Both by torch's pooling, which on a CPU is ten times as fast as `amax`."""
        largest = functional.adaptive_max_pool2d(maps, 1)
        return torch.cat([largest, functional.adaptive_avg_pool2d(maps, 1)], dim=1).flatten(1)


def build_large_network(width: int) -> nn.Sequential:
    """Nine 3 x 3 convolutions, six of them at 28 x 28: github.com/Matuzas77/MNIST-0.17."""
    layers: list[nn.Module] = []
    for block in range(3):
        for number in range(3):
            channels = width if block or number else 1
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
        layers += [nn.BatchNorm2d(width), SqueezeExcite(width)]
        layers += [nn.AvgPool2d(2)] if block else []
    network = nn.Sequential(*layers, MaxAndMean(), nn.Linear(2 * width, CLASSES, bias=False))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):  # as Keras initializes them
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def build_middle_network(settings: Settings, generator: torch.Generator, *_) -> nn.Sequential:
    """Seven 3 x 3 convolutions without a stride: twice the multiply-adds of `balanced`."""
    layers: list[nn.Module] = []
    channels = 1
    for width, padding, last in [
        (32, 1, False), (32, 1, True), (64, 0, False), (64, 1, True), (128, 1, False),
        (128, 1, False), (128, 0, False),
    ]:  # fmt: skip
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=padding, bias=False))
        layers += [nn.MaxPool2d(2)] if last else []
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    network = nn.Sequential(*layers, MaxAndMean(), nn.Linear(2 * channels, CLASSES))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    return network.to(memory_format=torch.channels_last)


def distort(images: Tensor) -> Tensor:
    """Rotated, shifted, sheared, and each axis zoomed by itself by up to 20 %."""
    draws = torch.rand(len(images), 6) * 2 - 1
    matrices = build_affine_matrices(
        rotation=draws[:, 0] * 10,
        shift=draws[:, 1:3] * 2.8,
        zoom=torch.ones(len(images)),
        shear=draws[:, 3] * 10,
    )
    matrices[:, :, :2] *= 1 + 0.2 * draws[:, None, 4:]
    return apply_affine(images, matrices, images.shape[-1])


def train_large(number: int, digits: Digits, compute: Compute) -> Tensor:
    """Probabilities for the hidden images, N x 10, of one member trained as its author did."""
    torch.manual_seed(number)
    data = LabeledImages(digits.train_images, digits.train_labels)
    network = build_large_network(LARGE_WIDTH).to(memory_format=compute.memory_format)
    optimizer = torch.optim.Adam(network.parameters())
    rates = [rate for epochs, rate in LARGE_RATES for _ in range(epochs)] + [LAST_RATE]
    for epoch, rate in enumerate(rates, start=1):
        started, total = time.perf_counter(), 0.0
        optimizer.param_groups[0]["lr"] = rate
        network.train()
        for batch in torch.randperm(len(data)).split(LARGE_BATCH):
            images = prepare_input(data.images[batch], compute.memory_format)
            images = images if epoch == len(rates) else distort(images)
            optimizer.zero_grad()
            with compute.autocast():
                logits = network(images - 0.5)
            loss = functional.cross_entropy(
                logits.float(), data.labels[batch], label_smoothing=SMOOTHING
            )
            # Its author: "this make stacking better".
            (loss + 0.00025 * network[-1].weight.abs().sum()).backward()
            optimizer.step()
            total += loss.item() * len(batch)
        seconds = time.perf_counter() - started
        print(f"  epoch {epoch}: loss {total / len(data):.4f}, {seconds:.0f} s", flush=True)

    class Centered(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return network(images - 0.5)

    network.eval()
    return predict_with_tta(Centered(), digits.test_images, compute, VIEWS)


def train_kind(kind: str, number: int, digits: Digits) -> dict[str, Tensor]:
    """Probabilities for the hidden images, N x 10, of one member; `averaged` makes four kinds."""
    settings = make_settings("best", CHANGES.get(kind, {}))
    compute = choose_compute(settings)
    with reuse_freed_memory():
        if kind == "large":
            return {kind: train_large(number, digits, compute)}
        if kind == "middle":
            with patch("digitkaggle.core.training.build_network", build_middle_network):
                return {kind: train_member(number, settings, digits, compute).probabilities}
        if kind == "averaged":
            return train_with_averages(number, settings, digits, compute)
        if kind == "best" or kind in CHANGES:
            return {kind: train_member(number, settings, digits, compute).probabilities}
    raise ValueError(f"there is no kind {kind!r}")


def train_with_averages(
    number: int, settings: Settings, digits: Digits, compute: Compute
) -> dict[str, Tensor]:
    """A member as it is, and with averaged weights: EMA of 0.99 and 0.999, the last epoch's mean.

    Averages shrink filters whose norm Muon holds, so their batch statistics are made anew, from
    augmented images at full size, and their temperature, too.
    """
    averages: dict[str, AveragedModel] = {}

    def follow(_: int, training: Training, epochs: Epochs) -> Epochs:
        for decay in (0.99, 0.999):
            average = get_ema_multi_avg_fn(decay)
            averages[f"ema{decay}"] = AveragedModel(training.network, multi_avg_fn=average)
        averages["mean"] = AveragedModel(training.network)
        step = training.optimizer.step

        def step_and_average() -> None:
            step()
            for name, average in averages.items():
                if name != "mean" or training.epoch == training.epochs - 1:
                    average.update_parameters(training.network)

        training.optimizer.step = step_and_average
        return epochs

    member = train_member(number, settings, digits, compute, wrap_epochs=follow)
    probabilities = {"best": member.probabilities}
    train_rows, held_out_rows = split_for_member(digits.train_labels, settings, number)
    held_out = digits.train_images[held_out_rows], digits.train_labels[held_out_rows]
    own_settings = derive_member_settings(settings, number)
    for name, average in averages.items():
        renew_statistics(average, digits.train_images[train_rows], own_settings, compute)
        network = average.module
        logits = predict_logits(network, held_out[0], compute)
        calibrate(network, logits, held_out[1])
        probabilities[name] = predict_with_tta(network, digits.test_images, compute, VIEWS)
    return probabilities


def renew_statistics(
    network: nn.Module, images: Tensor, settings: Settings, compute: Compute
) -> None:
    """Compute batch normalization's means and variances again, over augmented images."""
    generator = torch.Generator().manual_seed(settings.seed)
    batches = (
        augment(prepare_input(batch, compute.memory_format), settings, generator, IMAGE_SIZE)
        for batch in images.split(settings.batch_size)
    )
    with compute.autocast():
        update_bn(batches, network)


def get_file(draw: int, kind: str, number: int) -> Path:
    """Where a member's probabilities are kept."""
    return FOLDER / f"draw{draw}-{kind}-{number}.npz"


def load_members(draw: int, kind: str) -> list[np.ndarray]:
    """Each member's probabilities for the hidden images, N x 10, by number."""
    members = []
    for number in range(1, 100):
        file = get_file(draw, kind, number)
        if file.exists():
            with np.load(file) as stored:
                members.append(stored["probabilities"].astype(np.float64))
    return members


def report(draw: int, labels: np.ndarray) -> None:
    """Errors alone and together, digits that all miss, and each kind against `best`, by McNemar."""
    kinds = sorted({file.name.split("-")[1] for file in FOLDER.glob(f"draw{draw}-*.npz")})
    together: dict[tuple[str, int], np.ndarray] = {}
    for kind in kinds:
        members = load_members(draw, kind)
        wrong = [member.argmax(axis=1) != labels for member in members]
        alone = ", ".join(str(int(errors.sum())) for errors in wrong)
        sums = np.cumsum(members, axis=0).argmax(axis=2) != labels
        ensembles = ", ".join(str(int(errors.sum())) for errors in sums)
        missed = int(np.logical_and.reduce(wrong).sum())
        print(f"{kind}: alone {alone}; together {ensembles}; all miss {missed}")
        together |= {(kind, count): errors for count, errors in enumerate(sums, start=1)}
    for (kind, count), errors in together.items():
        if kind != "best" and ("best", count) in together:
            of_best = together["best", count]
            better, worse = int((of_best & ~errors).sum()), int((errors & ~of_best).sum())
            p = binomtest(better, better + worse).pvalue if better + worse else 1.0
            print(f"{count} of {kind} against {count} of best: {better} better, {worse} worse, "
                  f"p = {p:.3f}")  # fmt: skip


def main() -> None:
    """Train the members that are missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draw", type=int, default=1)
    parser.add_argument("--train", nargs="*", default=[], metavar="KIND:NUMBER")
    args = parser.parse_args()
    digits, labels = split_draw(read_data(args.data), args.draw)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in args.train:
        kind, _, number = name.partition(":")
        file = get_file(args.draw, kind, int(number))
        if not file.exists():
            started = time.perf_counter()
            trained = train_kind(kind, int(number), digits)
            for of_kind, probabilities in trained.items():
                np.savez_compressed(
                    get_file(args.draw, of_kind, int(number)),
                    probabilities=probabilities.numpy().round(3).astype(np.float16),
                )
            print(f"{file.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    report(args.draw, labels.numpy())


if __name__ == "__main__":
    main()
