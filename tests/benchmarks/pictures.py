"""Pictures of digits as people take them, made from held-out digits: correct, wrong, refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from digitkaggle.core.basics import Digits
from digitkaggle.demo.digits import find_digits
from digitkaggle.demo.pictures import open_picture
from digitkaggle.demo.predictions import predict_found
from digitkaggle.runs.finished import load_model, load_statistics

from . import measures
from .ink import Source
from .made_pictures import KINDS

OF_EACH_KIND = 100


def measure(digits: Digits, csvs: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """Train a model and let it predict pictures of each kind, made from what it held out."""
    run = folder / "pictures"
    flags = ["--data", str(csvs), *(["--epochs", "2"] if quick else [])]
    measures.run_preset("fast" if quick else "balanced", run, *flags)
    return measure_run(run, digits, 3 if quick else OF_EACH_KIND)


def measure_run(run: Path, digits: Digits, count: int) -> dict[str, Any]:
    """The numbers of pictures of each kind that a run's model predicts correctly, or refuses."""
    held_out = np.load(run / "validation.npz")["row"]
    images = digits.train_images[held_out].squeeze(1).numpy()
    labels = digits.train_labels[held_out].numpy()
    model, statistics = load_model(run, device="cpu"), load_statistics(run)
    figures: dict[str, Any] = {}
    for number, (name, make) in enumerate(KINDS.items()):
        source = Source(images, labels, number)
        figures[name] = counts = {"correct": 0, "wrong": 0, "refused": 0}
        for _ in range(count):
            colors, expected = make(source)
            content = io.BytesIO()
            Image.fromarray((255 * colors).round().astype(np.uint8)).save(content, format="PNG")
            content.seek(0)
            found = find_digits(open_picture(content))
            [prediction] = predict_found([found], model, statistics)
            predicted = [one.digit for one in prediction.digits]
            if not predicted or None in predicted:
                counts["refused"] += 1
            else:
                counts["correct" if predicted == expected else "wrong"] += 1
    return figures


def make_table(figures: dict[str, Any]) -> list[str]:
    """A row for each kind."""
    rows = [
        f"| {kind} | {' | '.join(map(str, counts.values()))} |" for kind, counts in figures.items()
    ]
    return ["| | correct | wrong | refused |", "|---|---|---|---|", *rows]
