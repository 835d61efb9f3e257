from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from digitkaggle.device import Compute
from digitkaggle.settings import make_settings
from digitkaggle.training import LabelledImages, start_training, train
from digitkaggle.training_state import Training

CPU = Compute(torch.device("cpu"), torch.float32, "for tests")


@pytest.fixture
def at_rest(few_digits) -> Training:
    """A training that came to rest in its second epoch."""
    settings = make_settings(
        "fast", {"widths": (4, 4, 4), "epochs": 2, "batch_size": 50, "dropout": 0.2, "seed": 4}
    )
    data = LabelledImages(few_digits.train_images[:100], few_digits.train_labels[:100])
    held_out = LabelledImages(few_digits.train_images[200:], few_digits.train_labels[200:])
    training = start_training(settings, CPU)
    rows = train(training, data, held_out, settings, CPU, pause=lambda: True)
    assert [next(rows) is None for _ in range(3)] == [True, False, True]
    return training


def fresh(seed: int) -> Training:
    return start_training(
        make_settings("fast", {"widths": (4, 4, 4), "dropout": 0.2, "seed": seed}), CPU
    )


def equal(first: object, second: object) -> bool:
    """Whether two states hold the same, tensors to the bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def test_every_field_is_kept_and_put_back_but_whether_time_was_short(at_rest):
    at_rest.out_of_time = True
    state = copy.deepcopy(at_rest.state())
    fields = [field.name for field in dataclasses.fields(Training)]
    assert list(state) == [name for name in fields if name != "out_of_time"]
    defaults = fresh(seed=9)
    for name in state:
        if name not in ("scaler", "piece_size"):
            assert not equal(state[name], defaults.state()[name]), f"{name} says nothing here"
    state["piece_size"] = 7
    defaults.restore(copy.deepcopy(state))
    assert equal(defaults.state(), state)
    assert not defaults.out_of_time


def test_a_state_that_lacks_anything_is_refused(at_rest):
    state = at_rest.state()
    for name in state:
        lacking = {other: value for other, value in state.items() if other != name}
        with pytest.raises(KeyError, match=name):
            fresh(seed=9).restore(lacking)


def test_the_best_weights_are_a_copy_of_the_epoch_with_the_lowest_loss():
    training = fresh(seed=1)
    for epoch, (loss, best) in enumerate([(0.5, 1), (0.4, 2), (0.6, 2)], start=1):
        for parameter in training.network.parameters():
            torch.nn.init.constant_(parameter, epoch)
        training.finish_epoch({"epoch": epoch, "val_loss": loss})
        assert (training.best_epoch, training.epoch) == (best, epoch)
        assert training.best_loss == min(0.5, 0.4 if epoch > 1 else 0.5)
    assert all((p == 2).all() for p in training.best_network().parameters())


def test_without_validation_the_last_epoch_is_the_best():
    training = fresh(seed=1)
    for epoch in (1, 2):
        training.finish_epoch({"epoch": epoch, "val_loss": math.nan})
        assert (training.best_epoch, training.best_loss) == (epoch, math.inf)
