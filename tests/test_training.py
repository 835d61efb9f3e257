from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from digitkaggle.device import Compute, choose_compute
from digitkaggle.errors import InputError, TrainingError
from digitkaggle.prediction import predict_logits
from digitkaggle.settings import PRESETS, make_settings
from digitkaggle.training import (
    LabelledImages,
    learning_rate_factor,
    loss_sum,
    number_of_epochs,
    progress_of,
    start_training,
    train,
    train_batch,
    train_batch_within_memory,
    validate,
)

CPU = Compute(torch.device("cpu"), torch.float32, "for tests")


@pytest.fixture
def digits(few_digits) -> tuple[LabelledImages, LabelledImages]:
    """200 digits to train on, 100 to validate."""
    return (
        LabelledImages(few_digits.train_images[:200], few_digits.train_labels[:200]),
        LabelledImages(few_digits.train_images[200:], few_digits.train_labels[200:]),
    )


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_weights_of_the_best_epoch_are_returned_not_those_of_the_last(digits):
    # A constant and far too high rate makes the validation loss jump up and down.
    settings = make_settings(
        "fast",
        {"widths": (4, 4, 4), "epochs": 8, "batch_size": 50, "schedule": "constant"}
        | {"learning_rate": 2.0, "muon_learning_rate": 2.0},
    )
    training = start_training(settings, CPU)
    by_epoch = {}
    for row in train(training, *digits, settings, CPU):
        by_epoch[row["epoch"]] = weights(training.network)
    losses = {row["epoch"]: row["val_loss"] for row in training.history}
    best = min(losses, key=losses.get)
    assert best != 8, "the test needs a run whose best epoch is not its last"
    assert training.best_epoch == best
    best_network = training.best_network()
    assert same(weights(best_network), by_epoch[best])
    assert not same(weights(best_network), by_epoch[8])
    assert validate(best_network, digits[1], settings, CPU)[0] == pytest.approx(losses[best])


def test_patience_stops_after_so_many_epochs_without_a_lower_loss(digits):
    settings = make_settings(
        "fast",
        {"widths": (4, 4, 4), "epochs": 50, "patience": 3, "schedule": "constant"}
        | {"learning_rate": 2.0, "muon_learning_rate": 2.0, "batch_size": 50},
    )
    training = start_training(settings, CPU)
    rows = list(train(training, *digits, settings, CPU))
    assert len(rows) < 50
    assert rows[-1]["epoch"] == training.best_epoch + 3
    assert list(train(training, *digits, settings, CPU)) == [], "a resume must not train on"


def test_a_batch_in_pieces_makes_the_same_step_as_the_whole(digits):
    settings = make_settings("classic", {"dropout": 0.0, "piece_size": 0})
    results = []
    for piece_size in (0, 7, 64):
        pieces = dataclasses.replace(settings, piece_size=piece_size)
        training = start_training(pieces, CPU)
        loss, hits = train_batch(training, digits[0], torch.arange(150), pieces, CPU)
        results.append((loss.item(), hits.item(), weights(training.network)))
    (whole_loss, whole_hits, whole), *others = results
    for loss, hits, stepped in others:
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        assert hits == whole_hits
        for name in whole:
            # Adam's first step is the sign of the gradient times the rate: 2e-4 where signs differ.
            torch.testing.assert_close(stepped[name], whole[name], atol=2e-6, rtol=0)


def test_gradients_of_pieces_add_up_to_those_of_the_whole_batch(digits):
    settings = make_settings("classic", {"dropout": 0.0})
    gradients = []
    for piece_size in (0, 13):
        pieces = dataclasses.replace(settings, piece_size=piece_size)
        training = start_training(pieces, CPU)
        training.optimizer.zero_grad = lambda: None  # keeps them for us to look at
        train_batch(training, digits[0], torch.arange(100), pieces, CPU)
        gradients.append([p.grad.clone() for p in training.network.parameters()])
    for whole, summed in zip(*gradients, strict=True):
        torch.testing.assert_close(summed, whole, atol=1e-7, rtol=1e-4)


def test_the_softmax_head_applies_softmax_twice_and_bounds_the_loss():
    settings = PRESETS["classic"]
    sure = torch.full((1, 10), -1000.0)
    sure[0, 3] = 1000.0
    right, wrong = torch.tensor([3]), torch.tensor([4])
    assert loss_sum(sure, right, settings).item() == pytest.approx(1.4612, abs=1e-4)
    assert loss_sum(sure, wrong, settings).item() == pytest.approx(2.4612, abs=1e-4)
    chance = loss_sum(torch.zeros(1, 10), right, settings).item()
    assert chance == pytest.approx(math.log(10))


def test_one_cycle_climbs_to_the_peak_and_falls_to_nothing():
    def factors(*progress: float) -> list[float]:
        return [learning_rate_factor("one-cycle", 0.25, at) for at in progress]

    assert factors(0.0, 0.125, 0.25, 0.625, 1.0) == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert learning_rate_factor("one-cycle", 0.0, 0.5) == 0.5
    assert learning_rate_factor("constant", 0.25, 0.9) == 1


