"""submission.csv: written, and checked before it is put in place."""

from __future__ import annotations

from pathlib import Path

import torch

from .digits import CLASSES
from .errors import InputError
from .files import write_text

SUBMISSION_HEADER = "ImageId,Label"


def write_submission(path: Path, labels: torch.Tensor, images: int) -> None:
    """Write the predicted classes as the competition wants them: `ImageId` from 1, and `Label`.

    Args:
        labels: int64, in the order of `test.csv`.
        images: how many images `test.csv` has.

    Raises:
        InputError: the result would be no valid submission, or cannot be written.
    """
    rows = [f"{number},{label}" for number, label in enumerate(labels.tolist(), start=1)]
    text = "\n".join([SUBMISSION_HEADER, *rows]) + "\n"
    check_submission(text, images, str(path))
    write_text(path, text)


def check_submission(text: str, images: int, name: str) -> None:
    """Check a submission's text: header, one row for every image with ids 1, 2, …, labels 0 to 9.

    Raises:
        InputError: names the first line that is wrong.
    """
    header, *rows = text.splitlines() or [""]
    if header != SUBMISSION_HEADER:
        raise InputError(f"{name}, line 1: the header is {header!r}, not {SUBMISSION_HEADER!r}")
    if len(rows) != images:
        raise InputError(f"{name} has {len(rows):,} rows for {images:,} test images")
    digits = {str(digit) for digit in range(CLASSES)}
    for number, row in enumerate(rows, start=1):
        image_id, _, label = row.partition(",")
        if image_id != str(number):
            raise InputError(f"{name}, row {number}: ImageId is {image_id!r}, not {number}")
        if label not in digits:
            raise InputError(f"{name}, row {number}: Label {label!r} is no digit")


def read_submission(path: Path) -> str:
    """The text of a submission.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        if path.stat().st_size > 10_000_000:
            raise InputError(f"{path} is too large to be a submission")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no CSV: it is not even text") from error
