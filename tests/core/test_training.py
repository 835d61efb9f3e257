from __future__ import annotations

import copy
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from digitkaggle.core.basics import Compute, Digits, LabeledImages, TrainingError
from digitkaggle.core.settings import PRESETS, Settings, derive_member_settings, make_settings
from digitkaggle.core.training import (
    compute_loss_sum,
    learning_rate_factor,
    start_training,
    train,
)
from tests.core import CPU, are_equal

NO_IMAGES = LabeledImages(torch.empty(0, 1, 28, 28), torch.empty(0))
# Of validation, epoch by epoch. Given, because rounding must not decide which epoch is best.
LOSSES = [0.9, 0.5, 0.7, 0.4, 0.6, 0.5, 0.4, 0.8]


def make_member(preset: str, changes: dict[str, object]) -> Settings:
    return derive_member_settings(make_settings(preset, changes), 1)


def start_small(digits: Digits, held_out: int = 100, compute: Compute = CPU, **changes):
    """A small training that has not begun, its images, and the last N images, held out."""
    small = {"widths": (4, 4, 4), "epochs": 3, "batch_size": 50}
    rows = len(digits.train_labels) - held_out
    data = LabeledImages(digits.train_images[:rows], digits.train_labels[:rows])
    rest = LabeledImages(digits.train_images[rows:], digits.train_labels[rows:])
    settings = make_member("fast", small | changes)
    return start_training(settings, compute, len(data)), data, rest


@pytest.fixture
def given_losses(monkeypatch):
    """Validation returns `LOSSES`, whose lowest comes in epoch 4, and again in epoch 7."""

    def validate(training, held_out, size):
        return torch.zeros(len(held_out), 10), LOSSES[training.epoch], 0.5

    monkeypatch.setattr("digitkaggle.core.training.validate", validate)


@pytest.mark.usefixtures("given_losses")
def test_the_best_weights_are_a_copy_of_those_of_the_epoch_with_the_lowest_loss(few_digits):
    training, data, held_out = start_small(few_digits, epochs=8, image_sizes=(28,))
    weights = {}
    for row in train(training, data, held_out):
        weights[row["epoch"]] = copy.deepcopy(training.network.state_dict())
    assert [row["val_loss"] for row in training.history] == LOSSES
    assert (training.best_epoch, training.best_loss) == (4, 0.4)
    assert are_equal(training.best_weights, weights[4])
    assert not are_equal(weights[4], weights[8])


@pytest.mark.usefixtures("given_losses")
def test_patience_ends_a_training_after_n_epochs_without_a_lower_loss(few_digits):
    training, data, held_out = start_small(few_digits, epochs=50, patience=3, image_sizes=(28,))
    rows = list(train(training, data, held_out))
    assert (rows[-1]["epoch"], training.best_epoch) == (7, 4)
    assert list(train(training, data, held_out)) == [], "a resume must not train on"


@pytest.mark.usefixtures("given_losses")
def test_only_epochs_at_full_size_can_be_the_best_and_patience_counts_from_them(few_digits):
    # Epochs 1 to 4 end at 16 and 20 pixels, so the losses 0.5 and 0.4 there do not count.
    sizes = {"image_sizes": (16, 20, 28, 28), "epochs": 8}
    training, data, held_out = start_small(few_digits, **sizes)
    best = [training.best_epoch for _ in train(training, data, held_out)]
    assert best == [1, 2, 3, 4, 5, 6, 7, 7]
    assert training.best_loss == 0.4
    training, data, held_out = start_small(few_digits, patience=1, **sizes)
    assert [row["epoch"] for row in train(training, data, held_out)] == list(range(1, 9))


def test_a_training_that_ends_before_full_size_keeps_its_last_epoch(few_digits):
    training, data, held_out = start_small(few_digits, epochs=9, image_sizes=(16, 20, 28))
    for _ in train(training, data, held_out):
        if training.epoch == 2:
            break
    assert training.best_epoch == 2
    assert are_equal(training.best_weights, training.network.state_dict())


def test_validation_is_at_the_size_that_the_epoch_ends_at(few_digits, monkeypatch):
    seen = []

    def predict(network, images, compute, transform):
        seen.append(transform(torch.zeros(1, 1, 28, 28)).shape[-1])
        return torch.zeros(len(images), 10)

    monkeypatch.setattr("digitkaggle.core.training.predict_logits", predict)
    training, data, held_out = start_small(few_digits, epochs=6, image_sizes=(16, 20, 28))
    list(train(training, data, held_out))
    assert seen == [16, 16, 20, 20, 28, 28]


def test_a_plan_that_is_lowered_between_two_epochs_ends_the_training_there(few_digits):
    training, data, held_out = start_small(few_digits, epochs=9)
    for _ in train(training, data, held_out):
        training.epochs = 2
    assert [row["epoch"] for row in training.history] == [1, 2]
    # The schedule ends there too: its last of eight steps is 15/16 of the way.
    peak = training.settings.learning_rate
    assert training.history[-1]["learning_rate"] == pytest.approx(peak * (1 - 15 / 16) / 0.75)


