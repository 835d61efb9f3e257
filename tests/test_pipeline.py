from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from digitkaggle import members, pipeline, resumable
from digitkaggle.data import DataSource, Digits
from digitkaggle.device import choose_compute
from digitkaggle.errors import InputError, TrainingError
from digitkaggle.models import load_model, read_model_settings
from digitkaggle.pipeline import predict_run, run
from digitkaggle.prediction import VIEWS, View, network_input, predict_probabilities, viewed
from digitkaggle.report import FIGURE_NAMES
from digitkaggle.settings import make_settings
from digitkaggle.training_set import training_images
from tests.conftest import contents

# The files whose bytes must be equal for equal runs; the others hold seconds.
EQUAL_FILES = ("submission.csv", "model.pt", "probabilities.npy", "validation.npz")
FIGURES = FIGURE_NAMES


@pytest.fixture(autouse=True)
def no_report(request, monkeypatch):
    """Runs without their report, which takes longer than they do, but where a test asks for it."""
    if "with_report" not in request.keywords:
        monkeypatch.setattr(pipeline, "make_report", lambda folder, digits: folder)


@pytest.fixture
def done(tmp_path, few_source, quick_settings):
    """The folder of a finished run."""
    return run(quick_settings, few_source, out=tmp_path / "run", source_digest="code")


def history_of(folder) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


