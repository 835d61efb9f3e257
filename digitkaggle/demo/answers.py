"""What a model says of pictures: a digit with its probabilities, or why there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..core.basics import CLASSES, IMAGE_SIZE, Compute, progress
from ..core.prediction import predict_probabilities
from ..core.results import write_file
from .pictures import FoundDigit, find_digit, open_picture

# Below this even the likeliest class is a guess. Label smoothing keeps good answers near 0.9.
LEAST_PROBABILITY = 0.5
SEEN_SIDE = 10 * IMAGE_SIZE


@dataclass(frozen=True)
class Answer:
    """Of one picture: the digit, or None and the problem; and what the network saw."""

    digit: int | None
    problem: str
    probabilities: list[float] | None  # ten; None if the network was not asked
    seen: np.ndarray | None  # uint8, 28 x 28


def answer_pictures(
    paths: Sequence[Path], networks: Sequence[nn.Module], compute: Compute, views: int = 1
) -> list[Answer]:
    """What the networks say of picture files, in their order.

    Raises:
        InputError: a file is missing, no picture, damaged, or too large.
    """
    found = [find_digit(open_picture(path)) for path in progress(paths, desc="reading")]
    return answer_digits(found, networks, compute, views)


def answer_digits(
    found: Sequence[FoundDigit], networks: Sequence[nn.Module], compute: Compute, views: int = 1
) -> list[Answer]:
    """What the networks say of digits that were found, or not, in pictures."""
    images = [digit.image for digit in found if digit.image is not None]
    stack = np.stack([*images, np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)])[:, None]
    probabilities = predict_probabilities(networks, torch.from_numpy(stack), compute, views)
    rows, answers = iter(probabilities.tolist()), []
    for picture in found:
        if picture.image is None:
            answers.append(Answer(None, picture.problem, None, None))
            continue
        row = next(rows)
        digit, likeliest = int(np.argmax(row)), max(row)
        problem = f"no digit that it knows: {digit} would be likeliest, at {likeliest:.0%}"
        sure = likeliest >= LEAST_PROBABILITY
        answers.append(Answer(digit if sure else None, "" if sure else problem, row, picture.image))
    return answers


def save_seen(folder: Path, paths: Sequence[Path], answers: Sequence[Answer]) -> list[Path]:
    """Save what the network saw of each picture, ten times as large, as PNGs of the same names."""
    saved: list[Path] = []
    for path, answer in zip(paths, answers, strict=True):
        if answer.seen is None:
            continue
        target, number = folder / f"{path.stem}.png", 1
        while target in saved:
            number += 1
            target = folder / f"{path.stem}-{number}.png"
        seen = Image.fromarray(answer.seen).resize((SEEN_SIDE, SEEN_SIDE), Image.Resampling.NEAREST)
        write_file(target, lambda file, seen=seen: seen.save(file, format="PNG"))
        saved.append(target)
    return saved


def formatted(paths: Sequence[Path], answers: Sequence[Answer], form: str) -> str:
    """The answers as `text`, `csv` or `json`; without a last newline."""
    rows = []
    for path, answer in zip(paths, answers, strict=True):
        rounded = answer.probabilities and [round(value, 6) for value in answer.probabilities]
        row = {"file": str(path), "digit": answer.digit, "probabilities": rounded}
        rows.append(row | ({"problem": answer.problem} if answer.problem else {}))
    if form == "json":
        return json.dumps(rows, indent=2)
    if form == "csv":
        import pandas as pd

        columns = ["file", "digit", *(f"p{digit}" for digit in range(CLASSES)), "problem"]
        none = [None] * CLASSES
        cells = [
            (r["file"], r["digit"], *(r["probabilities"] or none), r.get("problem")) for r in rows
        ]
        table = pd.DataFrame(cells, columns=columns).astype({"digit": "Int64"})
        return table.to_csv(index=False, float_format="%.6f", lineterminator="\n").rstrip("\n")
    width = max(len(str(path)) for path in paths)
    lines = []
    for row in rows:
        words = f"-  {row.get('problem')}"
        if row["digit"] is not None:
            second, first = np.argsort(row["probabilities"])[-2:]
            sure, next_sure = row["probabilities"][first], row["probabilities"][second]
            words = f"{first}  {sure:.1%}  (next {second}, {next_sure:.1%})"
        lines.append(f"{row['file']:<{width}}  {words}")
    return "\n".join(lines)
