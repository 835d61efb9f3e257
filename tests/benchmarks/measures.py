"""The measurements: each returns plain numbers; whatever is compared is measured in turn."""

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

from digitkaggle.core.affine import build_affine_matrices
from digitkaggle.core.augment import augment
from digitkaggle.core.basics import IMAGE_SIZE, Compute, Digits, LabeledImages
from digitkaggle.core.data import PIXEL_COLUMNS
from digitkaggle.core.device import choose_compute, make_step
from digitkaggle.core.settings import PRESETS, Settings
from digitkaggle.core.training import prepare_input, start_training
from digitkaggle.runs.data import read_data

MATRIX_SIZES = (512, 1024, 2048, 4096)
GROWTH_SIZES = (10_500, 21_000, 42_000, 168_000)


# Linux counts a process's memory from before its exec, so a child would count as large as this
# process. A small process in between avoids that.
MEASURE_CHILD = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.call(sys.argv[2:])
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], "w").write(f"{seconds} {peak}")
sys.exit(code)
"""


def run_process(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak memory, in GB, of a whole Python process; CalledProcessError if it fails."""
    with tempfile.NamedTemporaryFile() as measured:
        command = [sys.executable, *arguments]
        subprocess.run([sys.executable, "-c", MEASURE_CHILD, measured.name, *command], check=True)
        seconds, peak = map(float, Path(measured.name).read_text().split())
    # Linux reports KiB, macOS bytes.
    return seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def run_preset(preset: str, folder: Path, *flags: str) -> dict[str, Any]:
    """A whole run in a process of its own: accuracy, seconds, memory."""
    command = ["-m", "digitkaggle", "run", "--quiet", "--preset", preset, "--out", str(folder)]
    seconds, peak = run_process([*command, *flags])
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "accuracy": metrics["validation"]["accuracy"],
        "train": metrics["seconds"]["train"],
        "predict": metrics["seconds"]["predict"],
        "process": seconds,
        "peak_gb": peak,
    }


# What nobody can avoid: to import torch, and to read both CSVs.
IMPORT_AND_READ = """
import sys, time
started = time.perf_counter()
import torch
imported = time.perf_counter() - started
import pandas
started = time.perf_counter()
for name in ("train.csv", "test.csv"):
    pandas.read_csv(f"{sys.argv[1]}/{name}", engine="c")
print(imported, time.perf_counter() - started)
"""


