from __future__ import annotations

import json

import numpy as np
import pytest

from digitkaggle.core.basics import InputError
from digitkaggle.core.settings import make_settings
from digitkaggle.runs import folder as folders
from digitkaggle.runs.folder import claimed_folder, newest_run, run_identity
from digitkaggle.runs.local import run_in_folder
from tests.conftest import contents

ONE = run_identity({"epochs": 2}, "data", "source")
OTHER = run_identity({"epochs": 3}, "data", "source")


@pytest.fixture
def finished(tmp_path, few_digits, quick_settings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run_in_folder(quick_settings, few_digits, threads=1)


def test_a_run_goes_into_its_presets_folder_and_another_beside_it(finished, few_digits):
    assert str(finished) == "runs/fast"
    changed = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1, "batch_size": 64})
    assert str(run_in_folder(changed, few_digits, threads=1)) == "runs/fast-2"
    assert newest_run(folders.RUNS).name == "fast-2"


def test_a_finished_run_is_not_done_again_unless_fresh(finished, few_digits, quick_settings):
    before = contents(finished)
    assert run_in_folder(quick_settings, few_digits) == finished
    assert contents(finished) == before
    run_in_folder(quick_settings, few_digits, fresh=True, threads=1)
    assert contents(finished).keys() == before.keys()


def test_a_named_folder_of_another_run_is_refused_with_what_differs(finished, few_digits):
    changed = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1, "batch_size": 64})
    before = contents(finished)
    with pytest.raises(InputError, match="epochs 2 there, 1 here"):
        run_in_folder(changed, few_digits, out=finished)
    assert contents(finished) == before


@pytest.mark.parametrize("name", ["submission.csv", "model.pt", "checkpoint/run.json"])
def test_files_that_no_run_wrote_are_not_overwritten(tmp_path, few_digits, quick_settings, name):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(InputError, match="no run wrote"):
        run_in_folder(quick_settings, few_digits, out=tmp_path / "mine")
    assert path.read_text() == "precious"


def test_a_folder_that_is_at_work_is_refused_or_passed_over(tmp_path):
    with claimed_folder(ONE, tmp_path / "run", None, fresh=False) as first:
        with claimed_folder(OTHER, tmp_path / "run", None, fresh=False) as second:
            assert (first.name, second.name) == ("run", "run-2")
        with (
            pytest.raises(InputError, match="at work"),
            claimed_folder(OTHER, tmp_path, first, fresh=True),
        ):
            pass


@pytest.mark.parametrize("place", ["file", "/proc/none"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, few_digits, quick_settings, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=place):
        run_in_folder(quick_settings, few_digits, out=tmp_path / place)


def test_no_finished_run_is_said(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        newest_run(tmp_path)


def test_members_leave_their_answers_and_a_run_on_all_images_no_validation(tmp_path, few_digits):
    changes = {"widths": (4, 4, 4), "epochs": 1, "members": 2, "validation_fraction": 0}
    run_in_folder(make_settings("fast", changes), few_digits, out=tmp_path, threads=1)
    assert np.load(tmp_path / "members.npz")["digits"].shape == (2, 50)
    assert json.loads((tmp_path / "metrics.json").read_text())["validation"] is None
    assert not (tmp_path / "validation.npz").exists()
    assert not (tmp_path / "checkpoint").exists()
    one = make_settings("fast", changes | {"members": 1})
    run_in_folder(one, few_digits, out=tmp_path, fresh=True, threads=1)
    assert not (tmp_path / "members.npz").exists()
