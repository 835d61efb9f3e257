"""Data as people have them: read where their meaning is beyond doubt, else refused by name."""

from __future__ import annotations

import gzip
import io
import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from digitkaggle.cli import main
from digitkaggle.core.basics import InputError
from digitkaggle.core.data import PIXEL_COLUMNS
from digitkaggle.core.results import compute_data_digest
from digitkaggle.runs.data import find_default_data, read_data, read_test_images


@pytest.fixture(scope="session")
def tables(few_digits) -> tuple[pd.DataFrame, pd.DataFrame]:
    """train.csv and test.csv as data frames."""
    train = pd.DataFrame(few_digits.train_images.flatten(1).numpy(), columns=PIXEL_COLUMNS)
    train.insert(0, "label", few_digits.train_labels.numpy())
    test = pd.DataFrame(few_digits.test_images.flatten(1).numpy(), columns=PIXEL_COLUMNS)
    return train, test


@pytest.fixture
def expected(few_digits) -> str:
    return compute_data_digest(few_digits)


@pytest.fixture
def save(tmp_path, tables):
    """Writes both tables into a folder, changed by a function, as pandas does with options."""

    def write(change=lambda table: table, name: str = "{}.csv", **options) -> Path:
        folder = tmp_path / "some data"
        for kind, table in zip(("train", "test"), tables, strict=True):
            path = folder / name.format(kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            changed = change(table)
            changed.to_csv(path, **({"index": False} | options))
        return folder

    return write


def pack(folder: Path, name: str = "{}.csv.zip", inner: str = "{}.csv") -> Path:
    """Replace each CSV by a zip of its own."""
    for path in list(folder.glob("*.csv")):
        content = path.read_bytes()
        path.unlink()
        with zipfile.ZipFile(folder / name.format(path.stem), "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(inner.format(path.stem), content)
    return folder


@pytest.mark.parametrize(
    "name",
    ["digit-recognizer/{}.csv", "a/b/{}.csv", "{} (1).csv", "{}(2).csv", "{} copy.csv", "{}.CSV"],
)
def test_files_are_found_below_a_folder_and_by_the_names_that_browsers_give(save, expected, name):
    assert compute_data_digest(read_data(save(name=name))) == expected


@pytest.mark.parametrize("compression", ["gzip", "bz2", "xz"])
@pytest.mark.parametrize("name", ["{}.csv", "{}.csv.gz"])
def test_compressed_files_are_read_whatever_their_names(save, expected, compression, name):
    assert compute_data_digest(read_data(save(name=name, compression=compression))) == expected


@pytest.mark.parametrize(
    ("name", "inner"),
    [("{}.csv.zip", "{}.csv"), ("{}.csv", "{}.csv"), ("{}.csv.zip", "data.csv")],
)
def test_a_zip_for_each_file_is_read(save, expected, name, inner):
    assert compute_data_digest(read_data(pack(save(), name, inner))) == expected


def test_the_zip_may_have_any_name_and_lie_in_a_folder(save, expected, tmp_path):
    source = save()
    (tmp_path / "folder/below").mkdir(parents=True)
    path = tmp_path / "folder/below/archive (3).zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for kind in ("train", "test"):
            file.write(source / f"{kind}.csv", f"digits/{kind}.csv")
            file.writestr(f"__MACOSX/digits/{kind}.csv", "not a table")
    for place in (path, path.parent, tmp_path / "folder"):
        assert compute_data_digest(read_data(place)) == expected
        assert len(read_test_images(place)) == 50


def test_files_win_over_a_zip_beside_them_and_two_places_alike_are_refused(save, expected):
    folder = save()
    with zipfile.ZipFile(folder / "digit-recognizer.zip", "w") as file:
        file.writestr("train.csv", "damaged")
        file.writestr("test.csv", "damaged")
    assert compute_data_digest(read_data(folder)) == expected
    (folder / "train.csv").unlink()
    with pytest.raises(InputError, match="line 1: column"):
        read_data(folder)
    save(name="a/{}.csv")
    save(name="b/{}.csv")
    (folder / "digit-recognizer.zip").unlink()
    (folder / "test.csv").unlink()
    with pytest.raises(InputError, match=r"twice, in .*a and .*b: name one of them"):
        read_data(folder)


CHANGES = {
    "index column": (lambda table: table, {"index": True}, "column '' is dropped"),
    "unnamed column": (
        lambda t: t.reset_index(names="Unnamed: 0"),
        {},
        "column 'Unnamed: 0' is dropped",
    ),
    "id column": (lambda t: t.assign(id=range(len(t))), {}, "column 'id' is dropped"),
    "ImageId column": (lambda t: t.assign(ImageId=1), {}, "column 'ImageId' is dropped"),
    "labels in test.csv": (lambda t: t.assign(label=t.get("label", 3)), {}, "'label' is dropped"),
    "whole floats": (lambda t: t.astype(float), {}, ""),
    "semicolons": (lambda t: t, {"sep": ";", "lineterminator": "\r\n"}, ""),
    "tabs, UTF-16": (lambda t: t, {"sep": "\t", "encoding": "utf-16"}, ""),
    "byte-order mark": (lambda t: t, {"encoding": "utf-8-sig"}, ""),
    "quotes": (lambda t: t, {"quoting": 1}, ""),
    "another order": (lambda t: t[sorted(t.columns)], {}, ""),
    "from pixel1": (
        lambda t: t.rename(columns={f"pixel{n}": f"pixel{n + 1}" for n in range(784)}),
        {},
        "pixels are read by their numbers, from 'pixel1' on",
    ),
    "rows and columns": (
        lambda t: t.rename(
            columns={f"pixel{n}": f"{n // 28 + 1}x{n % 28 + 1}" for n in range(784)}
        )[::1],
        {},
        "pixels are read by their numbers, from '1x1' on",
    ),
    "numbers": (
        lambda t: t.rename(columns={f"pixel{n}": str(n) for n in range(784)}),
        {},
        "pixels are read by their numbers, from '0' on",
    ),
    "capitals": (lambda t: t.rename(columns=str.upper), {}, ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_other_programs_write_is_read_with_a_line_about_each_liberty(
    save, expected, caplog, change
):
    function, options, message = CHANGES[change]
    with caplog.at_level(logging.INFO, "digitkaggle"):
        assert compute_data_digest(read_data(save(function, **options))) == expected
    assert message in caplog.text


def test_shuffled_pixels_of_another_family_are_read_by_their_numbers(save, expected):
    order = np.random.default_rng(0).permutation(784)

    def shuffle(table: pd.DataFrame) -> pd.DataFrame:
        labels = [name for name in table.columns if name == "label"]
        shuffled = table[[*labels, *(f"pixel{number}" for number in order)]]
        return shuffled.rename(columns={f"pixel{n}": f"pixel{n + 1}" for n in range(784)})

    assert compute_data_digest(read_data(save(shuffle))) == expected


def set_cell(column: str, value: object):
    """A change of one cell, in row 4."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        changed = table.astype(object)
        if column in changed:
            changed.loc[3, column] = value
        return changed

    return change


REFUSALS = {
    "fractions": (lambda t: t.assign(**(t[PIXEL_COLUMNS] / 255)), {}, "multiply them by 255"),
    "ones and zeros": (lambda t: t.assign(**(t[PIXEL_COLUMNS] // 255)), {}, "multiply them by 255"),
    "a fraction": (set_cell("pixel5", "3.7"), {}, r"row 4, column pixel5: .*3\.7"),
    "too bright": (set_cell("pixel5", "256.0"), {"index": True}, "row 4, column pixel5: 256 "),
    "negative": (set_cell("pixel5", "-1"), {"sep": ";"}, "row 4, column pixel5: -1 is not an"),
    "not a number": (set_cell("pixel5", "nan"), {"sep": ";"}, "row 4, column pixel5: nan"),
    "empty": (set_cell("pixel5", ""), {"sep": "\t"}, "row 4, column pixel5"),
    "a word": (set_cell("pixel5", "x"), {"index": True}, "row 4, column pixel5: 'x' is not"),
    "label 10": (set_cell("label", "10"), {"sep": ";"}, "row 4, column label: 10 .* from 0 to 9"),
    "missing column": (lambda t: t.drop(columns="pixel7"), {}, "column 'pixel7' is missing"),
    "unknown column": (lambda t: t.assign(weight=1), {}, "column 'weight' is unknown"),
    "doubled column": (
        lambda t: t.rename(columns={"pixel8": "pixel7"}),
        {},
        "column 'pixel7' appears twice|column 'pixel8' is missing",
    ),
    "no header": (lambda t: t, {"header": False}, "line 1 has 785 numbers, not names"),
    "no rows": (lambda t: t[:0], {"sep": ";"}, "a header but no rows"),
    "one class": (lambda t: t.assign(label=7), {"sep": ";"}, "every label is 7"),
}


@pytest.mark.parametrize("change", REFUSALS)
def test_what_is_in_doubt_is_refused_with_the_file_and_the_place(save, change):
    function, options, message = REFUSALS[change]
    folder = save(function, **options)
    with pytest.raises(InputError, match=message) as refusal:
        read_data(folder)
    assert str(refusal.value).startswith(str(folder / "train.csv"))
    assert "\n" not in str(refusal.value)
    assert "download" not in str(refusal.value), "the file is somebody's own"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page, not the data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-LFS pointer"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
        (b"PAR1....", "a parquet file"),
        (b"\x1f\x8bnot really", "cannot be read"),
        (b"\xd0\xcf\x11\xe0....", "a spreadsheet"),
        (b"", "line 1: column 'label' is missing"),
        (b"\xff\xfe\x00", "train.csv"),
    ],
)
def test_what_only_calls_itself_csv_is_named_as_what_it_is(save, content, message):
    folder = save()
    (folder / "train.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_data(folder)


def test_an_excel_workbook_named_csv_is_named_as_one(save):
    folder, buffer = save(), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/workbook.xml", "<workbook/>")
    (folder / "train.csv").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"train\.csv: a zip or spreadsheet, not a CSV"):
        read_data(folder)


@given(content=st.binary(max_size=200), gzipped=st.booleans())
@settings(max_examples=60)
def test_any_bytes_are_digits_or_refused_in_one_line(data_folder, content, gzipped):
    (data_folder / "train.csv").write_bytes(gzip.compress(content) if gzipped else content)
    with pytest.raises(InputError) as refusal:
        read_data(data_folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["train.csv", "archive.zip", "digits.7z", "a/train (1).csv"])
def test_data_that_cannot_be_read_are_named_and_never_replaced_by_the_sample(
    tmp_path, monkeypatch, capsys, name
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    path.write_text("not what it should be")
    assert main(["--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: data")
    assert "SAMPLE" not in error


def test_only_a_data_folder_without_tables_leaves_it_to_the_sample(
    tmp_path, monkeypatch, data_folder, expected
):
    monkeypatch.chdir(tmp_path)
    assert find_default_data() is None
    (tmp_path / "data/below").mkdir(parents=True)
    (tmp_path / "data/README.md").touch()
    assert find_default_data() is None
    shutil.move(data_folder, tmp_path / "data/below/digits")
    assert compute_data_digest(read_data(find_default_data())) == expected


def test_test_images_are_read_from_a_csv_of_any_name_with_labels_or_without(save, few_digits):
    folder = save(lambda table: table.assign(label=1), name="{}.csv")
    shutil.move(folder / "test.csv", folder / "mine.csv")
    assert torch.equal(read_test_images(folder / "mine.csv"), few_digits.test_images)


@pytest.fixture
def make_archive(tmp_path, train_csv, test_csv):
    def make(**members: str) -> Path:
        path = tmp_path / "data.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, text in (members or {"train.csv": train_csv, "test.csv": test_csv}).items():
                file.writestr(name.replace("__", "/"), text)
        return path

    return make


def test_a_zip_is_read_like_a_folder_wherever_its_files_are_and_a_test_csv_by_itself(
    make_archive, few_digits, train_csv, test_csv, data_folder
):
    path, digest = make_archive(), compute_data_digest(few_digits)
    assert compute_data_digest(read_data(path)) == digest
    assert read_data(path).origin == str(path)
    nested = make_archive(**{"inner__train.csv": train_csv, "inner__test.csv": test_csv})
    assert compute_data_digest(read_data(nested)) == digest
    for place in (nested, data_folder, data_folder / "test.csv"):
        assert torch.equal(read_test_images(place), few_digits.test_images)


def test_a_zip_that_is_damaged_or_does_not_hold_the_files_once_is_refused(make_archive, train_csv):
    missing = r"no folder with train\.csv and test\.csv: only "
    with pytest.raises(InputError, match=missing):
        read_data(make_archive(**{"train.csv": train_csv}))
    twice = [f"{folder}{name}" for folder in ("b__", "a__") for name in ("train.csv", "test.csv")]
    with pytest.raises(InputError, match=r"twice, in .*a and .*b: name one"):
        read_data(make_archive(**dict.fromkeys(twice, "")))
    with pytest.raises(InputError, match=missing):
        read_data(make_archive(**{"a__train.csv": "", "test.csv": ""}))
    path = make_archive()
    content = path.read_bytes()
    for damaged in (content[:-500], content[:2000] + bytes(100) + content[2100:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"data.zip"):
            read_data(path)


def test_an_encrypted_zip_is_refused_with_the_reason(make_archive):
    path = make_archive()
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for place in range(len(content)):
            if content.startswith(signature, place):
                content[place + flags] |= 1  # the bit that marks an entry as encrypted
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.zip is encrypted: unpack it"):
        read_data(path)


@pytest.mark.parametrize("content", [b"<html>", b"PK\x03\x04", b"", b"\x00" * 99])
def test_data_that_are_neither_a_zip_nor_a_folder_with_both_files_are_refused(tmp_path, content):
    (tmp_path / "data.zip").write_bytes(content)
    for location in (tmp_path / "data.zip", tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=str(location)):
            read_data(location)


def test_without_a_flag_the_data_are_whatever_is_in_data_in_a_zip_or_unpacked(
    make_archive, data_folder, tmp_path, monkeypatch, few_digits
):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    make_archive().rename("data/digit-recognizer.zip")
    digest = compute_data_digest(few_digits)
    assert compute_data_digest(read_data(find_default_data())) == digest
    Path("data/digit-recognizer.zip").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"digit-recognizer\.zip is a damaged zip"):
        read_data(find_default_data())
    Path("data/digit-recognizer.zip").unlink()
    data_folder.rename("data/unpacked")
    assert compute_data_digest(read_data(find_default_data())) == digest
