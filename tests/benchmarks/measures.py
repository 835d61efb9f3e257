"""The measurements: each returns plain numbers, and compares in turn what it compares."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch.utils.flop_counter import FlopCounterMode

from digitkaggle.core.augment import affine_matrices, augmented
from digitkaggle.core.basics import IMAGE_SIZE, Compute, Digits, LabelledImages
from digitkaggle.core.data import PIXEL_COLUMNS
from digitkaggle.core.device import choose_compute
from digitkaggle.core.settings import PRESETS, Settings
from digitkaggle.core.training import make_step, network_input, start_training
from digitkaggle.runs.files import read_data

MATRIX_SIZES = (512, 1024, 2048, 4096)
GROWTH = (10_500, 21_000, 42_000, 168_000)


# Linux counts what the process was before its exec: a child of ours, which may be large, would be
# as large. So a small process stands between.
BETWEEN = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.call(sys.argv[2:])
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], "w").write(f"{seconds} {peak}")
sys.exit(code)
"""


def run_process(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in GB of one whole Python process; its failure is ours."""
    with tempfile.NamedTemporaryFile() as measured:
        command = [sys.executable, *arguments]
        subprocess.run([sys.executable, "-c", BETWEEN, measured.name, *command], check=True)
        seconds, peak = map(float, Path(measured.name).read_text().split())
    # Linux counts in KiB, macOS in bytes.
    return seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def run_preset(preset: str, folder: Path, *flags: str) -> dict[str, Any]:
    """One whole run in a process of its own: accuracy, seconds, memory."""
    command = ["-m", "digitkaggle", "run", "--quiet", "--preset", preset, "--out", str(folder)]
    seconds, peak = run_process([*command, *flags])
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "accuracy": metrics["validation"]["accuracy"],
        "train": metrics["seconds"]["train"],
        "process": seconds,
        "peak_gb": peak,
    }


def finish(device: torch.device) -> None:
    """Wait for the device to be done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def best_matrix_product(compute: Compute) -> float:
    """The most FLOP/s that a product of two square matrices reaches here."""
    best = 0.0
    on_gpu = compute.device.type == "cuda"
    for size in (*MATRIX_SIZES, 8192) if on_gpu else MATRIX_SIZES:
        left, right = (torch.randn(size, size).to(compute.device, compute.dtype) for _ in range(2))
        seconds = fastest(lambda a=left, b=right: (a @ b, finish(compute.device)), repeats=8)
        best = max(best, 2 * size**3 / seconds)
    return best


def fraction_of_machine(settings: Settings, compute: Compute, steps: int = 20) -> dict[str, float]:
    """FLOP/s of the training steps of a preset, against the best matrix product's just before.

    Only products count as work (convolutions and linear layers, forward and backward; not the
    optimizer's), while the time is that of the whole step, augmentation and optimizer included.
    """
    data = random_digits(settings.batch_size * 4).to(compute.device)
    training = start_training(settings, compute, len(data))
    training.network.train()
    indices = torch.arange(len(data), device=compute.device).split(settings.batch_size)
    piece = indices[0][: settings.piece_size or settings.batch_size]
    with FlopCounterMode(display=False) as counter:
        images = network_input(data.images[piece], compute.memory_format)
        training.network(images).sum().backward()
    training.network.zero_grad()
    work = counter.get_total_flops() / len(piece) * settings.batch_size
    product = best_matrix_product(compute)
    batches, step = iter(indices * steps), make_step(training, data)
    for _ in range(2):  # a recorded step is recorded the second time
        step(indices[0], IMAGE_SIZE)
    # A GPU is given several steps at once, for it does them while the next are being told.
    together = 10 if compute.device.type == "cuda" else 1

    def some_steps() -> None:
        for _ in range(together):
            step(next(batches), IMAGE_SIZE)
        finish(compute.device)

    repeats = steps // together if settings.piece_size == 0 else 2
    seconds = fastest(some_steps, repeats=repeats, pick=statistics.median) / together
    return {
        "step_seconds": seconds,
        "flop_per_image": work / settings.batch_size,
        "flop_per_second": work / seconds,
        "matrix_product": product,
        "fraction": work / seconds / product,
    }


def augmentation(settings: Settings, images: torch.Tensor) -> dict[str, float]:
    """Microseconds an image of our augmentation and of scipy's, image by image, in turn.

    Both rotate, shift, zoom and shear at once, bilinearly. scipy's loop is what a reader would
    write: one `affine_transform` an image.
    """
    generator = torch.Generator().manual_seed(0)
    batch = network_input(images[: settings.batch_size])
    stack = batch.squeeze(1).numpy()
    maps = affine_matrices(
        rotation=torch.full((len(batch),), 5.0),
        shift=torch.ones(len(batch), 2),
        zoom=torch.full((len(batch),), 1.05),
        shear=torch.full((len(batch),), 5.0),
    ).numpy()

    def by_scipy() -> None:
        for image, matrix in zip(stack, maps, strict=True):
            ndimage.affine_transform(image, matrix[:, :2], offset=matrix[:, 2], order=1)

    ways = {
        "ours_us": lambda: fastest(lambda: augmented(batch, settings, generator), repeats=10),
        "scipy_us": lambda: fastest(by_scipy, repeats=2),
    }
    return {name: 1e6 * taken / len(batch) for name, taken in in_turn(ways, 5).items()}


def in_turn(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of the seconds that each way gives, so many times in turn."""
    rows = [{name: seconds() for name, seconds in ways.items()} for _ in range(repeats)]
    return {name: statistics.median(row[name] for row in rows) for name in ways}


def loading(folder: Path, repeats: int = 5) -> dict[str, float]:
    """Seconds from train.csv and test.csv to tensors, ours and by pandas' engines, in turn."""

    def by_pandas(engine: str) -> None:
        for name in ("train.csv", "test.csv"):
            table = pd.read_csv(folder / name, engine=engine)
            torch.from_numpy(table.to_numpy(dtype=np.uint8, copy=True))

    readers = {
        "ours": lambda: read_data(folder),
        "pandas, c": lambda: by_pandas("c"),
        "pandas, pyarrow": lambda: by_pandas("pyarrow"),
    }
    ways = {name: partial(fastest, read, repeats=1) for name, read in readers.items()}
    return in_turn(ways, repeats)


def import_seconds(repeats: int = 5) -> dict[str, float]:
    """Seconds of a Python process that imports us, and of one that imports torch, in turn."""
    ways = {
        name: lambda name=name: run_process(["-c", f"import {name}"])[0]
        for name in ("torch", "digitkaggle")
    }
    return in_turn(ways, repeats)


def growth(digits: Digits, folder: Path, sizes: tuple[int, ...] = GROWTH) -> list[dict[str, float]]:
    """One epoch of `fast` on more and more images (repeated): seconds and memory of each run."""
    rows = []
    for size in sizes:
        place = folder / f"growth-{size}"
        place.mkdir(parents=True)
        chosen = torch.arange(size) % len(digits.train_labels)
        write_table(place / "train.csv", digits.train_images[chosen], digits.train_labels[chosen])
        write_table(place / "test.csv", digits.test_images[torch.arange(size * 2 // 3) % 1000])
        flags = ["--data", str(place), "--epochs", "1"]
        measured = run_preset("fast", folder / f"run-{size}", *flags)
        rows.append({"images": size} | measured)
    return rows


def write_table(path: Path, images: torch.Tensor, labels: torch.Tensor | None = None) -> None:
    """Images (and labels) as a CSV in the competition's form."""
    table = pd.DataFrame(images.flatten(1).numpy(), columns=PIXEL_COLUMNS)
    if labels is not None:
        table.insert(0, "label", labels.numpy())
    table.to_csv(path, index=False)


def random_digits(count: int) -> LabelledImages:
    """Noise in the form of digits: a step costs the same whatever it shows."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator).to(torch.uint8)
    return LabelledImages(images, torch.randint(0, 10, (count,), generator=generator))


def fastest(action: Callable[[], Any], *, repeats: int, pick: Callable = min) -> float:
    """Seconds of the quickest of some repeats (or another pick), after one to warm up."""
    if repeats > 1:
        action()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return pick(seconds)


def preset_compute(preset: str) -> tuple[Settings, Compute]:
    """A preset and what it would train on here."""
    settings = PRESETS[preset]
    return settings, choose_compute(settings, "cpu")