@pytest.mark.parametrize("held_out", [None, NO_IMAGES])
def test_without_held_out_images_the_last_epoch_is_the_best(few_digits, held_out):
    training, data, _ = start_small(few_digits, epochs=2, held_out=0)
    assert all(math.isnan(row["val_loss"]) for row in train(training, data, held_out))
    assert training.best_epoch == 2
    assert are_equal(training.best_weights, training.network.state_dict())


def test_a_small_network_learns_to_classify_real_digits(sample):
    training, data, held_out = start_small(
        sample, 1000, widths=(8, 16, 16), epochs=4, batch_size=64
    )
    *_, last = train(training, data, held_out)
    assert last["val_accuracy"] > 0.9


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loss_that_is_nan_is_a_training_error_that_names_the_epoch(few_digits, where):
    training, *parts = start_small(few_digits)
    place = ["training", "validation"].index(where)
    parts[place] = LabeledImages(parts[place].images * math.nan, parts[place].labels)
    with pytest.raises(TrainingError, match=r"epoch 1.*--learning-rate"):
        list(train(training, *parts))


def test_a_batch_in_pieces_makes_the_same_step_as_the_whole_batch(few_digits):
    changes = {"dropout": 0.0, "augmentation": "none", "epochs": 1}
    settings = [make_member("classic", changes | {"piece_size": size}) for size in (0, 64)]
    data, rows = LabeledImages(few_digits.train_images, few_digits.train_labels), []
    whole, pieces = (start_training(one, CPU, 300) for one in settings)
    for training in (whole, pieces):
        rows += train(training, data, None)
    assert rows[1]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=1e-5)
    assert rows[1]["train_accuracy"] == rows[0]["train_accuracy"]
    for name, weight in whole.best_weights.items():
        # Adam's first step is the sign of the gradient times the rate: 4e-4 where signs differ.
        torch.testing.assert_close(pieces.best_weights[name], weight, atol=4e-6, rtol=0)


def test_the_softmax_head_applies_softmax_twice_and_bounds_the_loss():
    confident = torch.full((1, 10), -1000.0)
    confident[0, 3] = 1000.0
    classic = derive_member_settings(PRESETS["classic"], 1)
    for label, expected in [(3, 1.4612), (4, 2.4612)]:
        loss = compute_loss_sum(confident, torch.tensor([label]), classic).item()
        assert loss == pytest.approx(expected, abs=1e-4)


def test_one_cycle_climbs_to_the_peak_and_falls_to_zero_and_constant_stays_at_the_peak():
    settings = make_member("fast", {"warmup": 0.25})
    factors = [learning_rate_factor(settings, done) for done in (0.0, 0.125, 0.25, 0.625, 1.0)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert learning_rate_factor(make_member("fast", {"warmup": 0}), 0.5) == 0.5
    assert learning_rate_factor(make_member("classic", {}), 0.9) == 1


def test_an_unknown_schedule_is_an_error():
    settings = SimpleNamespace(**vars(PRESETS["fast"]) | {"schedule": "no such schedule"})
    with pytest.raises(ValueError, match="no schedule 'no such schedule'"):
        learning_rate_factor(settings, 0.5)


def test_few_images_get_as_many_epochs_as_the_steps_need_but_at_most_a_hundred():
    settings = make_member("fast", {"minimum_steps": 400, "batch_size": 10})
    plans = [start_training(settings, CPU, images).epochs for images in (5, 95, 100_000)]
    assert plans == [100, 40, 3]


def test_every_image_is_used_once_per_epoch_and_images_grow(few_digits, monkeypatch):
    used, sizes = [], []

    def train_batch(training, data, batch, size):
        used.extend(batch.tolist())
        sizes.append(size)
        return torch.ones(2)

    monkeypatch.setattr("digitkaggle.core.device.train_batch", train_batch)
    training, data, held_out = start_small(few_digits, batch_size=70, image_sizes=(16, 20, 28))
    list(train(training, data, held_out))
    assert sizes == [16] * 3 + [20] * 3 + [28] * 3
    epochs = [used[:200], used[200:400], used[400:]]
    assert all(sorted(epoch) == list(range(200)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(("frozen_layers", "learns"), [(0, True), (3, False)])
def test_frozen_layers_learn_from_images_of_the_first_size_only(few_digits, frozen_layers, learns):
    sizes = {"image_sizes": (16, 20, 28), "frozen_layers": frozen_layers}
    training, data, held_out = start_small(few_digits, **sizes)
    weights = [training.network.state_dict()["0.weight"].clone()]
    last = [training.network.state_dict()["3.weight"].clone()]
    for _ in train(training, data, held_out):
        weights.append(training.network.state_dict()["0.weight"].clone())
        last.append(training.network.state_dict()["3.weight"].clone())
    assert not torch.equal(weights[0], weights[1])
    assert [not torch.equal(*pair) for pair in pairwise(weights[1:])] == [learns] * 2
    assert not any(torch.equal(*pair) for pair in pairwise(last))


def test_half_precision_scales_the_loss_and_survives_an_overflow(few_digits):
    half = Compute(torch.device("cpu"), torch.float16, "for tests")
    changes = {"widths": (8, 8, 8), "epochs": 6, "batch_size": 20, "image_sizes": (28,)}
    training, data, held_out = start_small(few_digits, compute=half, **changes)
    assert training.scaler.is_enabled()
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    rows = list(train(training, data, held_out))
    assert training.scaler.get_scale() < 2.0**40
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
