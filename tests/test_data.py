from __future__ import annotations

import io
import random
import re
import zipfile
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from digitkaggle import data
from digitkaggle.data import PIXEL_COLUMNS, read_digits, read_test_images
from digitkaggle.errors import InputError
from digitkaggle.split import split_rows
from tests.conftest import csv_text


def refusal(location: Path) -> str:
    """The message with which reading a location is refused."""
    with pytest.raises(InputError) as caught:
        read_digits(location)
    message = str(caught.value)
    assert "\n" not in message
    return message


def zipped(path: Path, **files: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_csv", ".csv"), content)
    return path


def test_a_folder_gives_the_same_pixels_and_labels_that_were_written(data_folder, few_digits):
    digits = read_digits(data_folder)
    assert digits.train_images.dtype == torch.uint8
    assert digits.train_images.shape == (300, 1, 28, 28)
    assert torch.equal(digits.train_images, few_digits.train_images)
    assert digits.train_labels.dtype == torch.int64
    assert torch.equal(digits.train_labels, few_digits.train_labels)
    assert torch.equal(digits.test_images, few_digits.test_images)
    assert digits.test_labels is None
    assert digits.digest() == few_digits.digest()


def test_a_zip_gives_the_same_as_a_folder(tmp_path, train_csv, test_csv, few_digits):
    flat = zipped(tmp_path / "flat.zip", train_csv=train_csv, test_csv=test_csv)
    assert read_digits(flat).digest() == few_digits.digest()
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.writestr("digit-recognizer/train.csv", train_csv)
        archive.writestr("digit-recognizer/test.csv", test_csv)
        archive.writestr("__MACOSX/digit-recognizer/train.csv", b"\0\1")
    assert read_digits(tmp_path / "nested.zip").digest() == few_digits.digest()


def test_a_byte_order_mark_crlf_blank_lines_and_whole_floats_are_accepted(
    data_folder, train_csv, few_digits
):
    lines = train_csv.splitlines()
    lines.insert(3, "")
    lines[1] = lines[1].replace(",0,", ",0.0,", 1)
    (data_folder / "train.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert read_digits(data_folder).digest() == few_digits.digest()


def test_columns_in_another_order_are_put_right(data_folder, train_csv, few_digits):
    rows = [line.split(",") for line in train_csv.splitlines()]
    order = list(range(len(rows[0])))
    random.Random(0).shuffle(order)
    shuffled = "\n".join(",".join(row[place] for place in order) for row in rows)
    (data_folder / "train.csv").write_text(shuffled)
    assert read_digits(data_folder).digest() == few_digits.digest()


def test_a_test_file_may_be_named_itself(data_folder, few_digits):
    assert torch.equal(read_test_images(data_folder / "test.csv"), few_digits.test_images)


# One cell of row 2, column pixel5, and what is said of it.
BAD_CELLS = {
    "": "the value is missing",
    "x": "'x' is no number",
    "nan": "'nan' is no number",
    "inf": "'inf' is no number",
    "256": "'256' is outside 0 to 255",
    "-1": "'-1' is outside 0 to 255",
    "0.5": "'0.5' is a fraction",
    "1e400": "'1e400' is outside 0 to 255",
    "1_0": "'1_0' is no number",
    "٣": "is no number",
    "\0": "is no number",
    "9" * 300: "is outside 0 to 255",
}


@pytest.mark.parametrize("cell", BAD_CELLS)
def test_a_bad_pixel_is_named_by_file_row_and_column(data_folder, train_csv, cell):
    lines = train_csv.splitlines()
    values = lines[2].split(",")
    values[6] = cell
    lines[2] = ",".join(values)
    (data_folder / "train.csv").write_text("\n".join(lines), encoding="utf-8")
    message = refusal(data_folder)
    assert f"{data_folder}/train.csv, row 2 (line 3), column pixel5: " in message
    assert BAD_CELLS[cell] in message


def changed_header(text: str, change) -> str:
    header, _, rest = text.partition("\n")
    return ",".join(change(header.split(","))) + "\n" + rest


# What is done to train.csv, and what is said of it.
BAD_TABLES = {
    "missing column": (
        lambda text: changed_header(text, lambda names: [*names[:-1], "pixel784"]),
        "column pixel783 is missing",
    ),
    "two missing columns": (
        lambda text: changed_header(text, lambda names: ["digit", "first", *names[2:]]),
        "column label is missing (and 1 more)",
    ),
    "repeated column": (
        lambda text: changed_header(text, lambda names: [*names[:-1], "pixel0"]),
        "column 'pixel0' is there twice",
    ),
    "extra column": (
        lambda text: "\n".join(
            line + (",comment" if not row else ",0") for row, line in enumerate(text.splitlines())
        ),
        "column 'comment' does not belong there",
    ),
    "no header": (lambda text: text.partition("\n")[2], "line 1: no header"),
    "row cut short": (lambda text: text.rstrip()[:-20], "row 300 (line 301): "),
    "row too long": (
        lambda text: text.replace("\n", ",0\n", 2).replace(",0\n", "\n", 1),
        "row 1 (line 2): 786 values where the header has 785 columns",
    ),
    "all rows too long": (
        lambda text: text.replace("\n", ",0\n").replace(",0\n", "\n", 1),
        "row 1 (line 2): 786 values",
    ),
    "no rows": (lambda text: text.partition("\n")[0] + "\n", "has a header but no rows"),
    "empty": (lambda text: "", "is empty"),
    "web page": (lambda text: "\n <!DOCTYPE html><html>sign in</html>", "is a web page"),
    "binary": (lambda text: "\x00\x01\x02" * 100, "no header"),
    "label out of range": (
        lambda text: "\n".join(
            "10" + line[1:] if row == 4 else line for row, line in enumerate(text.splitlines())
        ),
        "row 4, column label: 10 is no digit from 0 to 9",
    ),
    "label missing": (
        lambda text: "\n".join(
            line[1:] if row == 4 else line for row, line in enumerate(text.splitlines())
        ),
        "row 4 (line 5), column label: the value is missing",
    ),
    "one class": (
        lambda text: "\n".join(
            "7" + line[1:] if row else line for row, line in enumerate(text.splitlines())
        ),
        "every label is 7",
    ),
    "unclosed quote": (lambda text: text.replace("\n", '\n"', 1), "train.csv"),
    "no text": (lambda text: text[:8000] + "\udcff\udcfe" + text[8000:], "is no number"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_bad_table_is_refused_in_one_line_that_says_where(data_folder, train_csv, fault):
    change, expected = BAD_TABLES[fault]
    (data_folder / "train.csv").write_text(
        change(train_csv), encoding="utf-8", errors="surrogateescape"
    )
    message = refusal(data_folder)
    assert str(data_folder / "train.csv") in message
    assert expected in message


def test_a_test_file_with_labels_is_refused(data_folder, train_csv):
    (data_folder / "test.csv").write_text(train_csv)
    assert "column 'label' does not belong there" in refusal(data_folder)


def test_a_missing_file_is_named(data_folder):
    (data_folder / "test.csv").unlink()
    assert f"{data_folder} holds no test.csv" in refusal(data_folder)
    assert "nowhere does not exist" in refusal(data_folder / "nowhere")


def bad_archives(train_csv: str, test_csv: str) -> dict[str, tuple[bytes, str]]:
    good = io.BytesIO()
    with zipfile.ZipFile(good, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", train_csv)
        archive.writestr("test.csv", test_csv)
    damaged = bytearray(good.getvalue())
    damaged[500:520] = bytes(20)
    encrypted = bytearray(good.getvalue())
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    without, twice = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(without, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a/train.csv", train_csv)
        archive.writestr("b/train.csv", train_csv)
    return {
        "truncated": (good.getvalue()[:-2000], "breaks off before its end"),
        "damaged": (bytes(damaged), "train.csv cannot be read"),
        "encrypted": (bytes(encrypted), "encrypted"),
        "without train.csv": (without.getvalue(), "holds no train.csv"),
        "train.csv twice": (twice.getvalue(), "holds train.csv 2 times"),
        "web page": (b"<html>sign in</html>", "is a web page"),
        "empty": (b"", "neither a folder nor a zip"),
        "something else": (b"GIF89a" + bytes(100), "neither a folder nor a zip"),
    }


ARCHIVE_FAULTS = sorted(bad_archives("label", "pixel0"))


@pytest.mark.parametrize("fault", ARCHIVE_FAULTS)
def test_a_bad_zip_is_refused_in_one_line(tmp_path, train_csv, test_csv, fault):
    content, expected = bad_archives(train_csv, test_csv)[fault]
    archive = tmp_path / "digit-recognizer.zip"
    archive.write_bytes(content)
    message = refusal(archive)
    assert str(archive) in message
    assert expected in message


def test_a_zip_that_claims_to_unpack_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "bomb.zip", train_csv="0" * 10_000_000, test_csv="")
    monkeypatch.setattr(data, "LARGEST_UNPACKED", 1_000_000)
    assert "unpacks to 10,000,000 bytes" in refusal(archive)


def test_names_in_a_zip_that_climb_out_of_a_folder_write_nothing(tmp_path, train_csv, test_csv):
    with zipfile.ZipFile(tmp_path / "climb.zip", "w") as archive:
        archive.writestr("../../train.csv", train_csv)
        archive.writestr("../../test.csv", test_csv)
    read_digits(tmp_path / "climb.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["climb.zip"]


CELL = st.one_of(
    st.integers(-5, 300).map(str),
    st.sampled_from(["", " 7", "7 ", "+7", "007", "7.0", "7.5", "1e1", "1e-1", '"7"', "nan", "-0"]),
    st.text(st.characters(exclude_characters=',\r\n"', exclude_categories=["Cs"]), max_size=4),
)


@given(cells=st.lists(CELL, min_size=3, max_size=3))
@settings(max_examples=150)
def test_the_fast_and_the_careful_reader_agree_on_any_cell(data_folder, cells):
    """Whatever the fast reader accepts, the one that names faults reads as the same bytes."""
    body = ",".join([*cells, *["0"] * (len(PIXEL_COLUMNS) - 3)]) + "\n"
    careful: object
    try:
        careful = data._read_rows_carefully(
            io.StringIO(f"header\n{body}"), "test.csv", list(PIXEL_COLUMNS)
        ).tolist()
    except InputError as error:
        careful = str(error)
    fast = data._read_rows_fast(io.BytesIO(body.encode()), len(PIXEL_COLUMNS))
    plain = all(re.fullmatch("[0-9]{1,3}", cell) and int(cell) <= 255 for cell in cells)
    assert (fast is not None) == plain
    if fast is not None:
        assert fast.tolist() == careful
    elif isinstance(careful, str):
        assert careful.startswith("test.csv, row 1 (line 2), column pixel")


@given(rows=st.lists(st.lists(st.integers(0, 255), min_size=5, max_size=5), max_size=30),
       block=st.integers(1, 200), end=st.sampled_from(["", "\n", "\r\n", "\n\n"]))  # fmt: skip
def test_blocks_of_any_size_read_the_same_rows(rows, block, end):
    body = "\n".join(",".join(map(str, row)) for row in rows) + end
    with mock.patch.object(data, "READ_BLOCK", block):
        table = data._read_rows_fast(io.BytesIO(body.encode()), 5)
    if rows and not end.startswith("\n\n"):
        assert table.tolist() == rows


def test_a_split_by_class_holds_out_the_same_share_of_every_class(sample):
    train_rows, held_out = split_rows(sample.train_labels, 0.1, seed=0, by_class=True)
    assert sample.train_labels[held_out].bincount().tolist() == [40] * 10
    assert sorted(torch.cat([train_rows, held_out]).tolist()) == list(range(4000))


def test_a_plain_split_has_the_classic_sizes_and_every_row_once():
    train_rows, held_out = split_rows(torch.arange(42_000) % 10, 0.25, seed=0, by_class=False)
    assert (len(train_rows), len(held_out)) == (31_500, 10_500)
    assert len(torch.cat([train_rows, held_out]).unique()) == 42_000


def test_a_split_depends_on_its_seed_alone(sample):
    def held_out(seed: int) -> list[int]:
        return split_rows(sample.train_labels, 0.1, seed, by_class=True)[1].tolist()

    assert held_out(1) == held_out(1) != held_out(2)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 0, 1], "class 1 has a single training image"),
        ([0, 0, 1, 1, 2, 2], "too few to hold out 0.1"),
    ],
)
def test_classes_too_small_to_split_are_refused(labels, expected):
    with pytest.raises(InputError, match=expected):
        split_rows(torch.tensor(labels), 0.1, seed=0, by_class=True)


def test_the_sample_is_4000_and_1000_real_digits_by_class_always_the_same(sample):
    assert len(sample.train_images) == 4000
    assert sample.train_labels.bincount().tolist() == [400] * 10
    assert sample.test_labels.bincount().tolist() == [100] * 10
    # Known from the first time: another split would move every figure in the README.
    assert sample.digest()[:16] == "b4839b3fc5c54dda"


def test_csv_text_is_what_the_competition_serves(few_digits):
    header = csv_text(few_digits.train_images[:1], few_digits.train_labels[:1]).splitlines()[0]
    assert header.startswith("label,pixel0,pixel1,")
    assert header.endswith(",pixel782,pixel783")
