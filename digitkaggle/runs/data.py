"""The competition's data as people have them: in folders, archives, and other programs' CSVs.

The kernel's reader is strict, because Kaggle's own files are all alike. Here, whatever a file means
beyond doubt is read, with a line in the log about each liberty; anything else is refused by name.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core import parsing
from ..core.basics import CLASSES, IMAGE_SIZE, Digits, InputError, logger
from ..core.data import PIXEL_COLUMNS, TEST_FILE, TRAIN_FILE
from ..core.kaggle import find_data, on_kaggle
from ..core.parsing import name_cell
from .early import take_rows

# What Python's readers raise over a damaged or unusual archive.
ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
ARCHIVE_ERRORS += (OSError,)
DEPTH = 2  # folders below the one that is named
TABLE = re.compile(r"(train|test)(?: ?\(\d+\)| ?-? ?copy)?\.csv(?:\.(?:zip|gz|bz2|xz))?", re.I)
TABULAR = (".csv", ".zip", ".gz", ".bz2", ".xz", ".7z", ".rar", ".tar", ".xls", ".xlsx", ".parquet")
NEEDED = {"train": TRAIN_FILE, "test": TEST_FILE}
DECOMPRESS = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}
ZIP_MAGIC = b"PK\x03\x04"
# What else calls itself CSV, by its first bytes, and what to do about it.
IMPOSTORS = {
    ZIP_MAGIC: "a zip or spreadsheet, not a CSV: unpack it, or save it as CSV",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a rar archive: unpack it",
    b"PAR1": "a parquet file: save it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: save it as CSV",
    b"version https://git-lfs": "a git-LFS pointer, not the data: run git lfs pull",
}
# Columns that pandas and other competitions add, in small letters; they mean nothing here.
INDEX_COLUMNS = ("", "unnamed: 0", "index", "id", "imageid", "image_id")
PIXEL_NAME = re.compile(r"(?:pixel)?[ _]?(\d+)(?:x(\d+))?")


def find_default_data() -> Path | None:
    """Where data are without `--data`: on Kaggle its input, else `data` if anything is in it."""
    if on_kaggle():
        return find_data()
    files = [path for path, _ in walk_files(Path("data")) if path.suffix.lower() in TABULAR]
    return Path("data") if files else None


def read_data(location: Path) -> Digits:
    """The digits in a folder or an archive, or in either inside a folder.

    Raises:
        InputError: a file, column or value is missing or wrong; names file, row and column.
    """
    with open_tables(location, ("train", "test")) as tables:
        table = read_table(tables["train"], ["label", *PIXEL_COLUMNS])
        test_images = view_images(read_table(tables["test"], PIXEL_COLUMNS))
    train_images, labels = view_images(table[:, 1:].copy()), table[:, 0].astype(np.int64)
    return Digits(train_images, torch.from_numpy(labels), test_images, origin=str(location))


def read_test_images(location: Path) -> Tensor:
    """The test images, uint8, N x 1 x 28 x 28, in a folder or archive, or of a CSV itself."""
    if location.is_file() and not is_archive(location):
        return view_images(read_table(location, PIXEL_COLUMNS))
    with open_tables(location, ("test",)) as tables:
        return view_images(read_table(tables["test"], PIXEL_COLUMNS))


def list_data_files(location: Path) -> list[Path]:
    """The files at a location that may be read: tables and archives; or the file itself."""
    if not location.is_dir():
        return [location]
    files = [path for path, _ in walk_files(location)]
    return [path for path in files if TABLE.fullmatch(path.name) or is_archive(path)]


def view_images(table: np.ndarray) -> Tensor:
    """Rows of pixels as images, N x 1 x 28 x 28."""
    return torch.from_numpy(table).view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)


@contextlib.contextmanager
def open_tables(location: Path, kinds: Iterable[str]) -> Iterator[dict[str, Path]]:
    """The files of these kinds, `train` and `test`: paths, or `zipfile.Path`s while open."""
    if not location.exists():
        raise InputError(f"{location} does not exist: name a folder or zip with {TRAIN_FILE}")
    groups: dict[Path, dict[str, list[Path]]] = {}
    with contextlib.ExitStack() as stack:
        for folder, kind, path in list_tables(location, stack):
            groups.setdefault(folder, {}).setdefault(kind, []).append(path)
        needed = " and ".join(NEEDED[kind] for kind in kinds)
        complete = [folder for folder, found in groups.items() if all(k in found for k in kinds)]
        # The files themselves win over an archive beside them, and both over folders below.
        complete.sort(key=lambda folder: (len(folder.parts), str(folder)))
        if not complete:
            found = sorted(str(p) for group in groups.values() for ps in group.values() for p in ps)
            present = f"only {', '.join(found)[:200]}" if found else "neither, nor a zip with them"
            raise InputError(f"{location} holds no folder with {needed}: {present}")
        best, *others = complete
        if others and len(others[0].parts) == len(best.parts):
            places = f"{best} and {others[0]}"
            raise InputError(f"{location} holds {needed} twice, in {places}: name one of them")
        yield {kind: choose_file(groups[best][kind], NEEDED[kind]) for kind in kinds}


def choose_file(paths: list[Path], name: str) -> Path:
    """The file with exactly this name, or the only one; InputError if it is not clear."""
    exact = [path for path in paths if path.name == name]
    if len(exact or paths) > 1:
        places = " and ".join(str(path) for path in paths[:2])
        raise InputError(f"{places} may both be {name}: keep one of them")
    path = (exact or paths)[0]
    if not exact:
        logger.info("%s is read as %s", path, name)
    return path


def list_tables(location: Path, stack: contextlib.ExitStack) -> Iterator[tuple[Path, str, Path]]:
    """Folder, kind and path of all that may be train.csv or test.csv, inside archives too."""
    files = [(location, location.parent)] if location.is_file() else walk_files(location)
    for file, folder in files:
        match = TABLE.fullmatch(file.name)
        if is_archive(file):
            try:
                archive = stack.enter_context(zipfile.ZipFile(file))
            except ARCHIVE_ERRORS as error:
                raise InputError(f"{file} is a damaged zip ({error}): copy it again") from error
            entries = [e for e in archive.namelist() if e.lower().endswith((".csv", ".gz"))]
            entries = [e for e in entries if not e.startswith("__MACOSX")]
            if any(archive.getinfo(entry).flag_bits & 1 for entry in entries):
                raise InputError(f"{file} is encrypted: unpack it")
            if match and not entries:
                raise InputError(f"{file}: {IMPOSTORS[ZIP_MAGIC]}")
            for entry in entries:
                inside = TABLE.fullmatch(Path(entry).name)
                if match and len(entries) == 1:  # train.csv.zip
                    yield folder, match[1].lower(), zipfile.Path(archive, entry)
                elif inside:
                    inner = file / Path(entry).parent
                    yield inner, inside[1].lower(), zipfile.Path(archive, entry)
        elif match:
            yield folder, match[1].lower(), file


def walk_files(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Files in a folder and a little below it, with the folder of each."""
    for root, folders, names in os.walk(folder):
        if len(Path(root).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            yield Path(root, name), Path(root)


def is_archive(file: Path) -> bool:
    """Whether a file is a zip, or calls itself one; a spreadsheet is not."""
    if file.suffix.lower() == ".zip":
        return True
    return bool(TABLE.fullmatch(file.name)) and zipfile.is_zipfile(file)


def read_table(path: Path, columns: list[str]) -> np.ndarray:
    """A CSV's columns as uint8, rows x columns, in this order; InputError as `read_data`."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
        if is_plain(head, columns):
            table = parsing.read_table(path, columns, take_rows(path))
        else:
            table = parse_table(decode_text(path.read_bytes()), columns, str(path))
    except ARCHIVE_ERRORS as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason})") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    pixels = table[:, columns.index(PIXEL_COLUMNS[0]) :]
    if pixels.max() == 1:
        raise InputError(f"{path}: pixels lie from 0 to 1, not 0 to 255: multiply them by 255")
    return table


def is_plain(head: bytes, columns: list[str]) -> bool:
    """Whether a file begins as Kaggle's own: its header, and a row of integers."""
    lines = head.removeprefix(b"\xef\xbb\xbf").splitlines()
    if len(lines) < 2:
        return False
    names = [name.strip(b' "') for name in lines[0].split(b",")]
    return sorted(names) == sorted(name.encode() for name in columns) and bool(
        re.fullmatch(rb'[\d," ]+', lines[1])
    )


def decode_text(content: bytes) -> str:
    """The text of a file, unpacked; ValueError for what is not text."""
    for magic, decompress in DECOMPRESS.items():
        if content.startswith(magic):
            content = decompress(content)
    for magic, advice in IMPOSTORS.items():
        if content.startswith(magic):
            raise ValueError(advice)
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode("utf-16" if utf16 else "utf-8-sig")
    if text.lstrip().startswith("<"):
        raise ValueError("a web page, not the data: sign in, accept the rules, download it again")
    return text


def parse_table(text: str, columns: list[str], name: str) -> np.ndarray:
    """A table in another form than Kaggle's, as uint8; ValueError says what is wrong, and where."""
    lines = [line for line in io.StringIO(text) if line.strip()]
    first = lines[0] if lines else ""
    delimiter = max(",;\t", key=first.count)
    header = [cell.strip().strip('"') for cell in first.split(delimiter)]
    if len(header) > 1 and all(re.fullmatch(r"[\d.]+", cell) for cell in header):
        number = len(header)
        if sorted(map(float, header)) not in (list(range(784)), list(range(1, 785))):
            raise ValueError(f"line 1 has {number} numbers, not names of columns: add a header")
    sources = match_columns(header, columns, name)
    if len(lines) < 2:
        raise ValueError("it has a header but no rows")
    try:
        table = np.loadtxt(lines[1:], float, delimiter=delimiter, quotechar='"', comments=None,
                           ndmin=2)  # fmt: skip
    except ValueError as error:
        raise ValueError(name_cell(str(error), header)) from error
    if table.shape[1] != len(header):
        raise ValueError(f"a row has {table.shape[1]} values, not {len(header)}")
    table = table[:, sources]
    pixels = table[:, columns.index(PIXEL_COLUMNS[0]) :]
    if pixels.min() >= 0 and pixels.max() <= 1 and (pixels % 1).any():
        raise ValueError("pixels lie from 0 to 1, not 0 to 255: multiply them by 255")
    highest = np.where(np.array(columns) == "label", CLASSES - 1, 255)
    wrong = np.argwhere(~((table >= 0) & (table <= highest) & (table % 1 == 0)))  # also NaN
    if len(wrong):
        row, column = wrong[0]
        expected = f"an integer from 0 to {highest[column]}"
        value = f"{table[row, column]:g} is not {expected}"
        raise ValueError(f"row {row + 1}, column {header[sources[column]]}: {value}")
    if columns[0] == "label" and len(np.unique(table[:, 0])) == 1:
        raise ValueError(f"every label is {table[0, 0]:g}")
    return table.astype(np.uint8)


def match_columns(header: list[str], columns: list[str], name: str) -> list[int]:
    """The place in the header of each column; ValueError if one is missing, unknown or doubled."""
    places: dict[str, list[int]] = {}
    numbers = {
        place: n for place, cell in enumerate(header) if (n := parse_pixel(cell)) is not None
    }
    from_one = numbers and min(numbers.values()) == 1 and max(numbers.values()) == IMAGE_SIZE**2
    for place, cell in enumerate(header):
        known = cell.lower()
        if place in numbers:
            known = f"pixel{numbers[place] - bool(from_one)}"
        elif known in INDEX_COLUMNS or (known == "label" and "label" not in columns):
            logger.info("%s: column %r is dropped", name, cell)
            continue
        if known not in columns:
            raise ValueError(f"line 1: column {cell!r:.40} is unknown")
        places.setdefault(known, []).append(place)
    for column in columns:
        if column not in places:
            raise ValueError(f"line 1: column {column!r} is missing")
        if len(places[column]) > 1:
            raise ValueError(f"line 1: column {header[places[column][1]]!r} appears twice")
    first = header[places[PIXEL_COLUMNS[0]][0]]
    if first != PIXEL_COLUMNS[0]:
        logger.info("%s: pixels are read by their numbers, from %r on", name, first)
    return [places[column][0] for column in columns]


def parse_pixel(cell: str) -> int | None:
    """The number in a pixel's name: of pixel5, 5, or 1x6 (row and column from 1, so 5 again)."""
    match = PIXEL_NAME.fullmatch(cell.lower())
    if not match:
        return None
    if match[2]:
        return IMAGE_SIZE * (int(match[1]) - 1) + int(match[2]) - 1
    return int(match[1])
