from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from digitkaggle.core.basics import InputError
from digitkaggle.core.device import choose_compute
from digitkaggle.core.results import HeldOutPredictions, compute_data_digest
from digitkaggle.runs import finished
from digitkaggle.runs.data import read_data
from digitkaggle.runs.finished import (
    average_by_row,
    describe_accuracy,
    find_digits_of_run,
    load_model,
    read_run,
)
from tests.conftest import copy_run


def raise_type_error(*args: object, **options: object) -> None:
    raise TypeError("a mistake of ours")


def test_a_run_reads_back_as_it_was_written(trained):
    run = read_run(trained)
    metrics = json.loads((trained / "metrics.json").read_text())
    assert run.best_epochs == [metrics["best_epoch"]]
    assert run.held_out.correct.mean() == pytest.approx(metrics["validation"]["accuracy"])
    assert run.held_out.member.tolist() == [1] * metrics["validation"]["images"]
    assert run.probabilities.sum(axis=1) == pytest.approx(np.ones(1000), abs=1e-5)
    assert len(run.history) == metrics["epochs"]


@pytest.mark.parametrize("name", ["history.csv", "probabilities.npy", "validation.npz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_run_is_refused(trained, tmp_path, name, damage):
    path = copy_run(trained, tmp_path / "run") / name
    damaged = {"cut": path.read_bytes()[:95], "empty": b"", "other": b"a,b\n1,2\n"}
    path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match="cannot be read"):
        read_run(path.parent)
    (path.parent / "history.csv").unlink()
    with pytest.raises(InputError, match="No such file"):
        read_run(path.parent)


def test_a_run_whose_files_lack_something_is_refused_with_the_file(trained, tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json has no best_epoch"):
        read_run(copy_run(trained, tmp_path / "run", best_epoch=None))
    np.savez(tmp_path / "run/validation.npz", row=np.arange(3))
    with pytest.raises(InputError, match=r"validation\.npz lacks an array"):
        read_run(tmp_path / "run")


def test_a_mistake_of_ours_is_not_reported_as_a_damaged_run(trained, monkeypatch):
    monkeypatch.setattr(finished, "FinishedRun", raise_type_error)
    with pytest.raises(TypeError, match="a mistake of ours"):
        read_run(trained)


def test_an_image_that_several_members_hold_out_gets_one_prediction_the_mean_of_theirs():
    probabilities = np.full((3, 10), 0.2 / 9, dtype=np.float32)
    probabilities[[0, 1, 2], [3, 4, 5]] = 0.8
    held_out = HeldOutPredictions(np.array([7, 2, 7]), np.array([3, 4, 3]), probabilities)
    averaged = average_by_row(held_out)
    assert averaged.row.tolist() == [2, 7]
    assert averaged.label.tolist() == [4, 3]
    assert averaged.probabilities[1, [3, 5]] == pytest.approx([0.411, 0.411], abs=1e-3)


def test_an_accuracy_is_described_by_the_errors_to_expect_on_kaggle():
    found = {"accuracy": 0.995, "standard_error": 0.001, "images": 4200}
    text = " ".join(describe_accuracy({"settings": {}, "validation": found}))
    assert "21 of 4,200 held-out images are misclassified" in text
    assert "about 140 errors, give or take 28" in text
    found |= {"accuracy": 1.0, "standard_error": 0.0}  # at 95 % the true rate is below 3/4200
    text = " ".join(describe_accuracy({"settings": {}, "validation": found}))
    assert "up to 20 errors" in text


def test_without_held_out_images_nothing_is_predicted_about_kaggles():
    test = {"accuracy": 0.99, "images": 1000}
    text = " ".join(describe_accuracy({"settings": {}, "validation": None, "test": test}))
    assert "28,000" not in text
    assert "99.00% of its 1,000 test digits" in text


def test_a_runs_data_are_found_where_they_were_or_in_a_default_place(
    trained, sample, data_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    metrics = json.loads((trained / "metrics.json").read_text())
    assert find_digits_of_run(metrics, lambda: sample) == sample
    digest = compute_data_digest(read_data(data_folder))
    moved = {"data": {"origin": str(data_folder), "digest": digest}}
    assert find_digits_of_run(moved, lambda: sample).origin == str(data_folder)
    assert find_digits_of_run({"data": {"origin": str(data_folder)}}, lambda: sample) is None
    data_folder.rename(tmp_path / "elsewhere")
    assert find_digits_of_run(moved, lambda: sample) is None
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    assert find_digits_of_run(moved, lambda: sample).origin == "data"


def test_a_loaded_model_predicts_the_runs_probabilities_again(trained, sample):
    compute = choose_compute(device="cpu")
    expected = np.load(trained / "probabilities.npy")
    for place in (trained, trained / "model.pt"):
        model = load_model(place, compute=compute)
        assert model.settings.preset == "fast"
        assert model.predict(sample.test_images).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content | {"settings": content["settings"] | {"widths": [9, 9, 9]}},
        lambda content: content | {"settings": content["settings"] | {"epochs": "many"}},
        lambda content: {"members": content["members"]},
        lambda content: [],
        lambda content: content | {"settings": None},
        lambda content: content | {"members": {}},
        lambda content: content | {"members": {1: 5}},
        lambda content: content | {"members": {1: {"0.weight": 3}}},
    ],
)
def test_a_file_that_is_not_a_model_of_ours_is_refused(tmp_path, trained, change):
    content = torch.load(trained / "model.pt", weights_only=True)
    torch.save(change(content), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt is not a model of ours"):
        load_model(tmp_path / "model.pt", compute=choose_compute(device="cpu"))


def test_a_damaged_model_is_refused(tmp_path, trained):
    path = tmp_path / "model.pt"
    path.write_bytes((trained / "model.pt").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"model\.pt cannot be read"):
        load_model(path, compute=choose_compute(device="cpu"))


def test_a_mistake_of_ours_is_not_reported_as_a_file_that_is_not_a_model(trained, monkeypatch):
    monkeypatch.setattr(finished, "build_network", raise_type_error)
    with pytest.raises(TypeError, match="a mistake of ours"):
        load_model(trained, compute=choose_compute(device="cpu"))
