from __future__ import annotations

import json

import numpy as np
import pytest

from digitkaggle.core.basics import InputError
from digitkaggle.runs.files import read_data
from digitkaggle.runs.results import (
    HeldOutAnswers,
    accuracy_in_words,
    digits_of_run,
    merged_by_row,
    read_results,
)
from tests.conftest import changed_run


def test_a_run_reads_back_as_it_was_written(trained):
    results = read_results(trained)
    metrics = json.loads((trained / "metrics.json").read_text())
    assert results.best_epochs == [metrics["best_epoch"]]
    assert results.held_out.right.mean() == pytest.approx(metrics["validation"]["accuracy"])
    assert results.probabilities.sum(axis=1) == pytest.approx(np.ones(1000), abs=1e-5)
    assert len(results.history) == metrics["epochs"]


@pytest.mark.parametrize("name", ["history.csv", "probabilities.npy", "validation.npz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_run_is_refused(trained, tmp_path, name, damage):
    path = changed_run(trained, tmp_path / "run") / name
    damaged = {"cut": path.read_bytes()[:95], "empty": b"", "other": b"a,b\n1,2\n"}
    path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match="cannot be read"):
        read_results(path.parent)
    (path.parent / "history.csv").unlink()
    with pytest.raises(InputError, match="No such file"):
        read_results(path.parent)


def test_images_that_members_share_are_merged_to_one_answer_each():
    probabilities = np.full((3, 10), 0.2 / 9, dtype=np.float32)
    probabilities[[0, 1, 2], [3, 4, 5]] = 0.8
    answers = HeldOutAnswers(np.array([7, 2, 7]), np.array([3, 4, 3]), probabilities)
    merged = merged_by_row(answers)
    assert merged.row.tolist() == [2, 7]
    assert merged.label.tolist() == [4, 3]
    assert merged.probabilities[1, [3, 5]] == pytest.approx([0.411, 0.411], abs=1e-3)


def test_an_accuracy_is_said_in_the_images_that_kaggle_will_find_wrong():
    found = {"accuracy": 0.995, "standard_error": 0.001, "images": 4200}
    said = " ".join(accuracy_in_words({"settings": {}, "validation": found}))
    assert "about 140 wrong, give or take 28" in said
    found |= {"accuracy": 1.0, "standard_error": 0.0}  # with 95 % the true share is below 3/4200
    said = " ".join(accuracy_in_words({"settings": {}, "validation": found}))
    assert "up to 20 wrong" in said


def test_without_held_out_images_nothing_is_said_of_kaggles():
    test = {"accuracy": 0.99, "images": 1000}
    said = " ".join(accuracy_in_words({"settings": {}, "validation": None, "test": test}))
    assert "28,000" not in said
    assert "99.00% of the 1,000 test digits" in said


def test_a_runs_data_are_found_where_they_were_or_in_a_usual_place(
    trained, sample, data_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    metrics = json.loads((trained / "metrics.json").read_text())
    assert digits_of_run(metrics, lambda: sample) == sample
    moved = {"data": {"origin": str(data_folder), "digest": read_data(data_folder).digest()}}
    assert digits_of_run(moved, lambda: sample).origin == str(data_folder)
    assert digits_of_run({"data": {"origin": str(data_folder)}}, lambda: sample) is None
    data_folder.rename(tmp_path / "elsewhere")
    assert digits_of_run(moved, lambda: sample) is None
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    assert digits_of_run(moved, lambda: sample).origin == "data"
