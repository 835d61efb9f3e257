"""A model's predictions for pictures: digits with their probabilities, or why there are none."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..core.basics import CLASSES, InputError
from ..core.console import show_progress
from ..core.prediction import Model
from ..runs.strangeness import LEAST_PROBABILITY, find_strange
from .digits import FoundDigit, FoundDigits, find_digits
from .pictures import Picture, open_picture
from .sheets import save_sheet

# The pictures in a folder, by their names.
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".heic", ".heif", ".avif"}
# Pictures in memory at once.
BATCH = 32

SEVERAL = "several digits or marks: one digit a picture"
STRANGE = "not a digit: unlike those that the model was trained on"
CUT_OFF = "cut off by the edge"


@dataclass(frozen=True)
class PredictedDigit:
    """The prediction for one mark: a digit, or None and the problem."""

    found: FoundDigit
    digit: int | None
    probabilities: list[float]  # ten, rounded
    problem: str = ""

    @property
    def confidence(self) -> float:
        """The probability of the most likely class."""
        return max(self.probabilities)

    @property
    def character(self) -> str:
        """The digit as text, ? for None."""
        return "?" if self.digit is None else str(self.digit)


@dataclass(frozen=True)
class PicturePrediction:
    """The prediction for one picture: digits in reading order, and the problem, if there is one."""

    digits: list[PredictedDigit] = field(default_factory=list)
    problem: str = ""
    unreadable: bool = False  # the file is not a picture that can be read

    @property
    def digit(self) -> int | None:
        """The digit, if there is exactly one."""
        return self.digits[0].digit if len(self.digits) == 1 else None

    @property
    def probabilities(self) -> list[float] | None:
        """The ten probabilities, if there is exactly one digit."""
        return self.digits[0].probabilities if len(self.digits) == 1 else None

    def describe(self, indent: int = 0) -> str:
        """For people: the digits line by line, the lowest confidence, the problem."""
        known = [one for one in self.digits if one.digit is not None]
        if not known:
            return f"-  {self.problem}"
        lines: dict[int, str] = {}
        for one in self.digits:
            lines[one.found.line] = lines.get(one.found.line, "") + one.character
        first, *others = lines.values()
        first += f"  {min(one.confidence for one in known):.1%}"
        if self.problem:
            first += f"  {self.problem}"
        return "\n".join([first, *(" " * indent + other for other in others)])


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


def predict_pictures(
    paths: Sequence[Path],
    model: Model,
    statistics: Mapping[str, np.ndarray],
    *,
    single: bool = False,
    sheets: Sequence[Path] = (),
) -> list[PicturePrediction]:
    """The predictions for picture files, in their order; a file that cannot be read has one too.

    Args:
        statistics: of the run, for what is not a digit; without them nothing is strange.
        single: refuse a picture with several digits.
        sheets: for each picture the file of a sheet that shows what was found in it.
    """
    predictions: list[PicturePrediction] = []
    with show_progress(total=len(paths), desc="predicting", unit="picture") as bar:
        for start in range(0, len(paths), BATCH):
            pictures: list[Picture | None] = []
            found: list[FoundDigits] = []
            for path in paths[start : start + BATCH]:
                try:
                    pictures.append(open_picture(path))
                    found.append(find_digits(pictures[-1]))
                except InputError as error:
                    pictures.append(None)
                    found.append(FoundDigits(problem=f"cannot be read: {error}"))
                bar.update()
            predicted = predict_found(found, model, statistics, single=single)
            for picture, one, prediction in zip(pictures, found, predicted, strict=True):
                if sheets and picture:
                    captions = [
                        (d.found, f"{d.character}  {d.confidence:.1%}") for d in prediction.digits
                    ]
                    title = prediction.describe().replace("\n", " / ")
                    save_sheet(sheets[len(predictions)], picture, one.ink, title, captions)
                predictions.append(dataclasses.replace(prediction, unreadable=picture is None))
    return predictions


def predict_found(
    found: Sequence[FoundDigits],
    model: Model,
    statistics: Mapping[str, np.ndarray],
    *,
    single: bool = False,
) -> list[PicturePrediction]:
    """The predictions for the digits that were found in pictures, or not."""
    marks = [mark for one in found for digit in one.digits for mark in (digit, *digit.parts)]
    predicted = iter(predict_marks(marks, model, statistics))
    predictions = []
    for one in found:
        digits: list[PredictedDigit] = []
        for digit in one.digits:
            whole, parts = next(predicted), [next(predicted) for _ in digit.parts]
            clear = parts and all(part.digit is not None for part in parts)
            least = min((part.confidence for part in parts), default=0)
            better = clear and (whole.digit is None or least > whole.confidence)
            digits += parts if better else [whole]
        unclear = sum(digit.digit is None for digit in digits)
        problem = one.problem
        if len(digits) == 1:
            problem = digits[0].problem
        elif single and digits:
            digits, problem = [], SEVERAL
        elif unclear:
            problem = f"{unclear} of {len(digits)} marks are not clear digits"
        elif any(digit.problem for digit in digits):
            problem = f"a digit is {CUT_OFF}"
        predictions.append(PicturePrediction(digits, problem))
    return predictions


def predict_marks(
    marks: Sequence[FoundDigit], model: Model, statistics: Mapping[str, np.ndarray]
) -> list[PredictedDigit]:
    """The prediction for each mark, as if it were the only one."""
    if not marks:
        return []
    images = torch.from_numpy(np.stack([mark.image for mark in marks]))[:, None]
    rows = model.predict(images).double().numpy().round(6).tolist()
    strange = find_strange(model, images, statistics)
    predicted = []
    for mark, row, is_strange in zip(marks, rows, strange, strict=True):
        digit, confidence = int(np.argmax(row)), max(row)
        problem = CUT_OFF if mark.cut_off else ""
        if is_strange:
            digit, problem = None, STRANGE
        elif confidence < LEAST_PROBABILITY:
            problem = f"not a clear digit: {digit} is the most likely, at {confidence:.0%}"
            digit = None
        predicted.append(PredictedDigit(mark, digit, row, problem))
    return predicted


def format_predictions(
    paths: Sequence[Path], predictions: Sequence[PicturePrediction], form: str
) -> str:
    """The predictions as `text`, `csv` or `json`; without a last newline."""
    pairs = [(str(path), one) for path, one in zip(paths, predictions, strict=True)]
    if form == "json":
        return json.dumps([make_record(path, one) for path, one in pairs], indent=2)
    if form == "csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        classes = [f"p{digit}" for digit in range(CLASSES)]
        writer.writerow(["file", "digit", *classes, "problem", "left", "top", "right", "bottom"])
        for path, one in pairs:
            for mark in one.digits:
                problem = mark.problem or one.problem
                writer.writerow([path, mark.digit, *mark.probabilities, problem, *mark.found.box])
            if not one.digits:
                writer.writerow([path, None, *[None] * CLASSES, one.problem, *[None] * 4])
        return table.getvalue().rstrip("\n")
    if form == "text":
        width = max(len(path) for path, _ in pairs)
        return "\n".join(f"{path:<{width}}  {one.describe(width + 2)}" for path, one in pairs)
    raise ValueError(f"there is no format {form!r}")


def make_record(path: str, prediction: PicturePrediction) -> dict:
    """A prediction as JSON has it: `digit` and `probabilities` are null unless there is one."""
    digits = [
        {"digit": one.digit, "confidence": one.confidence, "box": one.found.box}
        for one in prediction.digits
    ]
    record = {
        "file": path,
        "digit": prediction.digit,
        "probabilities": prediction.probabilities,
        "digits": digits,
    }
    if prediction.problem:
        record["problem"] = prediction.problem
    return record