def test_progress_is_that_of_the_steps_or_of_the_time_whichever_is_ahead():
    assert progress_of(0, 10, begun=0, time_spent=0.0) == 0.05
    assert progress_of(9, 10, begun=0, time_spent=0.0) == 0.95
    assert progress_of(3, 10, begun=0, time_spent=0.2) == 0.35, "there is time enough"
    assert progress_of(3, 10, begun=0, time_spent=0.6) == 0.6, "the schedule hurries"
    assert progress_of(3, 10, begun=0, time_spent=1.5) == 1.0
    # Taken up after four of ten steps, the clock is at 0 and has the other six to measure.
    assert progress_of(4, 10, begun=4, time_spent=0.0) == 0.45
    assert progress_of(4, 10, begun=4, time_spent=0.5) == pytest.approx(0.7)
    assert progress_of(4, 10, begun=4, time_spent=1.0) == 1.0


def test_small_data_get_as_many_epochs_as_their_steps_need():
    settings = make_settings("fast", {"minimum_steps": 100, "batch_size": 10})
    assert number_of_epochs(settings, 95) == 10
    assert number_of_epochs(dataclasses.replace(settings, minimum_steps=5000), 95) == 100
    assert number_of_epochs(settings, 100_000) == PRESETS["fast"].epochs


def test_every_image_is_seen_once_an_epoch_whatever_the_batch_size(digits, monkeypatch):
    seen = []
    original = train_batch

    def watched(training, data, index, *rest):
        seen.extend(index.tolist())
        return original(training, data, index, *rest)

    monkeypatch.setattr("digitkaggle.training.train_batch", watched)
    settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1, "batch_size": 64})
    list(train(start_training(settings, CPU), *digits, settings, CPU))
    assert sorted(seen) == list(range(200))
    assert seen != list(range(200))


def test_a_run_learns_real_digits(sample):
    settings = make_settings("fast", {"widths": (8, 16, 16), "epochs": 3, "batch_size": 64})
    data = LabelledImages(sample.train_images[:2000], sample.train_labels[:2000])
    held_out = LabelledImages(sample.test_images, sample.test_labels)
    compute = choose_compute("cpu")
    *_, last = train(start_training(settings, compute), data, held_out, settings, compute)
    assert last["val_accuracy"] > 0.9


def test_validation_and_its_images_are_the_same_before_and_after_training(digits):
    settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1})
    data, held_out = digits
    before = held_out.images.clone()
    list(train(start_training(settings, CPU), data, held_out, settings, CPU))
    assert torch.equal(held_out.images, before)


def test_training_goes_on_from_a_saved_state_to_the_same_weights(digits):
    settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 4, "dropout": 0.2})
    whole = start_training(settings, CPU)
    list(train(whole, *digits, settings, CPU))

    first = start_training(settings, CPU)
    rows = train(first, *digits, settings, CPU)
    next(rows), next(rows)
    second = start_training(dataclasses.replace(settings, seed=9), CPU)
    second.restore(copy.deepcopy(first.state()))
    list(train(second, *digits, settings, CPU))
    assert same(weights(second.best_network()), weights(whole.best_network()))

    def without_seconds(history):
        return [{**row, "seconds": 0} for row in history]

    assert without_seconds(second.history) == without_seconds(whole.history)


def test_a_loss_that_is_no_number_stops_and_says_at_which_step(digits):
    settings = make_settings(
        "classic",
        {"augmentation": "none", "learning_rate": 1e6, "batch_size": 50, "softmax_head": False}
        | {"epochs": 2},
    )
    with pytest.raises(TrainingError, match=r"loss is (nan|inf).* epoch 1.*--learning-rate"):
        list(train(start_training(settings, CPU), *digits, settings, CPU))


def test_half_precision_scales_the_loss_and_survives_an_overflow(digits):
    half = Compute(torch.device("cpu"), torch.float16, "for tests")
    changes = {"widths": (8, 8, 8), "epochs": 6, "batch_size": 20, "image_sizes": (28,)}
    settings = make_settings("fast", changes)
    training = start_training(settings, half)
    assert training.scaler.is_enabled()
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    rows = list(train(training, *digits, settings, half))
    assert training.scaler.get_scale() < 2.0**40
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert all(torch.isfinite(value).all() for value in weights(training.network).values())


def test_images_grow_over_the_course_of_training(digits):
    settings = make_settings(
        "fast", {"widths": (4, 4, 4), "epochs": 3, "batch_size": 100, "image_sizes": (12, 20, 28)}
    )
    training = start_training(settings, CPU)
    seen = []
    training.network.register_forward_pre_hook(
        lambda network, inputs: seen.append((network.training, inputs[0].shape[-1]))
    )
    list(train(training, *digits, settings, CPU))
    assert [size for trains, size in seen if trains] == [12, 12, 20, 20, 28, 28]
    assert {size for trains, size in seen if not trains} == {28}


