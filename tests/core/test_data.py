from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from digitkaggle.core.basics import InputError
from digitkaggle.core.data import PIXEL_COLUMNS, read_digits, read_images
from digitkaggle.core.results import compute_data_digest

HEADER = ",".join(PIXEL_COLUMNS)


def get_error(folder: Path) -> str:
    """The message, one line, of the error that reading a folder raises."""
    with pytest.raises(InputError) as caught:
        read_digits(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_is_read_as_the_pixels_and_labels_that_were_written(data_folder, few_digits):
    digits = read_digits(data_folder)
    for name in ("train_images", "train_labels", "test_images"):
        ours, expected = getattr(digits, name), getattr(few_digits, name)
        assert ours.equal(expected)
        assert ours.dtype == expected.dtype
    assert (digits.test_labels, digits.origin) == (None, str(data_folder))
    assert compute_data_digest(digits) == compute_data_digest(few_digits)


BAD_PIXELS = [
    *("", "x", "nan", "inf", "-1", "256", "300", "4294967303", "12345678901", "9" * 300),
    *("1.5", "3.7", "1e2", "1e400", "1_0", "٣"),
]
BAD_CELLS = [("pixel5", 6, cell) for cell in BAD_PIXELS]
BAD_CELLS += [("label", 0, cell) for cell in ("10", "-1", "", "seven", "3.5")]


@pytest.mark.parametrize(("name", "column", "cell"), BAD_CELLS)
def test_a_bad_cell_is_an_error_that_names_file_row_and_column(
    data_folder, train_csv, name, column, cell
):
    rows = [line.split(",") for line in train_csv.splitlines()]
    rows[4][column] = cell
    (data_folder / "train.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    assert f"{data_folder}/train.csv: row 4, column {name}: " in get_error(data_folder)


PAGE = "<!DOCTYPE html>\n<html>\n<title>Sign in, please</title>\n<script>a = [1, 2, 3]</script>"
# How train.csv is changed, by line (line 0 is the header) or as a whole, and the error message.
BAD_LINES = {
    "missing column": (lambda n, line: line.rpartition(",")[0], "column 'pixel783'"),
    "duplicate column": (lambda n, line: line + (",0" if n else ",pixel0"), "column 'pixel0'"),
    "first row too long": (lambda n, line: line + ",0" * (n == 1), "from 786 to 785 at row 2"),
    "third row too long": (lambda n, line: line + ",0" * (n == 3), "from 785 to 786 at row 3"),
    "row too short": (lambda n, line: line[: -2 * (n == 9) or None], "from 785 to 784 at row 9"),
    "rows too long": (lambda n, line: line + ",0" * (n > 0), "has 786 values, not 785"),
    "one class only": (lambda n, line: "7" * (n > 0) + line[n > 0 :], "every label is 7"),
}
BAD_TEXTS = {
    "no header": (lambda text: text.partition("\n")[2], "line 1: column 'label'"),
    "header only": (lambda text: text.partition("\n")[0] + "\n", "has a header but no rows"),
    "nothing": (lambda text: "\n\n  \n", "line 1: column 'label'"),
    "web page": (lambda text: PAGE, "a web page"),
    "not text": (lambda text: text[:9000] + "\udcff" + text[9000:], "decode byte 0xff"),
}


@pytest.mark.parametrize("problem", [*BAD_LINES, *BAD_TEXTS])
def test_a_bad_table_is_an_error_of_one_line_that_says_where(data_folder, train_csv, problem):
    change, expected = (BAD_LINES | BAD_TEXTS)[problem]
    if problem in BAD_LINES:
        bad = "\n".join(change(number, line) for number, line in enumerate(train_csv.splitlines()))
    else:
        bad = change(train_csv)
    (data_folder / "train.csv").write_bytes(bad.encode("utf-8", "surrogateescape"))
    message = get_error(data_folder)
    assert message.startswith(f"{data_folder}/train.csv")
    assert expected in message


def test_a_test_file_that_is_missing_or_has_labels_is_an_error_that_names_it(
    data_folder, train_csv
):
    (data_folder / "test.csv").write_text(train_csv)
    assert f"{data_folder}/test.csv: line 1: column 'label'" in get_error(data_folder)
    (data_folder / "test.csv").unlink()
    assert f"{data_folder}/test.csv cannot be read" in get_error(data_folder)


@given(images=st.integers(1, 5), seed=st.integers(0, 2**32 - 1),
       end=st.sampled_from(["\n", "\r\n", "\n\n", "\n  \n"]), mark=st.sampled_from(["", "\ufeff"]),
       quote=st.sampled_from(["", '"']), number=st.sampled_from(["%d", " %d"]))  # fmt: skip
@settings(max_examples=25)
def test_any_table_is_read_as_it_was_written(tmp_path, images, seed, end, mark, quote, number):
    """In any order of columns, with the line ends, quotes and numbers that programs write."""
    table = np.random.default_rng(seed).integers(0, 256, (images, 784))
    order = np.random.default_rng(seed).permutation(784)
    lines = [",".join(f"{quote}pixel{place}{quote}" for place in order)]
    lines += [",".join(number % value for value in row[order]) for row in table]
    (tmp_path / "any.csv").write_bytes((mark + end.join(lines)).encode())
    assert read_images(tmp_path / "any.csv").flatten(1).tolist() == table.tolist()


@given(content=st.binary(max_size=300), with_header=st.booleans())
@settings(max_examples=40)
@example(content=b"\r" * 9, with_header=True)
@example(content=b'"', with_header=True)
def test_any_bytes_in_train_csv_are_read_as_digits_or_are_an_error(
    data_folder, content, with_header
):
    header = f"label,{HEADER}\n".encode()
    (data_folder / "train.csv").write_bytes(header + content if with_header else content)
    try:
        digits = read_digits(data_folder)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert digits.train_labels.max() <= 9
