from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from digitkaggle.core.basics import InputError
from digitkaggle.core.results import run_metrics, write_file, write_results
from digitkaggle.core.run import run
from tests.conftest import contents
from tests.core import CPU, same

SAME_BYTES = ["model.pt", "probabilities.npy", "submission.csv", "validation.npz"]
FILES = [*SAME_BYTES, "history.csv", "metrics.json", "result.png"]


def written(folder, settings, digits, **options):
    result = run(settings, digits, CPU)
    metrics = run_metrics(result, digits, "digest", {"total": 1.23456})
    write_results(folder, result, digits, metrics, **options)
    return folder, result


@pytest.fixture
def two(quick_settings):
    """Settings of two members, who hold out half of the images each."""
    return dataclasses.replace(quick_settings, members=2, validation_fraction=0.5)


def test_a_runs_files_say_what_the_run_found(tmp_path, few_digits, two):
    folder, result = written(tmp_path / "new/run", two, few_digits)
    assert sorted(contents(folder)) == sorted(FILES)
    assert (folder / "result.png").read_bytes().startswith(b"\x89PNG")

    probabilities = np.load(folder / "probabilities.npy")
    assert probabilities.tobytes() == result.probabilities.numpy().tobytes()
    header, *lines = (folder / "submission.csv").read_bytes().decode().strip().split("\n")
    assert header == "ImageId,Label"
    assert lines == [f"{n},{digit}" for n, digit in enumerate(probabilities.argmax(axis=1), 1)]

    held = np.load(folder / "validation.npz")
    assert held["member"].tolist() == [1] * 150 + [2] * 150
    assert sorted(held["row"].tolist()) == list(range(300))
    assert held["label"].tolist() == few_digits.train_labels[held["row"]].tolist()

    metrics = json.loads((folder / "metrics.json").read_text())
    right = (held["probabilities"].argmax(axis=1) == held["label"]).mean()
    expected = {"accuracy": right, "standard_error": (right * (1 - right) / 300) ** 0.5}
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


def test_the_model_opens_as_weights_only_and_is_equal_bytes_if_equal(tmp_path, few_digits, two):
    folder, result = written(tmp_path / "one", two, few_digits)
    model = torch.load(folder / "model.pt", weights_only=True)
    assert model["settings"] == vars(two)
    assert all(same(model["members"][m.number], m.weights) for m in result.members)
    again, _ = written(tmp_path / "another folder", two, few_digits)
    for name in SAME_BYTES:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_run_on_all_images_claims_no_accuracy(tmp_path, few_digits, quick_settings):
    settings = dataclasses.replace(quick_settings, validation_fraction=0)
    folder, _ = written(tmp_path, settings, few_digits, submission="not-for-kaggle.csv")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["validation"], metrics["best_epoch"], metrics["epochs"]) == (None, 2, 2)
    assert {*FILES} - {*contents(folder)} == {"validation.npz", "submission.csv"}


def test_a_file_that_cannot_be_written_leaves_the_one_before_and_no_other(tmp_path):
    write_file(tmp_path / "file", b"before")

    def fail(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"file cannot be written \(No space left"):
        write_file(tmp_path / "file", fail)
    with pytest.raises(InputError, match="cannot be written"):
        write_file(tmp_path / "file/below", b"")
    assert contents(tmp_path) == {"file": b"before"}
