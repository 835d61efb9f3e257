from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from digitkaggle.core.basics import Digits, InputError
from digitkaggle.core.device import choose_compute
from digitkaggle.core.results import run_metrics, write_file, write_results
from digitkaggle.core.run import run
from digitkaggle.core.settings import make_settings

COMPUTE = choose_compute("cpu", "float32")


@pytest.fixture
def two_members(quick_settings):
    return make_settings(
        "fast", {"widths": (4, 4, 4), "epochs": 2, "batch_size": 64, "members": 2, "views": 1}
    )


def test_wherever_and_in_whatever_order_members_are_trained_the_result_is_the_same(
    few_digits, two_members
):
    plain = run(two_members, few_digits, COMPUTE)
    turned = run(
        two_members, few_digits, COMPUTE, each=lambda learn, numbers: map(learn, numbers[::-1])
    )
    assert torch.equal(plain.probabilities, turned.probabilities)
    assert [member.number for member in turned.members] == [1, 2]


def test_a_watch_sees_every_epoch_and_may_end_a_training(few_digits, two_members):
    seen = []

    def watch(number, training, epochs):
        for row in epochs:
            seen.append((number, row["epoch"]))
            training.epochs = 1
            yield row

    result = run(two_members, few_digits, COMPUTE, watch=watch)
    assert seen == [(1, 1), (2, 1)]
    assert [member.planned_epochs for member in result.members] == [2, 2]


def test_a_runs_files_say_what_it_says(tmp_path, few_digits, two_members):
    result = run(two_members, few_digits, COMPUTE)
    write_results(
        tmp_path, result, few_digits, run_metrics(result, few_digits, "abc", {"total": 1})
    )
    rows = list(csv.reader((tmp_path / "submission.csv").read_text().splitlines()))
    probabilities = np.load(tmp_path / "probabilities.npy")
    assert rows[0] == ["ImageId", "Label"]
    assert [int(label) for _, label in rows[1:]] == probabilities.argmax(axis=1).tolist()
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(1, 51)]
    held_out = np.load(tmp_path / "validation.npz")
    labels = few_digits.train_labels.numpy()[held_out["row"]]
    assert np.array_equal(held_out["label"], labels)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    right = (held_out["probabilities"].argmax(axis=1) == labels).mean()
    assert metrics["validation"]["accuracy"] == pytest.approx(right)
    assert (metrics["source_digest"], metrics["best_epoch"]) == ("abc", [2, 2])
    history = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [(row["member"], row["epoch"]) for row in history] == [
        *(("1", "1"), ("1", "2")),
        *(("2", "1"), ("2", "2")),
    ]
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    assert sorted(model["members"]) == [1, 2]
    assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")


def test_equal_weights_are_equal_bytes_whatever_the_folder(tmp_path, few_digits, quick_settings):
    for name in ("one", "another"):
        result = run(quick_settings, few_digits, COMPUTE)
        metrics = run_metrics(result, few_digits, "", {})
        write_results(tmp_path / name, result, few_digits, metrics)
    for file in ("model.pt", "probabilities.npy", "validation.npz", "submission.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "another" / file).read_bytes()


def test_a_run_on_all_images_claims_no_accuracy(tmp_path, few_digits, quick_settings):
    changes = {"validation_fraction": 0, "widths": (4, 4, 4), "epochs": 1, "batch_size": 64}
    result = run(make_settings("fast", changes), few_digits, COMPUTE)
    metrics = run_metrics(result, few_digits, "", {})
    write_results(tmp_path, result, few_digits, metrics)
    assert metrics["validation"] is None
    assert not (tmp_path / "validation.npz").exists()
    assert ",," in (tmp_path / "history.csv").read_text()


def test_too_few_images_are_refused():
    images = torch.zeros(12, 1, 28, 28, dtype=torch.uint8)
    digits = Digits(images, torch.arange(12) % 10, images)
    with pytest.raises(InputError):
        run(make_settings("fast", {}), digits, COMPUTE)
    with pytest.raises(InputError, match="folds"):
        run(make_settings("best", {}), digits, COMPUTE)


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path):
    write_file(tmp_path / "file", b"before")

    def fail(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space"):
        write_file(tmp_path / "file", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"