def measure_waiting(csvs: Path, folder: Path, repeats: int, *flags: str) -> list[dict[str, float]]:
    """Whole runs of `fast`, each beside the time to import torch and to read both CSVs."""
    rows = []
    for number in range(repeats):
        command = [sys.executable, "-c", IMPORT_AND_READ, str(csvs)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        torch_import, read_csv = map(float, printed.split())
        run = run_preset("fast", folder / f"waiting-{number}", "--data", str(csvs), *flags)
        waiting = run["process"] - run["train"]
        rows.append(
            {
                "process": run["process"],
                "train": run["train"],
                "predict": run["predict"],
                "rest": waiting - run["predict"],
                "import torch": torch_import,
                "read_csv": read_csv,
                "ratio": waiting / (torch_import + read_csv),
            }
        )
    return rows


def wait_for_device(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure_matrix_product(compute: Compute) -> float:
    """The most FLOP/s that a product of two square matrices reaches on this device."""
    best = 0.0
    on_gpu = compute.device.type == "cuda"
    for size in (*MATRIX_SIZES, 8192) if on_gpu else MATRIX_SIZES:
        left, right = (torch.randn(size, size).to(compute.device, compute.dtype) for _ in range(2))
        multiply = partial(multiply_matrices, left, right)
        seconds = time_action(multiply, repeats=8)
        best = max(best, 2 * size**3 / seconds)
    return best


def multiply_matrices(left: torch.Tensor, right: torch.Tensor) -> None:
    """Multiply two matrices, and wait for the product."""
    left @ right
    wait_for_device(left.device)


def measure_fraction(settings: Settings, compute: Compute, steps: int = 20) -> dict[str, float]:
    """FLOP/s of training steps, and their fraction of the matrix product's, measured just before.

    Only the products of convolutions and linear layers count as work, forward and backward. The
    time is that of a whole step, with augmentation and optimizer.
    """
    data = make_random_digits(settings.batch_size * 4).to(compute.device)
    training = start_training(settings, compute, len(data))
    training.network.train()
    indices = torch.arange(len(data), device=compute.device).split(settings.batch_size)
    piece = indices[0][: settings.piece_size or settings.batch_size]
    with FlopCounterMode(display=False) as counter:
        images = prepare_input(data.images[piece], compute.memory_format)
        training.network(images).sum().backward()
    training.network.zero_grad()
    work = counter.get_total_flops() / len(piece) * settings.batch_size
    product = measure_matrix_product(compute)
    batches, step = iter(indices * steps), make_step(training, data)
    for _ in range(2):  # a CUDA graph is recorded at the second step
        step(indices[0], IMAGE_SIZE)
    # Several steps at once, because a GPU computes one while the next ones are launched.
    together = 10 if compute.device.type == "cuda" else 1

    def train_steps() -> None:
        for _ in range(together):
            step(next(batches), IMAGE_SIZE)
        wait_for_device(compute.device)

    repeats = steps // together if settings.piece_size == 0 else 2
    seconds = time_action(train_steps, repeats=repeats, pick=statistics.median) / together
    return {
        "step_seconds": seconds,
        "flop_per_image": work / settings.batch_size,
        "flop_per_second": work / seconds,
        "matrix_product": product,
        "fraction": work / seconds / product,
    }


def measure_augmentation(settings: Settings, images: torch.Tensor) -> dict[str, float]:
    """Microseconds per image of our augmentation, and of scipy's image by image.

    Both rotate, shift, zoom and shear at once, bilinearly. The loop over scipy is what most people
    would write: one `affine_transform` per image.
    """
    generator = torch.Generator().manual_seed(0)
    batch = prepare_input(images[: settings.batch_size])
    stack = batch.squeeze(1).numpy()
    matrices = build_affine_matrices(
        rotation=torch.full((len(batch),), 5.0),
        shift=torch.ones(len(batch), 2),
        zoom=torch.full((len(batch),), 1.05),
        shear=torch.full((len(batch),), 5.0),
    ).numpy()

    def augment_by_scipy() -> None:
        for image, matrix in zip(stack, matrices, strict=True):
            ndimage.affine_transform(image, matrix[:, :2], offset=matrix[:, 2], order=1)

    measurements = {
        "ours_us_per_image": partial(
            time_action, partial(augment, batch, settings, generator), repeats=10
        ),
        "scipy_us_per_image": partial(time_action, augment_by_scipy, repeats=2),
    }
    seconds = measure_in_turn(measurements, 5)
    return {name: 1e6 * taken / len(batch) for name, taken in seconds.items()}


def measure_in_turn(measurements: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of each measurement's seconds, where all take turns."""
    rows = [{name: measure() for name, measure in measurements.items()} for _ in range(repeats)]
    return {name: statistics.median(row[name] for row in rows) for name in measurements}


def measure_loading(folder: Path, repeats: int = 5) -> dict[str, float]:
    """Seconds from train.csv and test.csv to tensors, with our reader and pandas' engines."""

    def read_by_pandas(engine: str) -> None:
        for name in ("train.csv", "test.csv"):
            table = pd.read_csv(folder / name, engine=engine)
            torch.from_numpy(table.to_numpy(dtype=np.uint8, copy=True))

    readers = {
        "ours": partial(read_data, folder),
        "pandas, c": partial(read_by_pandas, "c"),
        "pandas, pyarrow": partial(read_by_pandas, "pyarrow"),
    }
    measurements = {name: partial(time_action, read, repeats=1) for name, read in readers.items()}
    return measure_in_turn(measurements, repeats)


def measure_imports(repeats: int = 5) -> dict[str, float]:
    """Seconds of a Python process that imports torch, and of one that imports the command line."""
    measurements = {
        name: lambda name=name: run_process(["-c", f"import {name}"])[0]
        for name in ("torch", "digitkaggle.cli")
    }
    return measure_in_turn(measurements, repeats)


def measure_growth(
    digits: Digits, folder: Path, sizes: tuple[int, ...] = GROWTH_SIZES
) -> list[dict[str, float]]:
    """An epoch of `fast` on more and more images (repeated): seconds and memory of each run."""
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
    """Write images, and labels if given, as a CSV in the competition's format."""
    table = pd.DataFrame(images.flatten(1).numpy(), columns=PIXEL_COLUMNS)
    if labels is not None:
        table.insert(0, "label", labels.numpy())
    table.to_csv(path, index=False)


def make_random_digits(count: int) -> LabeledImages:
    """Random pixels and labels, because the time of a step does not depend on the images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator).to(torch.uint8)
    return LabeledImages(images, torch.randint(0, 10, (count,), generator=generator))


def time_action(action: Callable[[], Any], *, repeats: int, pick: Callable = min) -> float:
    """Seconds of the fastest of N repeats, or of another pick; several follow one to warm up."""
    if repeats > 1:
        action()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return pick(seconds)


def prepare_preset(preset: str) -> tuple[Settings, Compute]:
    """The settings of a preset, and the CPU in the form that suits it."""
    settings = PRESETS[preset]
    return settings, choose_compute(settings, "cpu")
