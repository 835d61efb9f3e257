from __future__ import annotations

import random
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from digitkaggle.core import data
from digitkaggle.core.basics import Digits, InputError
from digitkaggle.core.data import PIXEL_COLUMNS, find_data, read_digits, read_images
from tests.conftest import csv_text

HEADER = ",".join(PIXEL_COLUMNS)


def refusal(folder: Path) -> str:
    """The one line with which reading a folder is refused."""
    with pytest.raises(InputError) as caught:
        read_digits(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def with_cell(text: str, row: int, column: int, cell: str) -> str:
    """A CSV with another cell in a row, from 1, and a column, from 0."""
    lines = text.splitlines()
    values = lines[row].split(",")
    values[column] = cell
    lines[row] = ",".join(values)
    return "\n".join(lines)


def test_a_folder_gives_the_same_pixels_and_labels_that_were_written(data_folder, few_digits):
    digits = read_digits(data_folder)
    assert (digits.train_images.dtype, digits.train_labels.dtype) == (torch.uint8, torch.int64)
    assert digits.train_images.shape == (300, 1, 28, 28)
    assert torch.equal(digits.train_images, few_digits.train_images)
    assert torch.equal(digits.train_labels, few_digits.train_labels)
    assert torch.equal(digits.test_images, few_digits.test_images)
    assert digits.test_labels is None
    assert digits.origin == str(data_folder)


def test_the_digest_depends_on_pixels_and_labels_and_not_on_where_they_lay(few_digits, data_folder):
    assert read_digits(data_folder).digest() == few_digits.digest()
    parts = (few_digits.train_images, few_digits.train_labels, few_digits.test_images)
    assert Digits(*parts, few_digits.train_labels[:50]).digest() != few_digits.digest()
    for place in range(3):
        changed = [part.clone() for part in parts]
        changed[place].view(-1)[200] ^= 1
        assert Digits(*changed).digest() != few_digits.digest()


def test_a_folder_inside_a_zip_is_read_like_any_other(tmp_path, train_csv, test_csv, few_digits):
    with zipfile.ZipFile(tmp_path / "digits.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside/train.csv", train_csv)
        archive.writestr("inside/test.csv", test_csv)
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        assert read_digits(zipfile.Path(archive, "inside/")).digest() == few_digits.digest()


def test_a_byte_order_mark_crlf_blank_lines_quotes_and_whole_floats_are_accepted(
    data_folder, train_csv, few_digits
):
    lines = train_csv.splitlines()
    lines[0] = ",".join(f'"{name}"' for name in lines[0].split(","))
    lines[1] = lines[1].replace(",0,", ",0.0,", 1)
    lines[2:2] = ["", "   "]
    (data_folder / "train.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert read_digits(data_folder).digest() == few_digits.digest()


def test_columns_in_any_order_are_put_right(data_folder, train_csv, few_digits):
    rows = [line.split(",") for line in train_csv.splitlines()]
    order = random.Random(0).sample(range(785), 785)
    shuffled = "\n".join(",".join(row[place] for place in order) for row in rows)
    (data_folder / "train.csv").write_text(shuffled)
    assert read_digits(data_folder).digest() == few_digits.digest()


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "x",
        "nan",
        "inf",
        "-1",
        "256",
        "300",
        "4294967303",
        "1.5",
        "1e400",
        "1_0",
        "٣",
        "9" * 300,
    ],
)
def test_a_bad_pixel_is_refused_by_file_row_and_column(data_folder, train_csv, cell):
    bad = with_cell(train_csv, row=2, column=6, cell=cell)
    (data_folder / "train.csv").write_text(bad, encoding="utf-8")
    assert f"{data_folder}/train.csv: row 2, column pixel5: " in refusal(data_folder)


@pytest.mark.parametrize("label", ["10", "-1", "", "seven", "3.5"])
def test_a_bad_label_is_refused_by_file_row_and_column(data_folder, train_csv, label):
    (data_folder / "train.csv").write_text(with_cell(train_csv, row=4, column=0, cell=label))
    assert f"{data_folder}/train.csv: row 4, column label: " in refusal(data_folder)


