from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from digitkaggle.core.basics import InputError
from digitkaggle.core.prediction import average_members
from digitkaggle.core.settings import make_settings
from digitkaggle.runs import folder as folders
from digitkaggle.runs.folder import (
    delete_checkpoint,
    describe_differences,
    find_newest_run,
    is_finished,
    lock_run_folder,
    make_identity,
    read_identity,
    start_run,
)
from digitkaggle.runs.local import run_in_folder
from tests.conftest import read_folder

ONE = make_identity({"epochs": 2}, "data", "source")
OTHER = make_identity({"epochs": 3}, "data", "source")


@pytest.fixture
def finished_run(tmp_path, few_digits, quick_settings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run_in_folder(quick_settings, few_digits, threads=1)


def test_a_run_goes_into_its_presets_folder_and_another_beside_it(finished_run, few_digits):
    assert str(finished_run) == "runs/fast"
    changed = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1, "batch_size": 64})
    assert str(run_in_folder(changed, few_digits, threads=1)) == "runs/fast-2"
    assert find_newest_run(folders.RUNS).name == "fast-2"


def test_a_finished_run_is_not_trained_again_unless_fresh(finished_run, few_digits, quick_settings):
    before = read_folder(finished_run)
    assert run_in_folder(quick_settings, few_digits) == finished_run
    assert read_folder(finished_run) == before
    run_in_folder(quick_settings, few_digits, fresh=True, threads=1)
    assert read_folder(finished_run).keys() == before.keys()


def test_an_explicit_folder_with_another_run_is_refused_with_what_differs(finished_run, few_digits):
    changed = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1, "batch_size": 64})
    before = read_folder(finished_run)
    with pytest.raises(InputError, match="epochs 2 there, 1 here"):
        run_in_folder(changed, few_digits, out=finished_run)
    assert read_folder(finished_run) == before


@pytest.mark.parametrize("name", ["submission.csv", "model.pt", "checkpoint/run.json"])
def test_files_that_no_run_wrote_are_not_overwritten(tmp_path, few_digits, quick_settings, name):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(InputError, match="no run wrote"):
        run_in_folder(quick_settings, few_digits, out=tmp_path / "mine")
    assert path.read_text() == "precious"


def test_a_run_that_failed_in_its_first_epoch_leaves_its_folder_to_the_corrected_one(
    tmp_path, few_digits, quick_settings
):
    settings = dataclasses.replace(quick_settings, learning_rate=1e6, weight_decay=1e6)
    with pytest.raises(InputError, match="the loss is nan in epoch 1"):
        run_in_folder(settings, few_digits, out=tmp_path, threads=1)
    assert not (tmp_path / "model.pt").exists()
    run_in_folder(quick_settings, few_digits, out=tmp_path, threads=1)
    assert is_finished(tmp_path)


def test_a_folder_where_a_run_is_working_is_refused_or_the_next_one_is_taken(tmp_path):
    with lock_run_folder(ONE, tmp_path / "run", None, fresh=False) as first:
        with lock_run_folder(OTHER, tmp_path / "run", None, fresh=False) as second:
            assert (first.name, second.name) == ("run", "run-2")
        with (
            pytest.raises(InputError, match="another run is working in"),
            lock_run_folder(OTHER, tmp_path, first, fresh=True),
        ):
            pass


@pytest.mark.parametrize("place", ["file", "/proc/none"])
def test_a_folder_that_cannot_be_created_is_refused(tmp_path, few_digits, quick_settings, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=place):
        run_in_folder(quick_settings, few_digits, out=tmp_path / place)


def test_without_a_finished_run_there_is_no_newest_one(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        find_newest_run(tmp_path)


def test_runs_differ_by_settings_data_and_code():
    assert describe_differences(ONE, ONE) == ""
    assert describe_differences(ONE, OTHER) == "epochs 2 there, 3 here"
    text = describe_differences(ONE, make_identity({"epochs": 2, "seed": 7}, "others", "newer"))
    assert text == (
        "seed None there, 7 here; made from other data; made by another version of the code"
    )


def test_a_started_run_keeps_its_checkpoint_until_it_is_fresh_or_another(tmp_path):
    part = tmp_path / folders.CHECKPOINT / "training-0001.pt"
    start_run(tmp_path, ONE, fresh=False)
    assert read_identity(tmp_path) == ONE
    for identity, fresh, remains in ((ONE, False, True), (ONE, True, False), (OTHER, False, False)):
        part.write_bytes(b"an epoch")
        start_run(tmp_path, identity, fresh=fresh)
        assert part.exists() == remains
        assert read_identity(tmp_path) == identity
    delete_checkpoint(tmp_path)
    assert read_identity(tmp_path) is None
    assert not is_finished(tmp_path)


def test_members_leave_their_predictions_and_a_run_on_all_images_leaves_no_validation(
    tmp_path, few_digits
):
    changes = {"widths": (4, 4, 4), "epochs": 1, "members": 2, "validation_fraction": 0}
    run_in_folder(make_settings("fast", changes), few_digits, out=tmp_path, threads=1)
    with np.load(tmp_path / "members.npz") as members:
        assert members["probabilities"].shape == (2, 50, 10)
        assert (members["digits"] == members["probabilities"].argmax(axis=2)).all()
        mean = average_members(members["probabilities"])
    assert (mean == np.load(tmp_path / "probabilities.npy")).all()
    assert json.loads((tmp_path / "metrics.json").read_text())["validation"] is None
    assert not (tmp_path / "validation.npz").exists()
    assert not (tmp_path / "checkpoint").exists()
    one = make_settings("fast", changes | {"members": 1})
    run_in_folder(one, few_digits, out=tmp_path, fresh=True, threads=1)
    assert not (tmp_path / "members.npz").exists()
