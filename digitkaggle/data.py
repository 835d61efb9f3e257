"""Reads and checks the competition's CSV files.

`train.csv` has the columns `label` and `pixel0` to `pixel783`, `test.csv` the pixels alone. Files
come from a folder or straight out of a zip, which is never unpacked to disk.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import torch

from .digits import CLASSES, IMAGE_SIZE
from .errors import InputError
from .locations import TEST_FILE, TRAIN_FILE
from .progress import make_bar

PIXEL_COLUMNS = tuple(f"pixel{number}" for number in range(IMAGE_SIZE * IMAGE_SIZE))
LABEL_COLUMN = "label"
# A whole file of 800,000 digits; more than that out of a small zip is a bomb.
LARGEST_UNPACKED = 2 * 1024**3
LONGEST_HEADER = 100_000
# Bytes read at once: what is made of them fits a processor's cache, which halves the time.
READ_BLOCK = 1024**2
WHOLE_BYTES = {str(value): value for value in range(256)}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
GET_IT_AGAIN = "download it from https://www.kaggle.com/c/digit-recognizer/data again"


@dataclass(frozen=True)
class DataSource:
    """Where digits come from, in words, and how to get them."""

    origin: str
    read: Callable[[], Digits]
    sample: bool = False


@dataclass(frozen=True)
class Digits:
    """The competition's images. Labels of test images are known only for the sample."""

    train_images: torch.Tensor  # uint8, N x 1 x 28 x 28
    train_labels: torch.Tensor  # int64, N
    test_images: torch.Tensor  # uint8, M x 1 x 28 x 28
    test_labels: torch.Tensor | None = None  # int64, M

    def digest(self) -> str:
        """SHA-256 of all pixels and labels: the same for the same digits, however stored."""
        total = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            if tensor is not None:
                total.update(f"{tuple(tensor.shape)}".encode())
                total.update(tensor.contiguous().numpy().data)
        return total.hexdigest()


def files_source(location: Path, *, progress_bar: bool = False) -> DataSource:
    """The competition's files in a folder or zip; read, and checked, when the run asks for them."""
    return DataSource(
        origin=str(location), read=lambda: read_digits(location, progress_bar=progress_bar)
    )


def read_digits(location: Path, *, progress_bar: bool = False) -> Digits:
    """Training and test images from a folder or a zip with `train.csv` and `test.csv`.

    Args:
        location: the folder or zip.
        progress_bar: show one on standard error after two seconds, if that is a terminal.

    Raises:
        InputError: something is missing or wrong; names file, row and column, and what to do.
    """
    train_images, train_labels = read_table(
        location, TRAIN_FILE, labelled=True, progress_bar=progress_bar
    )
    present = train_labels.unique().tolist()
    if len(present) == 1:
        raise InputError(
            f"{table_name(location, TRAIN_FILE)}: every label is {present[0]}; nothing can be "
            f"learned from one class: {GET_IT_AGAIN}"
        )
    test_images = read_test_images(location, progress_bar=progress_bar)
    return Digits(train_images, train_labels, test_images)


def read_test_images(location: Path, *, progress_bar: bool = False) -> torch.Tensor:
    """The images of `test.csv` in a folder or zip, or of a CSV file that is named itself.

    Returns:
        uint8, N x 1 x 28 x 28, in the file's order.

    Raises:
        InputError: as `read_digits`.
    """
    images, _ = read_table(location, TEST_FILE, labelled=False, progress_bar=progress_bar)
    return images


def read_table(
    location: Path, file_name: str, *, labelled: bool, progress_bar: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """One CSV as images (uint8, N x 1 x 28 x 28) and labels (int64, N; empty if not labelled).

    Columns may come in any order. A byte-order mark, CRLF and blank lines are taken as they come.

    Raises:
        InputError: as `read_digits`.
    """
    name = table_name(location, file_name)
    expected = ((LABEL_COLUMN,) if labelled else ()) + PIXEL_COLUMNS
    with open_table(location, file_name) as file:
        header = _read_header(file, name, expected)
        with make_bar(
            shown=progress_bar, desc=f"reading {file_name}", unit="B", unit_scale=True
        ) as bar:
            table = _read_rows_fast(file, len(header), bar.update)
    if table is None:
        # Something is odd: the slow reader says where, or finds that it was harmless.
        with (
            open_table(location, file_name) as file,
            io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="") as text,
        ):
            table = _read_rows_carefully(text, name, header)
    if len(table) == 0:
        raise InputError(f"{name} has a header but no rows: {GET_IT_AGAIN}")
    places = {column: place for place, column in enumerate(header)}
    labels = torch.empty(0, dtype=torch.int64)
    if labelled:
        labels = torch.from_numpy(table[:, places[LABEL_COLUMN]].astype(np.int64))
        _check_labels(labels, name)
    order = [places[column] for column in PIXEL_COLUMNS]
    in_order = order == list(range(order[0], order[0] + len(order)))
    pixels = table[:, order[0] : order[0] + len(order)] if in_order else table[:, order]
    images = torch.from_numpy(np.ascontiguousarray(pixels))
    return images.view(-1, 1, IMAGE_SIZE, IMAGE_SIZE), labels


