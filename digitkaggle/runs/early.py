"""Kaggle's CSVs, read by other processes while this one imports torch, which takes as long.

Only an offer: whatever goes wrong here, the file is read again later, which says what is wrong.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ..core.parsing import parse_rows

started: dict[Path, tuple[subprocess.Popen, IO[bytes]]] = {}


def start_reading(arguments: Sequence[str]) -> None:
    """Begin to read both CSVs if the arguments are a run's, and its folder has them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--sample", action="store_true")
    try:
        args, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        return
    files = [args.data / name for name in ("train.csv", "test.csv")]
    is_run = not rest or rest[0] == "run" or rest[0].startswith("-")
    is_run = is_run and {"-h", "--help", "--version"}.isdisjoint(rest)
    if args.sample or not is_run or not all(file.is_file() for file in files):
        return
    for file in files:
        output = tempfile.TemporaryFile()  # noqa: SIM115 (it outlives this function)
        command = [sys.executable, "-m", __name__, str(file)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        started[file] = process, output


def take_rows(file: Path) -> np.ndarray | None:
    """A CSV's rows as `parse_rows` returns them, if they were read early, and only once."""
    if file not in started:
        return None
    process, output = started.pop(file)
    with output:
        if process.wait() != 0:
            return None
        output.seek(0)  # only now: the place in the file is shared with the other process
        return np.load(output)


def print_rows(file: Path) -> None:
    """Write a CSV's rows as an .npy file to standard output."""
    with file.open(encoding="utf-8-sig") as text:
        lines = filter(str.strip, text)
        next(lines)  # the header
        np.save(sys.stdout.buffer, parse_rows(lines))


if __name__ == "__main__":
    print_rows(Path(sys.argv[1]))
