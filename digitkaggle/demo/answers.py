"""What a model says of pictures: a digit with its probabilities, or why there is none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..core.basics import CLASSES, IMAGE_SIZE, progress
from ..core.device import Compute
from ..core.prediction import predict_probabilities
from ..core.results import write_file
from .pictures import FoundDigit, find_digit, open_picture

# Below this even the likeliest class is a guess. Label smoothing keeps good answers near 0.9.
LEAST_PROBABILITY = 0.5
SEEN_SCALE = 10
FORMATS_OF_ANSWERS = ("text", "csv", "json")


@dataclass(frozen=True)
class Answer:
    """Of one picture: the digit, or None and the problem; and what the network saw."""

    digit: int | None
    problem: str
    probabilities: list[float] | None  # ten; None if the network was not asked
    seen: np.ndarray | None  # uint8, 28 x 28


def answer_pictures(
    paths: Sequence[Path],
    networks: Sequence[nn.Module],
    compute: Compute,
    views: int = 1,
) -> list[Answer]:
    """What the networks say of picture files, in their order.

    Raises:
        InputError: a file is missing, no picture, damaged, or too large.
    """
    found = [find_digit(open_picture(path)) for path in progress(paths, desc="reading")]
    return answer_digits(found, networks, compute, views)


def answer_digits(
    found: Sequence[FoundDigit],
    networks: Sequence[nn.Module],
    compute: Compute,
    views: int = 1,
) -> list[Answer]:
    """What the networks say of digits that were found, or not, in pictures."""
    images = [digit.image for digit in found if digit.image is not None]
    probabilities = iter(())
    if images:
        stack = torch.from_numpy(np.stack(images)).unsqueeze(1)
        probabilities = iter(predict_probabilities(networks, stack, compute, views).tolist())
    return [
        Answer(None, digit.problem, None, None)
        if digit.image is None
        else _judged(next(probabilities), digit.image)
        for digit in found
    ]


def save_seen(folder: Path, paths: Sequence[Path], answers: Sequence[Answer]) -> list[Path]:
    """Save what the network saw of each picture, ten times as large, as PNGs of the same names.

    Returns:
        The files; a picture in which no digit was found has none.

    Raises:
        InputError: a file cannot be written.
    """
    saved: list[Path] = []
    for path, answer in zip(paths, answers, strict=True):
        if answer.seen is None:
            continue
        target, number = folder / f"{path.stem}.png", 1
        while target in saved:
            number += 1
            target = folder / f"{path.stem}-{number}.png"
        buffer = io.BytesIO()
        side = SEEN_SCALE * IMAGE_SIZE
        seen = Image.fromarray(answer.seen).resize((side, side), Image.Resampling.NEAREST)
        seen.save(buffer, format="PNG")
        write_file(target, buffer.getvalue())
        saved.append(target)
    return saved


def _judged(probabilities: list[float], seen: np.ndarray) -> Answer:
    digit = int(np.argmax(probabilities))
    if probabilities[digit] < LEAST_PROBABILITY:
        problem = (
            f"no digit that it knows: {digit} would be likeliest, at {probabilities[digit]:.0%}"
        )
        return Answer(None, problem, probabilities, seen)
    return Answer(digit, "", probabilities, seen)


def formatted(paths: Sequence[Path], answers: Sequence[Answer], form: str) -> str:
    """The answers as `text`, `csv` or `json`; without a last newline."""
    pairs = list(zip(paths, answers, strict=True))
    if form == "json":
        return json.dumps([_as_json(path, answer) for path, answer in pairs], indent=2)
    if form == "csv":
        return _as_csv(pairs)
    width = max(len(str(path)) for path in paths)
    lines = []
    for path, answer in pairs:
        if answer.digit is None or answer.probabilities is None:
            said = f"-  {answer.problem}"
        else:
            order = np.argsort(answer.probabilities)[::-1]
            first, second = (f"{answer.probabilities[place]:.1%}" for place in order[:2])
            said = f"{answer.digit}  {first}  (next {order[1]}, {second})"
        lines.append(f"{path!s:<{width}}  {said}")
    return "\n".join(lines)


def _as_json(path: Path, answer: Answer) -> dict[str, object]:
    probabilities = answer.probabilities and [round(value, 6) for value in answer.probabilities]
    said = {"file": str(path), "digit": answer.digit, "probabilities": probabilities}
    return said | ({"problem": answer.problem} if answer.problem else {})


def _as_csv(pairs: Sequence[tuple[Path, Answer]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", "digit", *(f"p{digit}" for digit in range(CLASSES)), "problem"])
    for path, answer in pairs:
        digit = "" if answer.digit is None else answer.digit
        values = [f"{value:.6f}" for value in answer.probabilities or ()] or [""] * CLASSES
        writer.writerow([path, digit, *values, answer.problem])
    return buffer.getvalue().rstrip("\n")
