"""Measurements on a GPU: seconds of each preset, launches and waits of a training step."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from digitkaggle.core.basics import IMAGE_SIZE, Compute, Digits
from digitkaggle.core.device import choose_compute, make_step
from digitkaggle.core.prediction import Model
from digitkaggle.core.settings import PRESETS, Settings
from digitkaggle.core.split import split_indices
from digitkaggle.core.training import start_training

from . import measures, recipes

STEPS = 50
# The classic recipe trains on whole batches here, because pieces of 256 are for a CPU's caches.
FLAGS = {"classic": ["--epochs", "1", "--piece-size", "0"]}


def measure(digits: Digits, csvs: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """Every preset's whole run and training step, and two recipes on the same device."""
    presets, recipe_rows = {}, {}
    device = choose_compute(PRESETS["fast"]).device
    for name in ("fast",) if quick else tuple(PRESETS):
        flags = ["--data", str(csvs), *FLAGS.get(name, []), *(["--epochs", "1"] if quick else [])]
        settings = dataclasses.replace(PRESETS[name], piece_size=0)
        whole = measures.run_preset(name, folder / f"gpu-{name}", *flags)
        compute = choose_compute(settings)
        presets[name] = whole | measure_steps(settings, compute, digits)
        print("\n".join(make_table({"presets": {name: presets[name]}, "recipes": {}})), flush=True)
    rows, held_out = split_indices(digits.train_labels, 0.1, 100, by_class=True)
    images, labels = digits.train_images.to(device), digits.train_labels.to(device)
    epochs = {recipes.train_one_second: 4, recipes.train_tutorial: recipes.TUTORIAL_EPOCHS}
    for train, count in epochs.items():
        trained = train(images[rows], labels[rows], 100, 1 if quick else count)
        accuracy = recipes.measure_accuracy(trained.network, images[held_out], labels[held_out])
        recipe_rows[train.__name__] = {"accuracy": accuracy, "train": trained.seconds}
    return {"presets": presets, "recipes": recipe_rows}


def measure_steps(settings: Settings, compute: Compute, digits: Digits) -> dict[str, float]:
    """Training steps at full size: seconds, FLOP/s, launches, waits of the host, memory."""
    figures = measures.measure_fraction(settings, compute, STEPS)
    data = measures.make_random_digits(settings.batch_size).to(compute.device)
    training = start_training(settings, compute, len(data))
    training.network.train()
    batch, step = torch.arange(len(data), device=compute.device), make_step(training, data)

    def train_steps() -> None:
        for _ in range(STEPS):
            step(batch, IMAGE_SIZE)

    on_gpu = compute.device.type == "cuda"
    train_steps()  # to warm up
    measures.wait_for_device(compute.device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled, record_function("steps"):
        train_steps()  # without waiting until the device has finished
    measures.wait_for_device(compute.device)
    model = Model([training.network], settings, compute)
    images = digits.test_images[:5000].to(compute.device)
    seconds = measures.time_action(partial(model.predict, images), repeats=3)
    whole = next(event for event in profiled.events() if event.name == "steps").time_range
    # The profiler itself waits at its end, so only what ended within the steps counts.
    events = [event for event in profiled.events() if event.time_range.end <= whole.end]
    waits = [e for e in events if "Synchronize" in e.name or e.name == "cudaMemcpy"]
    launches = [e for e in events if "Launch" in e.name and e.name.startswith("cu")]
    return figures | {
        "launches": len(launches) / STEPS,
        "host_waits": sum(e.time_range.elapsed_us() for e in waits) / whole.elapsed_us(),
        "predict_us": 1e6 * seconds / len(images),
        "gpu_gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0,
    }


def make_table(figures: dict[str, Any]) -> list[str]:
    """A row for each preset and each recipe."""
    lines = [
        "| | accuracy | training | whole run | images per second in a step "
        "| fraction of the matrix product | launches per step | host waits "
        "| us to predict an image | peak GPU memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in figures["presets"].items():
        images = row["flop_per_second"] / row["flop_per_image"]
        lines.append(
            f"| {name} | {100 * row['accuracy']:.2f} % | {row['train']:.2f} s "
            f"| {row['process']:.1f} s | {images:,.0f} | {row['fraction']:.3f} "
            f"| {row['launches']:.0f} | {row['host_waits']:.1%} | {row['predict_us']:.1f} "
            f"| {row['gpu_gb']:.2f} GB |"
        )
    for name, row in figures["recipes"].items():
        accuracy = f"{100 * row['accuracy']:.2f} %"
        lines.append(f"| {name} | {accuracy} | {row['train']:.2f} s | | | | | | | |")
    return lines