def table_name(location: Path, file_name: str) -> str:
    """How messages name a table: the file's own path, or the zip's with the member's."""
    if location.is_dir():
        return str(location / file_name)
    return f"{location}/{file_name}" if is_zip(location) else str(location)


def is_zip(location: Path) -> bool:
    """Whether a path is a zip; a pipe or a device, which may be read for ever, is none."""
    return location.is_file() and zipfile.is_zipfile(location)


@contextlib.contextmanager
def open_table(location: Path, file_name: str) -> Iterator[BinaryIO]:
    """A CSV opened for reading: in a folder, in a zip, or at `location` itself.

    Raises:
        InputError: there is no such file, the zip is none or is hostile, or reading fails later.
    """
    name = table_name(location, file_name)
    try:
        if location.is_dir():
            if not (location / file_name).is_file():
                raise InputError(
                    f"{location} holds no {file_name}: name the folder or zip with "
                    f"{TRAIN_FILE} and {TEST_FILE} by --data"
                )
            with open(location / file_name, "rb") as file:
                yield file
        elif is_zip(location):
            with (
                zipfile.ZipFile(location) as archive,
                archive.open(_find_member(archive, location, file_name)) as file,
            ):
                yield file
        elif location.is_file() and location.suffix == ".csv" and file_name == TEST_FILE:
            with open(location, "rb") as file:
                yield file
        else:
            raise _no_table(location)
    except READING_FAULTS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{name} cannot be read ({reason}): {GET_IT_AGAIN}") from error


def _no_table(location: Path) -> InputError:
    if not location.exists():
        return InputError(
            f"{location} does not exist: name the folder or zip with {TRAIN_FILE} "
            f"and {TEST_FILE} by --data"
        )
    start = b""
    if location.is_file():
        with open(location, "rb") as file:
            start = file.read(1000).lstrip()
    if start.startswith(b"<"):
        return _web_page(str(location))
    if start.startswith(b"PK"):
        return InputError(f"{location} is a zip that breaks off before its end: {GET_IT_AGAIN}")
    return InputError(
        f"{location} is neither a folder nor a zip: name the one with {TRAIN_FILE} "
        f"and {TEST_FILE} by --data"
    )


def _web_page(name: str) -> InputError:
    return InputError(
        f"{name} is a web page, not the data: sign in at kaggle.com, accept the competition's "
        f"rules, and {GET_IT_AGAIN}"
    )


def _find_member(archive: zipfile.ZipFile, location: Path, file_name: str) -> zipfile.ZipInfo:
    members = [
        member
        for member in archive.infolist()
        if member.filename.replace("\\", "/").rpartition("/")[2] == file_name
        and not member.filename.startswith("__MACOSX/")
    ]
    if not members:
        raise InputError(f"{location} holds no {file_name}: {GET_IT_AGAIN}")
    if len(members) > 1:
        raise InputError(
            f"{location} holds {file_name} {len(members)} times: unpack the right one "
            "into a folder and name that by --data"
        )
    if members[0].file_size > LARGEST_UNPACKED:
        raise InputError(
            f"{location}/{file_name} unpacks to {members[0].file_size:,} bytes, more than "
            f"the {LARGEST_UNPACKED:,} that we read: {GET_IT_AGAIN}"
        )
    return members[0]


# What reading can raise out of a damaged, encrypted or oddly packed zip, or a failing disk.
READING_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    csv.Error,
    UnicodeError,
)


def _read_header(file: BinaryIO, name: str, expected: tuple[str, ...]) -> list[str]:
    line = file.readline(LONGEST_HEADER)
    while line and not line.strip():
        line = file.readline(LONGEST_HEADER)
    if line.lstrip(b"\xef\xbb\xbf \t").startswith(b"<"):
        raise _web_page(name)
    text = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    header = [column.strip().strip('"') for column in text.split(",")]
    if not text.strip():
        raise InputError(f"{name} is empty: {GET_IT_AGAIN}")
    counts, known = Counter(header), set(expected)
    missing = [column for column in expected if column not in counts]
    extra = [column for column in counts if column not in known]
    if len(missing) == len(expected):
        raise InputError(
            f"{name}, line 1: no header with {expected[0]} to {expected[-1]}, but "
            f"{_shown(text)}: {GET_IT_AGAIN}"
        )
    repeated = sorted(column for column, count in counts.items() if count > 1)
    if repeated:
        raise InputError(f"{name}: column {_shown(repeated[0])} is there twice: {GET_IT_AGAIN}")
    if missing:
        raise InputError(f"{name}: column {missing[0]} is missing{_more(missing)}: {GET_IT_AGAIN}")
    if extra:
        hint = "is this a training file?" if extra == [LABEL_COLUMN] else "take it out"
        raise InputError(
            f"{name}: column {_shown(extra[0])} does not belong there{_more(extra)}: {hint}"
        )
    return header


