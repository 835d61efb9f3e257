"""Tables, archives and paths that are not the competition's data."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.conftest import RUN, assert_refused, write


def change(name: str, edit: Callable[[bytes], bytes]) -> Callable[[], None]:
    """What edits a file that is there."""
    return lambda: write(name, edit(Path(name).read_bytes()))()


def archive(edit: Callable[[zipfile.ZipFile], None], fix=lambda content: content):
    """What makes digits.zip: its members, and what is done to its bytes."""

    def put() -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
            edit(made)
        Path("digits.zip").write_bytes(fix(buffer.getvalue()))

    return put


def both_tables(made: zipfile.ZipFile) -> None:
    for name in ("train.csv", "test.csv"):
        made.write(f"digits/{name}", name)


def claim_small_size(content: bytes) -> bytes:
    """A bomb: its directory and header say 100 bytes, and far more come out."""
    size = struct.pack("<I", 50_000_000)
    assert content.count(size) == 2
    return content.replace(size, struct.pack("<I", 100))


def unknown_method(content: bytes) -> bytes:
    at = content.index(b"PK\1\2")
    return content[:8] + b"\x63\0" + content[10 : at + 10] + b"\x63\0" + content[at + 12 :]


def only_rows(count: int) -> Callable[[bytes], bytes]:
    return lambda content: b"\n".join(content.split(b"\n")[: count + 1])


def swap_tables() -> None:
    Path("digits/train.csv").rename("digits/other.csv")
    Path("digits/test.csv").rename("digits/train.csv")
    Path("digits/other.csv").rename("digits/test.csv")


def lonely_nine(content: bytes) -> bytes:
    header, first, *rows = content.strip().split(b"\n")
    rest = [b"3" + row[1:] if row.startswith(b"9") else row for row in rows]
    return b"\n".join([header, b"9" + first[1:], *rest])


ZIP = ["--data", "digits.zip"]
# What is done to good data, flags after the good ones, and what is said.
DATA = {
    "semicolons": (
        change("digits/train.csv", lambda content: content.replace(b",", b";")),
        [], "digits/train.csv, line 1: no header",
    ),
    "UTF-16": (
        change("digits/train.csv", lambda content: content.decode().encode("utf-16")),
        [], "digits/train.csv, line 1: no header",
    ),
    "gzip": (
        write("digits/test.csv", b"\x1f\x8b\x08\0" + bytes(range(256))),
        [], "digits/test.csv, line 1: no header",
    ),
    "blank lines only": (write("digits/test.csv", "\n\n  \n"), [], "digits/test.csv is empty"),
    "endless header": (write("digits/train.csv", "label," * 50_000), [], "digits/train.csv"),
    "a folder for a table": (
        lambda: (Path("digits/test.csv").unlink(), Path("digits/test.csv").mkdir()),
        [], "digits holds no test.csv",
    ),
    "tables swapped": (swap_tables, [], "digits/train.csv: column label is missing"),
    "old Mac line ends": (
        change("digits/train.csv", lambda content: content.replace(b"\n", b"\r")),
        [], "digits/train.csv",
    ),
    "NULs at the end": (
        change("digits/test.csv", lambda content: content + bytes(5000)), [], "digits/test.csv, row"
    ),
    "half a download": (
        change("digits/test.csv", lambda content: content[: len(content) // 2]),
        [], "digits/test.csv, row",
    ),
    "five images": (change("digits/train.csv", only_rows(5)), [], "few to"),
    "one image of a class": (
        change("digits/train.csv", lonely_nine), [], "class 9 has a single training image"
    ),
    "more folds than images of a class": (
        lambda: None, ["--members", "2", "--validation-fraction", "0.01"],
        "cannot be shared out among 100 folds",
    ),
    "a device file": (lambda: None, ["--data", "/dev/zero"], "/dev/zero is neither a folder nor"),
    "a pipe that nobody writes to": (
        lambda: os.mkfifo("pipe.csv"), ["--data", "pipe.csv"], "pipe.csv is neither a folder nor"
    ),
    "a table where both are needed": (
        lambda: None, ["--data", "digits/train.csv"], "train.csv is neither a folder nor a zip"
    ),
    "a link to itself": (
        lambda: os.symlink("loop", "loop"), ["--data", "loop"], "loop does not exist"
    ),
    "bomb by real size": (
        archive(lambda made: made.writestr("train.csv", b"0" * 50_000_000), claim_small_size),
        ZIP, "digits.zip/train.csv",
    ),
    "zip without test.csv": (
        archive(lambda made: made.write("digits/train.csv", "train.csv")),
        ZIP, "digits.zip holds no test.csv",
    ),
    "zip of folders": (
        archive(lambda made: made.writestr("train.csv/", "")), ZIP, "digits.zip holds no train.csv"
    ),
    "zip packed in a way nobody knows": (
        archive(both_tables, unknown_method), ZIP, "compression method is not supported"
    ),
    "zip in a zip": (
        archive(lambda made: made.writestr("inner.zip", b"PK\3\4")),
        ZIP, "digits.zip holds no train.csv",
    ),
    "zip with its bytes shifted": (
        archive(both_tables, lambda content: content[:40] + content[41:]), ZIP, "digits.zip"
    ),
    "zip whose table is bad": (
        archive(lambda made: (made.writestr("train.csv", "label\n1\n"),
                              made.write("digits/test.csv", "test.csv"))),
        ZIP, "digits.zip/train.csv: column pixel0 is missing (and 783 more)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DATA)
def test_broken_data_are_refused(desk, capsys, kind):
    spoil, flags, expected = DATA[kind]
    spoil()
    assert_refused(capsys, desk, [*RUN, *flags], expected)
