"""Parsing a table.

A bad file is refused with the row and the column where it is wrong."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def read_table(path: Path, columns: list[str], rows: np.ndarray | None = None) -> np.ndarray:
    """These columns of a CSV, which has them in any order, as uint8, rows x columns.

    `rows`: what `parse_rows` returned for the file, if somebody has called it already.
    """
    from .basics import InputError
    from .console import show_progress

    header: list[str] = []
    try:
        with path.open("rb") as file:
            lines = filter(str.strip, io.TextIOWrapper(file, "utf-8-sig"))  # without blank lines
            header = [name.strip().strip('"') for name in next(lines, "").split(",")]
            check_header(header, columns)
            if rows is None:
                rows = parse_rows(show_progress(lines, desc=f"reading {path.name}", unit=" rows"))
        check_table(rows, header)
    except ValueError as error:
        raise InputError(f"{path}: {name_cell(str(error), header)}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    return rows if header == columns else rows[:, [header.index(name) for name in columns]]


def check_header(header: list[str], columns: list[str]) -> None:
    """Raise ValueError unless the header has each of the columns once, and no other."""
    if header[0].startswith("<"):
        raise ValueError("a web page, not the data: sign in and accept the rules")
    for name in columns:
        if name not in header:
            raise ValueError(f"line 1: column {name!r} is missing")
    for name in header:
        if name not in columns:
            raise ValueError(f"line 1: column {name!r:.40} is unknown")
        if header.count(name) > 1:
            raise ValueError(f"line 1: column {name!r} appears twice")


def parse_rows(lines: Iterable[str]) -> np.ndarray:
    """Rows of numbers as uint8; ValueError for a cell that is not an integer from 0 to 255."""
    with warnings.catch_warnings():
        # numpy before 2.3 reads 300 as 44, -1 as 255 and 3.7 as 3, and only warns.
        warnings.simplefilter("error", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)  # about a file without rows, refused later
        # pandas' C engine takes half as long again for the same file.
        return np.loadtxt(lines, np.uint8, delimiter=",", quotechar='"', comments=None, ndmin=2)


def check_table(table: np.ndarray, header: list[str]) -> None:
    """Raise ValueError for a table without rows, with wrong rows, or with wrong labels."""
    if not table.size:
        raise ValueError("it has a header but no rows")
    if table.shape[1] != len(header):
        raise ValueError(f"a row has {table.shape[1]} values, not {len(header)}")
    from .basics import CLASSES  # here, so that to parse is possible without torch

    if "label" in header:
        labels = table[:, header.index("label")]
        wrong_rows = np.flatnonzero(labels >= CLASSES)
        if len(wrong_rows):
            row = wrong_rows[0]
            raise ValueError(f"row {row + 1}, column label: {labels[row]} is not a digit")
        if labels.min() == labels.max():
            raise ValueError(f"every label is {labels[0]}")


def name_cell(message: str, header: list[str]) -> str:
    """numpy's message about a bad cell, with the name of its column in place of its number."""
    found = re.match(r"could not convert string (.*) to .* at row (\d+), column (\d+)", message)
    if not found:
        return message.partition(";")[0]
    row, column = int(found[2]) + 1, dict(enumerate(header, 1)).get(int(found[3]), "surplus")
    return f"row {row}, column {column}: {found[1]:.40} is not an integer from 0 to 255"
