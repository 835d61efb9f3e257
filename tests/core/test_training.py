from __future__ import annotations

import pytest
import torch

from digitkaggle.core.basics import LabelledImages, TrainingError
from digitkaggle.core.device import choose_compute
from digitkaggle.core.prediction import predict_probabilities
from digitkaggle.core.settings import make_settings
from digitkaggle.core.split import fold_rows, member_rows, split_rows
from digitkaggle.core.training import learning_rate_factor, start_training, train

COMPUTE = choose_compute("cpu", "float32")


def trained(digits, held=60, **changes):
    settings = make_settings(
        "fast", {"widths": (4, 4, 4), "epochs": 3, "batch_size": 64, **changes}
    )
    data = LabelledImages(digits.train_images[held:], digits.train_labels[held:])
    held_out = LabelledImages(digits.train_images[:held], digits.train_labels[:held])
    training = start_training(settings, COMPUTE, len(data))
    return training, train(training, data, held_out if held else None)


def test_the_same_seed_gives_the_same_weights(few_digits):
    weights = []
    for _ in range(2):
        training, epochs = trained(few_digits)
        list(epochs)
        weights.append(training.network.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_it_learns_real_digits(sample):
    training, epochs = trained(sample, held=500, widths=(8, 16, 16), epochs=4)
    assert list(epochs)[-1]["val_accuracy"] > 0.9
    assert training.best_epoch == 4


def test_the_best_epochs_weights_are_a_copy(few_digits):
    training, epochs = trained(few_digits)
    next(epochs)
    first = {name: value.clone() for name, value in training.best_weights.items()}
    training.best_loss = 0.0  # nothing after this is better
    list(epochs)
    assert training.best_epoch == 1
    assert all(torch.equal(first[name], training.best_weights[name]) for name in first)
    assert torch.equal(training.best_network()[0].weight, first["0.weight"])


def test_without_held_out_images_the_last_epoch_counts(few_digits):
    training, epochs = trained(few_digits, held=0)
    rows = list(epochs)
    assert training.best_epoch == 3
    assert all(row["val_loss"] != row["val_loss"] for row in rows)


def test_patience_ends_a_training_that_does_not_get_better(few_digits):
    training, epochs = trained(
        few_digits, epochs=50, patience=2, learning_rate=1e-9, muon_learning_rate=1e-9
    )
    rows = list(epochs)
    assert len(rows) - training.best_epoch == 2 or len(rows) == 50


def test_a_plan_that_is_lowered_ends_the_training_there(few_digits):
    training, epochs = trained(few_digits, epochs=9)
    for _ in epochs:
        training.epochs = 2
    assert [row["epoch"] for row in training.history] == [1, 2]


def test_a_loss_that_is_no_number_is_refused(few_digits):
    training, epochs = trained(few_digits)
    with torch.no_grad():
        training.network[0].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="epoch 1"):
        list(epochs)


def test_small_data_get_more_epochs_within_reason():
    settings = make_settings("balanced", {})
    assert start_training(settings, COMPUTE, 3600).epochs == 27
    assert start_training(settings, COMPUTE, 37_800).epochs == 10
    assert start_training(settings, COMPUTE, 100).epochs == 100


def test_one_cycle_climbs_and_falls_in_straight_lines():
    settings = make_settings("fast", {"warmup": 0.25})
    factors = [learning_rate_factor(settings, done) for done in (0, 0.125, 0.25, 0.625, 1)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert learning_rate_factor(make_settings("classic", {}), 0.9) == 1


def test_pieces_of_a_batch_add_up_to_the_whole(few_digits):
    losses = []
    for piece_size in (0, 7):
        options = {"network": "classic", "image_sizes": (28,), "dropout": 0.0, "epochs": 1}
        _, epochs = trained(
            few_digits,
            optimizer="adam",
            piece_size=piece_size,
            **options,
            augmentation="none",
            learning_rate=1e-3,
        )
        losses.append(next(epochs)["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_probabilities_are_the_mean_over_networks_and_views(few_digits):
    networks = []
    for seed in (1, 2):
        training, epochs = trained(few_digits, seed=seed, epochs=1)
        next(epochs)
        networks.append(training.best_network())
    images = few_digits.test_images
    both = predict_probabilities(networks, images, COMPUTE, 3)
    each = [predict_probabilities([network], images, COMPUTE, 3) for network in networks]
    assert torch.allclose(both, (each[0] + each[1]) / 2)
    assert torch.allclose(both.sum(dim=1), torch.ones(len(images)), atol=1e-5)
    assert not torch.equal(both, predict_probabilities(networks, images, COMPUTE, 1))


def test_a_split_shares_images_out_by_class():
    labels = torch.arange(10).repeat(30)
    train_rows, held = split_rows(labels, 0.1, 0, by_class=True)
    assert sorted([*train_rows.tolist(), *held.tolist()]) == list(range(300))
    assert labels[held].bincount().tolist() == [3] * 10
    folds = [fold_rows(labels, 5, fold, 0, by_class=True)[1] for fold in range(5)]
    assert sorted(torch.cat(folds).tolist()) == list(range(300))


def test_members_hold_out_a_fold_each_and_then_shuffle_anew():
    labels = torch.arange(10).repeat(30)
    settings = make_settings("best", {"members": 12})
    held = [member_rows(labels, settings, number)[1].tolist() for number in range(1, 13)]
    assert sorted(row for rows in held[:10] for row in rows) == list(range(300))
    assert held[10] != held[0]
    everything = make_settings("fast", {"validation_fraction": 0})
    assert [len(rows) for rows in member_rows(labels, everything, 1)] == [300, 0]
