"""What a model says of pictures: a digit with its probabilities, or why there is none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..core.basics import CLASSES, IMAGE_SIZE, Compute, InputError, progress
from ..core.prediction import predict_probabilities
from ..core.results import write_file
from .pictures import FoundDigit, find_digit, open_picture

# Below this even the likeliest class is a guess: of MNIST's digits fewer than 1 in 100 are.
LEAST_PROBABILITY = 0.7


@dataclass(frozen=True)
class Answer:
    """Of one picture: the digit, or None and the problem; and what the network saw."""

    digit: int | None
    problem: str = ""
    probabilities: list[float] | None = None  # ten, rounded; None if the network was not asked
    seen: np.ndarray | None = None  # uint8, 28 x 28


def answer_pictures(
    paths: Sequence[Path], networks: Sequence[nn.Module], compute: Compute, views: int = 1
) -> list[Answer]:
    """What the networks say of picture files, in their order; raises as `open_picture`."""
    found = [find_digit(open_picture(path)) for path in progress(paths, desc="reading")]
    return answer_digits(found, networks, compute, views)


def answer_digits(
    found: Sequence[FoundDigit], networks: Sequence[nn.Module], compute: Compute, views: int = 1
) -> list[Answer]:
    """What the networks say of digits that were found, or not, in pictures."""
    blank = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    images = np.stack([blank if digit.image is None else digit.image for digit in found])[:, None]
    probabilities = predict_probabilities(networks, torch.from_numpy(images), compute, views)
    answers = []
    for picture, row in zip(found, probabilities.double().numpy().round(6).tolist(), strict=True):
        digit, likeliest = int(np.argmax(row)), max(row)
        if picture.image is None:
            answers.append(Answer(None, picture.problem))
        elif likeliest < LEAST_PROBABILITY:
            problem = f"no digit that it knows: {digit} would be likeliest, at {likeliest:.0%}"
            answers.append(Answer(None, problem, row, picture.image))
        else:
            answers.append(Answer(digit, "", row, picture.image))
    return answers


def save_seen(folder: Path, paths: Sequence[Path], answers: Sequence[Answer]) -> list[Path]:
    """Save what the network saw of each picture, ten times as large, as `NAME-seen.png`.

    Raises:
        InputError: one of these files is a picture that was given.
    """
    saved: list[Path] = []
    given = {path.resolve() for path in paths}
    for path, answer in zip(paths, answers, strict=True):
        if answer.seen is None:
            continue
        target = folder / f"{path.stem}-seen.png"
        while target in saved:
            target = target.with_stem(f"{target.stem}-2")
        if target.resolve() in given:
            raise InputError(f"--show would write over {target}: name another folder")
        seen = Image.fromarray(answer.seen.repeat(10, axis=0).repeat(10, axis=1))
        write_file(target, partial(seen.save, format="PNG"))
        saved.append(target)
    return saved


def formatted(paths: Sequence[Path], answers: Sequence[Answer], form: str) -> str:
    """The answers as `text`, `csv` or `json`; without a last newline."""
    pairs = [(str(path), answer) for path, answer in zip(paths, answers, strict=True)]
    if form == "json":
        rows = [
            {"file": path, "digit": answer.digit, "probabilities": answer.probabilities}
            | ({"problem": answer.problem} if answer.problem else {})
            for path, answer in pairs
        ]
        return json.dumps(rows, indent=2)
    if form == "csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["file", "digit", *(f"p{digit}" for digit in range(CLASSES)), "problem"])
        for path, answer in pairs:
            probabilities = answer.probabilities or [None] * CLASSES
            writer.writerow([path, answer.digit, *probabilities, answer.problem])
        return table.getvalue().rstrip("\n")
    lines, width = [], max(len(path) for path, _ in pairs)
    for path, answer in pairs:
        said = f"-  {answer.problem}"
        if answer.digit is not None:
            said = f"{answer.digit}  {max(answer.probabilities):.1%}"
        lines.append(f"{path:<{width}}  {said}")
    return "\n".join(lines)