def _read_rows_fast(
    file: BinaryIO, columns: int, tell_done: Callable[[int], object] = lambda read: None
) -> np.ndarray | None:
    """All rows, if every value is plain digits from 0 to 255 and every row is whole; else None.

    Not by pandas, whose older versions wrap 256 round to 0 when they are asked for bytes, and whose
    newer ones are no faster.
    """
    tables, rest = [], b""
    while block := file.read(READ_BLOCK):
        tell_done(len(block))
        whole_rows, newline, rest = (rest + block).rpartition(b"\n")
        table = _parse_digits(whole_rows + newline, columns)
        if table is None:
            return None
        tables.append(table)
    last = _parse_digits(rest.rstrip() + b"\n" if rest.strip() else b"", columns)
    return None if last is None else np.concatenate([*tables, last])


def _parse_digits(text: bytes, columns: int) -> np.ndarray | None:
    """Rows of `columns` whole numbers, each row ended by a newline; None for anything else."""
    codes = np.frombuffer(text.replace(b"\r\n", b"\n"), dtype=np.uint8)
    ends = np.flatnonzero(codes < ord("0"))  # where commas and newlines, or something odd, stand
    if len(ends) % columns or (len(codes) and codes[-1] != ord("\n")):
        return None
    separators = codes[ends].reshape(-1, columns)
    lengths = np.diff(ends, prepend=-1) - 1
    if not (
        (separators[:, :-1] == ord(",")).all()
        and (separators[:, -1] == ord("\n")).all()
        and (codes <= ord("9")).all()
        and (lengths >= 1).all()
        and (lengths <= 3).all()
    ):
        return None
    values = (codes[ends - 1] - ord("0")).astype(np.int16)
    for place, weight in ((2, 10), (3, 100)):
        longer = np.flatnonzero(lengths >= place)
        values[longer] += weight * (codes[ends[longer] - place].astype(np.int16) - ord("0"))
    return None if (values > 255).any() else values.astype(np.uint8).reshape(-1, columns)


def _read_rows_carefully(text: TextIO, name: str, header: list[str]) -> np.ndarray:
    """All rows one by one; the first fault is an InputError that names its row and column."""
    lines = csv.reader(text)
    filled = (cells for cells in lines if len(cells) > 1 or any(cell.strip() for cell in cells))
    next(filled)  # the header
    table = bytearray()
    row = 0
    for row, cells in enumerate(filled, start=1):
        place = f"{name}, row {row} (line {lines.line_num})"
        if len(cells) != len(header):
            raise InputError(
                f"{place}: {len(cells)} values where the header has {len(header)} columns: "
                f"{GET_IT_AGAIN}"
            )
        try:
            table.extend([WHOLE_BYTES[cell] for cell in cells])
        except KeyError:
            table.extend(
                _byte(cell, f"{place}, column {column}")
                for cell, column in zip(cells, header, strict=True)
            )
    return np.frombuffer(table, dtype=np.uint8).reshape(row, len(header))


def _byte(cell: str, place: str) -> int:
    """The value of one cell, or an InputError that says what is wrong with it."""
    text = cell.strip()
    if NUMBER.fullmatch(text):
        number = float(text)
        if not 0 <= number <= 255:
            raise InputError(
                f"{place}: {_shown(text)} is outside 0 to 255: put it right or {GET_IT_AGAIN}"
            )
        if number != int(number):
            raise InputError(f"{place}: {_shown(text)} is a fraction: pixels are whole, 0 to 255")
        return int(number)
    fault = f"{_shown(text)} is no number" if text else "the value is missing"
    raise InputError(f"{place}: {fault}: put it right or {GET_IT_AGAIN}")


def _check_labels(labels: torch.Tensor, name: str) -> None:
    wrong = (labels >= CLASSES).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{name}, row {row + 1}, column {LABEL_COLUMN}: {int(labels[row])} is no digit "
            f"from 0 to {CLASSES - 1}: put it right or {GET_IT_AGAIN}"
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _more(columns: list[str]) -> str:
    return f" (and {len(columns) - 1} more)" if len(columns) > 1 else ""
