from __future__ import annotations

import zipfile

import pytest
import torch

from digitkaggle.core.basics import InputError
from digitkaggle.core.device import choose_compute
from digitkaggle.runs.files import read_data, read_json, read_test_images
from digitkaggle.runs.results import load_model


@pytest.fixture
def archive(tmp_path, train_csv, test_csv):
    def made(**members: str):
        path = tmp_path / "data.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, text in (members or {"train.csv": train_csv, "test.csv": test_csv}).items():
                file.writestr(name.replace("__", "/"), text)
        return path

    return made


def test_a_zip_is_read_like_a_folder_wherever_the_files_are_in_it_and_a_test_csv_by_itself(
    archive, few_digits, train_csv, test_csv, data_folder
):
    path = archive()
    assert read_data(path).digest() == few_digits.digest()
    assert read_data(path).origin == str(path)
    nested = archive(**{"inner__train.csv": train_csv, "inner__test.csv": test_csv})
    assert read_data(nested).digest() == few_digits.digest()
    for place in (nested, data_folder, data_folder / "test.csv"):
        assert torch.equal(read_test_images(place), few_digits.test_images)


def test_odd_zips_are_refused(archive, train_csv):
    with pytest.raises(InputError, match=r"holds train.csv and test.csv in 0 folders"):
        read_data(archive(**{"train.csv": train_csv}))
    twice = [f"{folder}{name}" for folder in ("", "a__") for name in ("train.csv", "test.csv")]
    with pytest.raises(InputError, match="in 2 folders"):
        read_data(archive(**dict.fromkeys(twice, "")))
    with pytest.raises(InputError, match="in 0 folders"):
        read_data(archive(**{"a__train.csv": "", "test.csv": ""}))
    path = archive()
    content = path.read_bytes()
    for damaged in (content[:-500], content[:2000] + bytes(100) + content[2100:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"data.zip"):
            read_data(path)


@pytest.mark.parametrize("content", [b"<html>", b"PK\x03\x04", b"", b"\x00" * 99])
def test_what_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "data.zip").write_bytes(content)
    for location in (tmp_path / "data.zip", tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=str(location)):
            read_data(location)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.json"):
        read_json(tmp_path / "file.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content | {"settings": content["settings"] | {"widths": [9, 9, 9]}},
        lambda content: content | {"settings": content["settings"] | {"epochs": "many"}},
        lambda content: {"members": content["members"]},
        lambda content: [],
    ],
)
def test_what_is_no_model_is_refused(tmp_path, trained, change):
    content = torch.load(trained / "model.pt", weights_only=True)
    torch.save(change(content), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt"):
        load_model(tmp_path / "model.pt", choose_compute(device="cpu"))