def on_lines(text: str, change) -> str:
    """A CSV with `change`, of a line's number and text, done to every line; 0 is the header."""
    return "\n".join(change(number, line) for number, line in enumerate(text.splitlines()))


def with_header(text: str, change) -> str:
    header, _, rest = text.partition("\n")
    return ",".join(change(header.split(","))) + "\n" + rest


PAGE = "<!DOCTYPE html>\n<html>\n<title>Sign in, please</title>\n<script>a = [1, 2, 3]</script>"
# What is done to train.csv, and what is said of it.
BAD_TABLES = {
    "missing column": (lambda t: on_lines(t, lambda n, line: line.rpartition(",")[0]), "pixel783"),
    "renamed column": (lambda t: with_header(t, lambda names: ["digit", *names[1:]]), "label"),
    "doubled column": (
        lambda t: on_lines(t, lambda n, line: line + (",0" if n else ",pixel0")), "line 1.*pixel0"
    ),
    "doubled name": (lambda t: with_header(t, lambda n: [*n[:-1], "pixel0"]), "line 1.*pixel783"),
    "strange column": (
        lambda t: on_lines(t, lambda n, line: line + (",0" if n else ",comment")), "comment"
    ),
    "no header": (lambda t: t.partition("\n")[2], "line 1"),
    "semicolons": (lambda t: t.replace(",", ";"), "line 1"),
    "row cut short": (lambda t: t.rstrip()[:-20], "row 300, column pixel7"),
    "first row too long": (lambda t: on_lines(t, lambda n, line: line + ",0" * (n == 1)), "row 1 "),
    "third row too long": (lambda t: on_lines(t, lambda n, line: line + ",0" * (n == 3)), "row 3 "),
    "a row with a doubled comma": (
        lambda t: on_lines(t, lambda n, line: line.replace(",", ",,", n == 3)), "row 3 "
    ),
    "all rows too long": (lambda t: on_lines(t, lambda n, line: line + ",0" * (n > 0)), "row 1 "),
    "no rows": (lambda t: t.partition("\n")[0] + "\n", "has a header but no rows"),
    "empty": (lambda t: "", "No columns"),
    "blank lines only": (lambda t: "\n\n  \n", "No columns"),
    "web page": (lambda t: PAGE, "a web page"),
    "binary": (lambda t: "\x00\x01\x02" * 100, "line 1"),
    "one class only": (lambda t: on_lines(t, lambda n, line: "7" * (n > 0) + line[n > 0:]),
                       "every label is 7"),
    "unclosed quote": (lambda t: t.replace("\n", '\n"', 1), "EOF inside string"),
    "no text": (lambda t: t[:9000] + "\udcff\udcfe" + t[9000:], "decode byte 0xff"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_bad_table_is_refused_in_one_line_that_says_where(data_folder, train_csv, fault):
    change, expected = BAD_TABLES[fault]
    content = change(train_csv).encode("utf-8", "surrogateescape")
    (data_folder / "train.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"{data_folder}/train.csv.*{expected}"):
        read_digits(data_folder)
    refusal(data_folder)


def test_a_test_file_with_labels_or_missing_is_named(data_folder, train_csv):
    (data_folder / "test.csv").write_text(train_csv)
    assert f"{data_folder}/test.csv: line 1: column 'label'" in refusal(data_folder)
    (data_folder / "test.csv").unlink()
    assert f"{data_folder}/test.csv cannot be read" in refusal(data_folder)


@pytest.mark.parametrize("row", [1, 101, 150, 300])
@pytest.mark.parametrize(("column", "cell"), [(0, "x"), (783, "0,0"), (9, "300")])
def test_a_fault_is_named_by_its_row_wherever_the_rows_read_at_once_begin(
    data_folder, test_csv, train_csv, row, column, cell
):
    text = on_lines(train_csv, lambda number, line: line.partition(",")[2])
    (data_folder / "long.csv").write_text(with_cell(text, row, column, cell))
    for rows_at_once in (100, 2000):
        with (
            mock.patch.object(data, "ROWS_AT_ONCE", rows_at_once),
            pytest.raises(InputError, match=rf"long.csv: row {row}\b"),
        ):
            read_images(data_folder / "long.csv")


def test_text_far_down_a_long_file_is_named_by_its_row(tmp_path):
    """Pandas looks at the types of some thousand rows at a time, and warns where they differ."""
    rows = [",".join(["0"] * 784)] * 1500
    rows[1299] = "x" + rows[1299][1:]
    (tmp_path / "test.csv").write_text("\n".join([HEADER, *rows]))
    with pytest.raises(InputError, match=r"test.csv: row 1300, column pixel0: 'x'"):
        read_images(tmp_path / "test.csv")


@given(rows=st.integers(1, 7), at_once=st.integers(1, 4), seed=st.integers(0, 2**32 - 1),
       end=st.sampled_from(["", "\n", "\n\n"]), line=st.sampled_from(["\n", "\r\n"]))  # fmt: skip
@settings(max_examples=20)
def test_any_table_is_read_as_it_was_written(tmp_path, rows, at_once, seed, end, line):
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, 1, 28, 28), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    text = csv_text(images).rstrip().replace("\n", line) + end
    (tmp_path / "any.csv").write_bytes(text.encode())
    with mock.patch.object(data, "ROWS_AT_ONCE", at_once):
        assert torch.equal(read_images(tmp_path / "any.csv"), images)


CELL = st.one_of(
    st.integers(-5, 300).map(str),
    st.sampled_from([" 7", "7 ", "+7", "007", "7.0", "7.5", "1e1", "1e-1", '"7"', "-0", "NA"]),
    st.text(st.characters(exclude_characters=',\r\n"\0', exclude_categories=["Cs"]), max_size=4),
)


@given(cell=CELL)
@settings(max_examples=60)
def test_any_cell_is_read_as_the_number_it_says_or_refused_at_its_place(tmp_path, cell):
    rows = [",".join(["7"] * 784)] * 3
    text = with_cell("\n".join([HEADER, *rows]), row=2, column=5, cell=cell)
    (tmp_path / "any.csv").write_text(text, encoding="utf-8")
    try:
        images = read_images(tmp_path / "any.csv")
    except InputError as error:
        assert "any.csv: row 2, column pixel5: " in str(error)  # noqa: PT017
    else:
        assert images[1].flatten()[5] == float(cell.strip('"'))
        assert images.sum() == images[1].flatten()[5].long() + 7 * (3 * 784 - 1)


@given(content=st.binary(max_size=300), headed=st.booleans())
@settings(max_examples=60)
@example(content=b"\r" * 9, headed=True)
@example(content=b'"', headed=True)
@example(content=b"1e999," * 784, headed=True)
def test_any_bytes_for_train_csv_are_digits_or_refused(data_folder, content, headed):
    header = f"label,{HEADER}\n".encode()
    (data_folder / "train.csv").write_bytes(header + content if headed else content)
    try:
        digits = read_digits(data_folder)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert digits.train_labels.max() <= 9


def test_kaggles_input_is_searched_for_both_files_and_the_competitions_preferred(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("DIGITKAGGLE_KAGGLE_ROOT", str(tmp_path))
    assert find_data() is None
    for name in ("a/other", "competitions/digit-recognizer", "digit-recognizer/half"):
        folder = tmp_path / "input" / name
        folder.mkdir(parents=True)
        (folder / "train.csv").touch()
        if "half" not in name:
            (folder / "test.csv").touch()
    assert find_data() == tmp_path / "input/competitions/digit-recognizer"


def test_elsewhere_data_are_looked_for_in_the_folder_data(data_folder, monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.chdir(data_folder.parent)
    assert find_data() is None
    data_folder.rename("data")
    assert find_data() == Path("data")