@pytest.mark.with_report
def test_a_run_leaves_the_files_of_the_contract(done, few_digits):
    assert sorted(contents(done)) == sorted(
        [
            *EQUAL_FILES,
            "history.csv",
            "metrics.json",
            "report.html",
            *(f"figures/{name}.png" for name in FIGURES),
        ]
    )
    lines = (done / "submission.csv").read_text().splitlines()
    assert lines[0] == "ImageId,Label"
    assert [line.partition(",")[0] for line in lines[1:]] == [str(i) for i in range(1, 51)]

    probabilities = np.load(done / "probabilities.npy")
    assert probabilities.shape == (50, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert [line.partition(",")[2] for line in lines[1:]] == [
        str(digit) for digit in probabilities.argmax(axis=1)
    ]

    validation = np.load(done / "validation.npz")
    assert len(set(validation["row"].tolist())) == 30
    labels = few_digits.train_labels[torch.from_numpy(validation["row"])]
    assert labels.tolist() == validation["label"].tolist()
    right = (validation["probabilities"].argmax(axis=1) == validation["label"]).mean()

    metrics = json.loads((done / "metrics.json").read_text())
    assert metrics["validation"]["accuracy"] == pytest.approx(right)
    assert metrics["validation"]["images"] == 30
    error = (right * (1 - right) / 30) ** 0.5
    assert metrics["validation"]["standard_error"] == pytest.approx(error)
    assert metrics["settings"]["widths"] == [4, 4, 4]
    assert metrics["source_digest"] == "code"
    assert set(metrics["seconds"]) == {"load", "augment", "train", "predict", "total"}
    assert "test" not in metrics

    rows = history_of(done)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == [
        "member", "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
        "learning_rate", "seconds",
    ]  # fmt: skip
    best = rows[metrics["best_epoch"] - 1]
    assert float(best["val_loss"]) == pytest.approx(metrics["validation"]["loss"])
    for name in FIGURES:
        assert (done / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_run_twice_gives_the_same_bytes(tmp_path, few_source, quick_settings, done):
    settings = dataclasses.replace(quick_settings, dropout=0.0)
    again = run(settings, few_source, out=tmp_path / "again", source_digest="code")
    for name in EQUAL_FILES:
        assert (again / name).read_bytes() == (done / name).read_bytes(), name
    assert history_of(again) == history_of(done)


def test_another_seed_gives_another_model_on_the_same_split(tmp_path, few_source, done):
    settings = read_model_settings(done / "model.pt")
    other = run(dataclasses.replace(settings, seed=1), few_source, out=tmp_path / "other")
    assert (other / "model.pt").read_bytes() != (done / "model.pt").read_bytes()
    rows = [np.load(folder / "validation.npz")["row"].tolist() for folder in (done, other)]
    assert rows[0] == rows[1]


def test_the_saved_model_predicts_the_same_submission_byte_for_byte(done, tmp_path, data_folder):
    out = predict_run(done, data_folder, tmp_path / "again.csv")
    assert out.read_bytes() == (done / "submission.csv").read_bytes()
    predict_run(done / "model.pt", data_folder / "test.csv", tmp_path / "direct.csv")
    assert (tmp_path / "direct.csv").read_bytes() == out.read_bytes()


def test_every_image_is_predicted_in_order_whatever_the_batches(done, few_digits):
    compute = choose_compute()
    networks = load_model(done / "model.pt", compute)
    copies = few_digits.test_images.repeat(41, 1, 1, 1)  # 2,050: two batches and a rest
    probabilities = predict_probabilities(networks, copies, compute)
    expected = predict_probabilities(networks, few_digits.test_images, compute).repeat(41, 1)
    assert probabilities.shape == (2050, 10)
    torch.testing.assert_close(probabilities, expected, atol=1e-2, rtol=0)


def test_a_view_moves_the_image_by_whole_pixels_and_zeros_come_in_at_the_edge():
    image = torch.rand(1, 1, 28, 28)
    assert viewed(image, View()) is image
    moved = viewed(image, View(right=-1, down=1))
    torch.testing.assert_close(moved[..., 1:, :-1], image[..., :-1, 1:], atol=1e-5, rtol=0)
    assert moved[..., 0, :].max() < 1e-5
    assert moved[..., -1].max() < 1e-5


def test_a_view_turns_counter_clockwise_and_zooms_about_the_middle():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 13:15, 20:22] = 1  # a dot to the right of the middle
    above = viewed(image, View(rotation=90))
    torch.testing.assert_close(above, image.rot90(1, (2, 3)), atol=1e-4, rtol=0)
    further = viewed(image, View(zoom=1.5))
    columns = torch.arange(28) - 13.5
    assert (further.sum(dim=2) * columns).sum() / further.sum() == pytest.approx(1.5 * 7)


def test_views_are_averaged(done, few_digits):
    compute = choose_compute("cpu", "float32")
    networks = load_model(done / "model.pt", compute)
    images = network_input(few_digits.test_images)
    by_view = [predict_probabilities(networks, viewed(images, view), compute) for view in VIEWS]
    mean = predict_probabilities(networks, few_digits.test_images, compute, views=len(VIEWS))
    torch.testing.assert_close(mean, sum(by_view) / len(VIEWS))


def test_a_run_with_known_test_labels_reports_its_test_accuracy(tmp_path, sample, quick_settings):
    few = Digits(
        *(part[:200] for part in (sample.train_images, sample.train_labels)),
        *(part[:40] for part in (sample.test_images, sample.test_labels)),
    )
    source = DataSource("a sample", lambda: few, sample=True)
    folder = run(quick_settings, source, out=tmp_path / "sample")
    metrics = json.loads((folder / "metrics.json").read_text())
    labels = np.load(folder / "probabilities.npy").argmax(axis=1)
    assert metrics["test"]["images"] == 40
    expected = (labels == few.test_labels.numpy()).mean()
    assert metrics["test"]["accuracy"] == pytest.approx(expected)
    assert (folder / "not-for-kaggle.csv").exists()
    assert not (folder / "submission.csv").exists()


def test_a_finished_run_is_not_done_again(done, few_source, quick_settings, monkeypatch):
    before = contents(done)
    monkeypatch.setattr(pipeline, "train_members", None)
    assert run(quick_settings, few_source, out=done, source_digest="code") == done
    assert contents(done) == before


def test_fresh_does_a_finished_run_again(done, few_source, quick_settings):
    stamp = (done / "metrics.json").stat().st_mtime_ns
    run(quick_settings, few_source, out=done, source_digest="code", fresh=True)
    assert (done / "metrics.json").stat().st_mtime_ns > stamp


@pytest.mark.parametrize(
    ("changes", "digest", "expected"),
    [
        ({"epochs": 3}, "code", "epochs 2 there, 3 here"),
        ({"seed": 5, "zoom": 0.2}, "code", "seed 0 there, 5 here; zoom 0.1 there, 0.2 here"),
        ({}, "newer code", "made by another version of the code"),
    ],
)
def test_a_named_folder_with_another_run_is_refused_with_what_differs(
    done, few_source, quick_settings, changes, digest, expected
):
    before = contents(done)
    settings = dataclasses.replace(quick_settings, **changes)
    with pytest.raises(InputError, match="--fresh") as caught:
        run(settings, few_source, out=done, source_digest=digest)
    assert expected in str(caught.value)
    assert contents(done) == before


def test_a_named_folder_with_a_run_on_other_data_is_refused(done, few_digits, quick_settings):
    other = Digits(few_digits.train_images.flip(0), few_digits.train_labels.flip(0),
                   few_digits.test_images)  # fmt: skip
    with pytest.raises(InputError, match="made from other data"):
        run(quick_settings, DataSource("other", lambda: other), out=done, source_digest="code")


def test_results_that_no_run_wrote_are_not_written_over(tmp_path, few_source, quick_settings):
    (tmp_path / "submission.csv").write_text("my own work")
    with pytest.raises(InputError, match="that no known run wrote: choose another"):
        run(quick_settings, few_source, out=tmp_path)
    assert contents(tmp_path) == {"submission.csv": b"my own work"}


def test_without_a_folder_runs_go_side_by_side(tmp_path, few_source, quick_settings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = dataclasses.replace(quick_settings, seed=1)
    assert str(run(quick_settings, few_source)) == "runs/fast"
    assert str(run(other, few_source)) == "runs/fast-2"
    assert str(run(quick_settings, few_source)) == "runs/fast"
    assert str(run(other, few_source)) == "runs/fast-2"


def cut_off_after(epochs: int, monkeypatch) -> None:
    """The next run ends, as if interrupted, when it has saved so many epochs."""
    saved = []
    original = resumable.keep_state

    def save(path, state):
        original(path, state)
        saved.append(1)
        if len(saved) == epochs:
            raise KeyboardInterrupt

    for room in (resumable, members):
        monkeypatch.setattr(room, "keep_state", save)


def test_a_run_that_was_cut_off_goes_on_and_ends_with_the_same_bytes(
    tmp_path, few_source, quick_settings, monkeypatch
):
    settings = dataclasses.replace(quick_settings, epochs=4, dropout=0.1)
    whole = run(settings, few_source, out=tmp_path / "whole")
    with monkeypatch.context() as patched:
        cut_off_after(2, patched)
        with pytest.raises(KeyboardInterrupt):
            run(settings, few_source, out=tmp_path / "cut")
    assert not (tmp_path / "cut/submission.csv").exists()
    resumed = run(settings, few_source, out=tmp_path / "cut")
    for name in EQUAL_FILES:
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name
    assert history_of(resumed) == history_of(whole)
    assert not (resumed / "checkpoint").exists()


def test_a_loss_gone_wrong_keeps_the_last_good_checkpoint(
    tmp_path, few_source, quick_settings, monkeypatch
):
    original = resumable.train

    def fails_in_epoch_2(*arguments, **options):
        rows = original(*arguments, **options)
        yield next(rows)
        raise TrainingError("the loss is nan at step 3 of epoch 2")

    with monkeypatch.context() as patched:
        patched.setattr(resumable, "train", fails_in_epoch_2)
        with pytest.raises(TrainingError, match=r"nan at step 3.*last good checkpoint is kept in"):
            run(quick_settings, few_source, out=tmp_path / "run")
    run(quick_settings, few_source, out=tmp_path / "run")
    assert len(history_of(tmp_path / "run")) == 2


def test_a_failure_in_drawing_does_not_cost_the_submission(
    tmp_path, few_source, quick_settings, monkeypatch
):
    def broken(*arguments):
        raise RuntimeError("no font")

    monkeypatch.setattr(pipeline, "make_report", broken)
    folder = run(quick_settings, few_source, out=tmp_path / "run")
    assert (folder / "submission.csv").exists()


def test_the_classic_set_has_seven_images_for_each_and_validation_none(few_digits):
    settings = make_settings("classic", {})
    rows = torch.arange(20, 60)
    data = training_images(few_digits, rows, settings)
    assert len(data) == 280
    assert torch.equal(data.labels, few_digits.train_labels[20:60].repeat(7))
    first = few_digits.train_images[20:60].float() / 255
    torch.testing.assert_close(data.images[:40], first)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "damaged"),
        (b"PK\x03\x04 not really", "damaged"),
        (b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.", "damaged, or would run code"),
    ],
)
def test_a_model_that_is_none_is_refused_and_executes_nothing(
    tmp_path, content, expected, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match="is no model that can be used") as caught:
        load_model(tmp_path / "model.pt", choose_compute())
    assert expected in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
