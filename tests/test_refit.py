"""The training on all images after the validated one, `--refit`."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from digitkaggle import refit, resumable
from digitkaggle.budget import TimeBudget
from digitkaggle.compare import compare_runs
from digitkaggle.device import choose_compute
from digitkaggle.models import load_model
from digitkaggle.pipeline import predict_run, run
from digitkaggle.report import make_report
from digitkaggle.summary import accuracy_in_words
from digitkaggle.training import start_training, train
from digitkaggle.training_set import training_images
from tests.test_pipeline import cut_off_after, history_of, no_report  # noqa: F401
from tests.test_resume import same_results


@pytest.fixture
def refit_settings(quick_settings):
    return dataclasses.replace(quick_settings, refit=True)


@pytest.fixture
def refitted(tmp_path, few_source, refit_settings):
    return run(refit_settings, few_source, out=tmp_path / "refit")


def weights_on_all(digits, settings, epochs: int, **changes) -> dict[str, torch.Tensor]:
    """What a plain training on all images ends with."""
    settings = dataclasses.replace(settings, epochs=epochs, minimum_steps=0, **changes)
    compute = choose_compute()
    training = start_training(settings, compute)
    data = training_images(digits, torch.arange(len(digits.train_labels)), settings)
    assert all(row["val_loss"] != row["val_loss"] for row in train(
        training, data, None, settings, compute))  # fmt: skip
    return training.network.state_dict()


def test_the_model_is_trained_on_all_images_and_the_accuracy_is_the_validated_one(
    tmp_path, few_source, few_digits, quick_settings, refit_settings, refitted, data_folder
):
    plain = run(quick_settings, few_source, out=tmp_path / "plain")
    for name in ("validation.npz",):
        assert (refitted / name).read_bytes() == (plain / name).read_bytes()
    ours, validated = (
        json.loads((folder / "metrics.json").read_text()) for folder in (refitted, plain)
    )
    for name in ("validation", "best_epoch", "epochs"):
        assert ours[name] == validated[name]
    assert "refit" not in validated
    assert "trained on 270 of the 300 images" in ours["refit"]

    network = load_model(refitted / "model.pt", choose_compute())[0].state_dict()
    expected = weights_on_all(few_digits, refit_settings, ours["best_epoch"])
    assert all(torch.equal(network[name], expected[name]) for name in expected)
    assert (refitted / "model.pt").read_bytes() != (plain / "model.pt").read_bytes()
    assert not np.array_equal(*(np.load(f / "probabilities.npy") for f in (refitted, plain)))
    again = predict_run(refitted, data_folder, tmp_path / "again.csv")
    assert again.read_bytes() == (refitted / "submission.csv").read_bytes()


def test_its_epochs_go_on_numbering_with_empty_columns_of_validation(refitted):
    best = json.loads((refitted / "metrics.json").read_text())["best_epoch"]
    rows = history_of(refitted)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 2 + best + 1))
    for row in rows:
        validated = int(row["epoch"]) <= 2
        assert bool(row["val_loss"]) == bool(row["val_accuracy"]) == validated
        assert float(row["train_loss"]) > 0


def test_report_and_comparison_cope_with_the_empty_columns(
    tmp_path, few_source, quick_settings, refitted
):
    make_report(refitted)
    page = (refitted / "report.html").read_text()
    assert "Best validated" in page
    assert "trained on 270 of the 300 images" in page
    plain = run(quick_settings, few_source, out=tmp_path / "plain")
    said = compare_runs([plain, refitted], tmp_path / "compare.png")
    assert ["refit", "False", "True"] in [line.split() for line in said.splitlines()]
    sentences = accuracy_in_words(json.loads((refitted / "metrics.json").read_text()))
    assert any(sentence.startswith("The accuracy is that of") for sentence in sentences)


@pytest.mark.parametrize("saves", [2, 3, 6])
def test_a_run_cut_off_in_either_training_goes_on_to_the_same_bytes(
    tmp_path, few_source, refit_settings, monkeypatch, saves
):
    settings = dataclasses.replace(refit_settings, members=2, validation_fraction=0.5)
    whole = run(settings, few_source, out=tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(resumable, "SECONDS_BETWEEN_SAVES", 0.0)
        cut_off_after(saves, patched)
        with pytest.raises(KeyboardInterrupt):
            run(settings, few_source, out=tmp_path / "cut")
    resumed = run(settings, few_source, out=tmp_path / "cut")
    same_results(resumed, whole)
    metrics = json.loads((whole / "metrics.json").read_text())
    assert "2 of the 2 in the model were trained anew on all 300" in metrics["refit"]


def test_without_time_for_it_the_validated_network_is_kept_and_that_is_said(
    tmp_path, few_source, quick_settings, refit_settings, monkeypatch, caplog
):
    plain = run(quick_settings, few_source, out=tmp_path / "plain")
    monkeypatch.setattr(refit, "seconds_to_refit", lambda validated, more: 1e9)
    folder = run(refit_settings, few_source, out=tmp_path / "run", time_budget=TimeBudget(36000))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["time_budget"]["cut"] == f"member 1: {refit.NO_REFIT}"
    assert "the model is what was validated" in metrics["refit"]
    assert "Out of time: no time was left to train on all images" in caplog.text
    probabilities = [(f / "probabilities.npy").read_bytes() for f in (folder, plain)]
    assert probabilities[0] == probabilities[1]
    assert history_of(folder) == history_of(plain)
