from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from digitkaggle.core.basics import InputError
from digitkaggle.core.results import (
    HeldOutPredictions,
    collect_metrics,
    compute_data_digest,
    write_file,
    write_results,
)
from digitkaggle.core.run import run
from tests.conftest import read_folder
from tests.core import CPU, are_equal

SAME_BYTES = ["model.pt", "probabilities.npy", "submission.csv", "validation.npz"]
FILES = [*SAME_BYTES, "history.csv", "metrics.json", "result.png"]


def write_run(folder, settings, digits, **options):
    result = run(settings, digits, CPU)
    metrics = collect_metrics(result, digits, "digest", {"total": 1.23456})
    write_results(folder, result, digits, metrics, **options)
    return folder, result


@pytest.fixture
def two(quick_settings):
    """Settings of two members, each of which holds out half of the images."""
    return dataclasses.replace(quick_settings, members=2, validation_fraction=0.5)


def test_a_runs_files_hold_its_result(tmp_path, few_digits, two):
    folder, result = write_run(tmp_path / "new/run", two, few_digits)
    assert sorted(read_folder(folder)) == sorted(FILES)
    assert (folder / "result.png").read_bytes().startswith(b"\x89PNG")

    probabilities = np.load(folder / "probabilities.npy")
    assert probabilities.tobytes() == result.probabilities.numpy().tobytes()
    header, *lines = (folder / "submission.csv").read_bytes().decode().strip().split("\n")
    assert header == "ImageId,Label"
    assert lines == [f"{n},{digit}" for n, digit in enumerate(probabilities.argmax(axis=1), 1)]

    held_out = np.load(folder / "validation.npz")
    assert held_out["member"].tolist() == [1] * 150 + [2] * 150
    assert sorted(held_out["row"].tolist()) == list(range(300))
    assert held_out["label"].tolist() == few_digits.train_labels[held_out["row"]].tolist()

    metrics = json.loads((folder / "metrics.json").read_text())
    accuracy = (held_out["probabilities"].argmax(axis=1) == held_out["label"]).mean()
    expected = {"accuracy": accuracy, "standard_error": (accuracy * (1 - accuracy) / 300) ** 0.5}
    expected |= {"loss": sum(member.best_loss for member in result.members) / 2, "images": 300}
    assert metrics["validation"] == pytest.approx(expected)
    assert metrics["settings"] == json.loads(json.dumps(vars(two)))
    assert (metrics["source_digest"], metrics["seconds"]["total"]) == ("digest", 1.235)
    assert metrics["device"] == {"name": "cpu", "dtype": "torch.float32", "why": "for tests"}

    columns, *rows = (folder / "history.csv").read_text().splitlines()
    expected = "member,epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds"
    assert columns == expected
    assert [row[:4] for row in rows] == ["1,1,", "1,2,", "2,1,", "2,2,"]
    best = rows[2 + metrics["best_epoch"][1] - 1]
    assert float(best.split(",")[4]) == pytest.approx(result.members[1].best_loss)


def test_the_model_opens_as_weights_only_and_equal_weights_are_equal_bytes(
    tmp_path, few_digits, two
):
    folder, result = write_run(tmp_path / "one", two, few_digits)
    model = torch.load(folder / "model.pt", weights_only=True)
    assert model["settings"] == vars(two)
    assert all(are_equal(model["members"][m.number], m.weights) for m in result.members)
    again, _ = write_run(tmp_path / "another folder", two, few_digits)
    for name in SAME_BYTES:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_run_on_all_images_claims_no_accuracy(tmp_path, few_digits, quick_settings):
    settings = dataclasses.replace(quick_settings, validation_fraction=0)
    folder, _ = write_run(tmp_path, settings, few_digits, submission="not-for-kaggle.csv")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["validation"], metrics["best_epoch"], metrics["epochs"]) == (None, 2, 2)
    assert {*FILES} - {*read_folder(folder)} == {"validation.npz", "submission.csv"}


def test_a_file_that_cannot_be_written_leaves_the_one_before_and_no_other_file(tmp_path):
    write_file(tmp_path / "file", b"before")

    def fail(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"file cannot be written \(No space left"):
        write_file(tmp_path / "file", fail)
    with pytest.raises(InputError, match="cannot be written"):
        write_file(tmp_path / "file/below", b"")
    assert read_folder(tmp_path) == {"file": b"before"}


def test_held_out_predictions_know_predicted_class_confidence_and_whether_it_is_correct():
    probabilities = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], dtype=np.float32)
    held_out = HeldOutPredictions(np.array([4, 9]), np.array([1, 2]), probabilities)
    assert len(held_out) == 2
    assert held_out.predicted.tolist() == [1, 0]
    assert held_out.confidence.tolist() == pytest.approx([0.7, 0.5])
    assert held_out.correct.tolist() == [True, False]


def test_the_datas_digest_changes_with_a_pixel_a_label_or_a_row_that_moves_to_the_test(few_digits):
    images, labels = few_digits.train_images, few_digits.train_labels
    brighter, others = images.clone(), labels.clone()
    brighter[0, 0, 0, 0] += 1
    others[0] = (others[0] + 1) % 10
    moved = torch.cat([images[-1:], few_digits.test_images])
    digests = [
        compute_data_digest(digits)
        for digits in (
            few_digits,
            dataclasses.replace(few_digits, train_images=brighter),
            dataclasses.replace(few_digits, train_labels=others),
            dataclasses.replace(few_digits, train_images=images[:-1], test_images=moved),
        )
    ]
    assert len(set(digests)) == 4
    elsewhere = dataclasses.replace(few_digits, origin="elsewhere")
    assert compute_data_digest(elsewhere) == digests[0]
