"""A model's predictions for pictures: a digit with its probabilities, or why there is none."""

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

from ..core.basics import CLASSES, IMAGE_SIZE, InputError, show_progress
from ..core.prediction import Model
from ..core.results import write_file
from .pictures import FoundDigit, find_digit, open_picture

# The pictures in a folder, by their names.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Below this even the most likely class is a guess: fewer than 1 in 100 MNIST digits are.
LEAST_PROBABILITY = 0.7


@dataclass(frozen=True)
class PicturePrediction:
    """The prediction for one picture: a digit, or None and the problem; and the network's input."""

    digit: int | None
    problem: str = ""
    probabilities: list[float] | None = None  # ten, rounded; None if no digit was found
    image: np.ndarray | None = None  # uint8, 28 x 28
    unreadable: bool = False  # the file is not a picture that can be read


def list_pictures(paths: Sequence[Path]) -> list[Path]:
    """The paths, with the pictures in it in place of each folder; InputError if it has none."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]
        if not inside:
            raise InputError(f"{path} has no pictures: name files, or a folder with some")
        files += inside
    return files


def predict_pictures(paths: Sequence[Path], model: Model) -> list[PicturePrediction]:
    """The predictions for picture files, in their order; a file that cannot be read has one too."""
    found: list[FoundDigit | PicturePrediction] = []
    for path in show_progress(paths, desc="reading"):
        try:
            found.append(find_digit(open_picture(path)))
        except InputError as error:
            found.append(PicturePrediction(None, f"cannot be read: {error}", unreadable=True))
    readable = predict_found([one for one in found if isinstance(one, FoundDigit)], model)
    predictions = iter(readable)
    return [next(predictions) if isinstance(one, FoundDigit) else one for one in found]


def predict_found(found: Sequence[FoundDigit], model: Model) -> list[PicturePrediction]:
    """The predictions for digits that were found in pictures, or not."""
    if not found:
        return []
    blank = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    images = np.stack([blank if one.image is None else one.image for one in found])[:, None]
    rows = model.predict(torch.from_numpy(images)).double().numpy().round(6).tolist()
    predictions = []
    for one, row in zip(found, rows, strict=True):
        digit, confidence = int(np.argmax(row)), max(row)
        if one.image is None:
            predictions.append(PicturePrediction(None, one.problem))
        elif confidence < LEAST_PROBABILITY:
            problem = f"not a clear digit: {digit} is the most likely, at {confidence:.0%}"
            predictions.append(PicturePrediction(None, problem, row, one.image))
        else:
            predictions.append(PicturePrediction(digit, "", row, one.image))
    return predictions


def save_inputs(
    folder: Path, paths: Sequence[Path], predictions: Sequence[PicturePrediction]
) -> list[Path]:
    """Save the network's input of each picture, ten times enlarged, as `NAME-seen.png`.

    Raises:
        InputError: one of these files is a picture that was given.
    """
    saved: list[Path] = []
    given = {path.resolve() for path in paths}
    for path, prediction in zip(paths, predictions, strict=True):
        if prediction.image is None:
            continue
        target = folder / f"{path.stem}-seen.png"
        while target in saved:
            target = target.with_stem(f"{target.stem}-2")
        if target.resolve() in given:
            raise InputError(f"--show would write over {target}: name another folder")
        enlarged = Image.fromarray(prediction.image.repeat(10, axis=0).repeat(10, axis=1))
        write_file(target, partial(enlarged.save, format="PNG"))
        saved.append(target)
    return saved


def format_predictions(
    paths: Sequence[Path], predictions: Sequence[PicturePrediction], form: str
) -> str:
    """The predictions as `text`, `csv` or `json`; without a last newline."""
    pairs = [(str(path), one) for path, one in zip(paths, predictions, strict=True)]
    if form == "json":
        rows = [
            {"file": path, "digit": one.digit, "probabilities": one.probabilities}
            | ({"problem": one.problem} if one.problem else {})
            for path, one in pairs
        ]
        return json.dumps(rows, indent=2)
    if form == "csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["file", "digit", *(f"p{digit}" for digit in range(CLASSES)), "problem"])
        for path, one in pairs:
            probabilities = one.probabilities or [None] * CLASSES
            writer.writerow([path, one.digit, *probabilities, one.problem])
        return table.getvalue().rstrip("\n")
    if form == "text":
        width = max(len(path) for path, _ in pairs)
        lines = []
        for path, one in pairs:
            text = f"-  {one.problem}"
            if one.digit is not None:
                text = f"{one.digit}  {max(one.probabilities):.1%}"
            lines.append(f"{path:<{width}}  {text}")
        return "\n".join(lines)
    raise ValueError(f"there is no format {form!r}")
