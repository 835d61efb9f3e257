from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import pytest
import torch

from digitkaggle.core.basics import InputError
from digitkaggle.core.results import compute_data_digest
from digitkaggle.core.settings import make_settings
from digitkaggle.runs.files import (
    find_default_data,
    read_data,
    read_json,
    read_test_images,
    restore_settings,
)


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
    with pytest.raises(InputError, match=r"holds train.csv and test.csv in 0 folders"):
        read_data(make_archive(**{"train.csv": train_csv}))
    twice = [f"{folder}{name}" for folder in ("", "a__") for name in ("train.csv", "test.csv")]
    with pytest.raises(InputError, match="in 2 folders"):
        read_data(make_archive(**dict.fromkeys(twice, "")))
    with pytest.raises(InputError, match="in 0 folders"):
        read_data(make_archive(**{"a__train.csv": "", "test.csv": ""}))
    path = make_archive()
    content = path.read_bytes()
    for damaged in (content[:-500], content[:2000] + bytes(100) + content[2100:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"data.zip"):
            read_data(path)


@pytest.mark.parametrize("content", [b"<html>", b"PK\x03\x04", b"", b"\x00" * 99])
def test_data_that_are_neither_a_zip_nor_a_folder_with_both_files_are_refused(tmp_path, content):
    (tmp_path / "data.zip").write_bytes(content)
    for location in (tmp_path / "data.zip", tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=str(location)):
            read_data(location)


def test_without_a_flag_the_data_are_a_folder_in_data_or_else_the_zip_there(
    make_archive, data_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert find_default_data() is None
    Path("data").mkdir()
    archive = make_archive().rename("data/digit-recognizer.zip")
    assert find_default_data() == archive
    data_folder.rename("data/unpacked")
    assert find_default_data() == Path("data/unpacked")


def test_settings_of_another_version_are_restored_without_the_fields_that_this_one_lacks():
    settings = make_settings("fast", {"epochs": 9, "erasing": (0, 7)})
    assert restore_settings(vars(settings) | {"of_another_version": 3}) == settings
    assert restore_settings({"preset": "fast", "epochs": 9}) == dataclasses.replace(
        make_settings("balanced", {}), preset="fast", epochs=9
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_a_file_that_is_not_a_json_object_is_refused(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.json"):
        read_json(tmp_path / "file.json")