class SmallMemory(torch.nn.Module):
    """A network in a memory that holds the activations of so many images."""

    def __init__(self, network: torch.nn.Module, images: int) -> None:
        super().__init__()
        self.network, self.images = network, images

    def __iter__(self):
        return iter(self.network)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        said = self.network(values)
        if len(values) > self.images:
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
            )
        return said


@pytest.mark.parametrize("preset", ["classic", "fast"])
def test_a_batch_that_does_not_fit_makes_the_step_of_pieces_and_says_so(digits, preset, caplog):
    changes = {"augmentation": "affine", "batch_size": 100, "piece_size": 0, "epochs": 1}
    settings = make_settings(preset, changes)
    small = start_training(settings, CPU)
    whole_network = small.network
    small.network = SmallMemory(whole_network, images=30)
    index = torch.arange(100)
    train_batch_within_memory(small, digits[0], index, settings, CPU)
    assert small.piece_size == 25
    assert "going on in pieces of 25" in caplog.text
    assert ("which changes the result" in caplog.text) == (preset == "fast")

    pieces = dataclasses.replace(settings, piece_size=25)
    planned = start_training(pieces, CPU)
    train_batch(planned, digits[0], index, pieces, CPU)
    expected = dict(planned.network.named_parameters())
    for name, parameter in whole_network.named_parameters():
        assert torch.equal(parameter, expected[name]), "the same random numbers, gradients from 0"
    assert torch.equal(small.order.get_state(), planned.order.get_state())
    restored = start_training(settings, CPU)
    small.network = whole_network
    restored.restore(small.state())
    assert restored.piece_size == 25


def test_no_memory_for_a_single_image_is_an_error_and_other_faults_stay_what_they_are(digits):
    settings = make_settings("fast", {"widths": (4, 4, 4)})
    training = start_training(settings, CPU)
    training.network = SmallMemory(training.network, images=0)
    with pytest.raises(InputError, match="no room to train on a single image"):
        train_batch_within_memory(training, digits[0], torch.arange(9), settings, CPU)
    training = start_training(settings, CPU)
    training.network = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="shapes"):
        train_batch_within_memory(training, digits[0], torch.arange(9), settings, CPU)


def test_predictions_that_do_not_fit_go_by_halves(digits):
    settings = make_settings("fast", {"widths": (4, 4, 4)})
    network = start_training(settings, CPU).network
    images = digits[0].images
    halved = predict_logits(SmallMemory(network, images=30), images, CPU)
    torch.testing.assert_close(halved, predict_logits(network, images, CPU))
    with pytest.raises(RuntimeError, match="can't allocate"):
        predict_logits(SmallMemory(network, images=0), images, CPU)


def test_at_rest_within_an_epoch_training_goes_on_to_the_same_weights(digits):
    settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 2, "batch_size": 50})
    whole = start_training(settings, CPU)
    list(train(whole, *digits, settings, CPU))
    first = start_training(settings, CPU)
    steps = train(first, *digits, settings, CPU, pause=lambda: True)
    states = [copy.deepcopy(first.state()) for row in steps if row is None]
    assert [len(state["losses"]) for state in states] == [1, 2, 3, 1, 2, 3]
    for state in states:
        resumed = start_training(settings, CPU)
        resumed.restore(copy.deepcopy(state))
        list(train(resumed, *digits, settings, CPU))
        assert same(weights(resumed.best_network()), weights(whole.best_network()))
        assert resumed.history[0]["train_loss"] == whole.history[0]["train_loss"]
        assert resumed.history[1]["train_accuracy"] == whole.history[1]["train_accuracy"]


def test_out_of_time_the_epoch_ends_and_the_schedule_with_it(digits):
    settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 9, "batch_size": 50})
    training = start_training(settings, CPU)
    shares = iter([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    rows = list(train(training, *digits, settings, CPU, time_spent=lambda: next(shares)))
    assert training.out_of_time
    assert [row["epoch"] for row in rows] == [1, 2]
    # The last step began when 0.9 of the time was spent.
    peak = settings.learning_rate
    assert rows[-1]["learning_rate"] == pytest.approx(peak * 0.1 / 0.75)
    assert 0 < rows[-1]["train_accuracy"] <= 1


def test_the_state_of_another_device_is_taken_up_but_for_its_noise(digits):
    settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1})
    first = start_training(settings, CPU)
    list(train(first, *digits, settings, CPU))
    state = first.state() | {"noise": torch.zeros(16, dtype=torch.uint8)}  # of a GPU's generator
    for compute in (CPU, Compute(torch.device("cpu"), torch.float16, "for tests")):
        second = start_training(settings, compute)
        second.restore(state)
        assert same(weights(second.best_network()), weights(first.best_network()))
