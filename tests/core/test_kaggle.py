from __future__ import annotations

import shutil

import pytest

from digitkaggle.core.kaggle import find_data, get_kaggle_folder, on_kaggle


@pytest.fixture
def kaggle_machine(tmp_path, monkeypatch):
    """The environment of a Kaggle machine, whose folders are below `tmp_path`."""
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("DIGITKAGGLE_KAGGLE_ROOT", str(tmp_path))


@pytest.mark.usefixtures("kaggle_machine")
def test_on_kaggle_the_folder_with_both_files_is_found_and_the_competitions_comes_first(
    tmp_path, data_folder
):
    assert on_kaggle()
    (tmp_path / "input/a/other").mkdir(parents=True)
    (tmp_path / "input/a/other/train.csv").touch()
    assert find_data() is None
    shutil.copytree(data_folder, tmp_path / "input/a/mnist")
    assert find_data() == tmp_path / "input/a/mnist"
    shutil.copytree(data_folder, tmp_path / "input/competitions/digit-recognizer")
    assert find_data() == tmp_path / "input/competitions/digit-recognizer"


def test_elsewhere_the_folder_with_both_files_is_found_below_data(
    tmp_path, data_folder, monkeypatch
):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert not on_kaggle()
    assert find_data() is None
    shutil.copytree(data_folder, tmp_path / "data/any/depth")
    assert find_data().resolve() == tmp_path / "data/any/depth"


def test_kaggles_folders_are_below_its_root(monkeypatch):
    monkeypatch.delenv("DIGITKAGGLE_KAGGLE_ROOT", raising=False)
    assert str(get_kaggle_folder("working")) == "/kaggle/working"
