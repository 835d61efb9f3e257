"""What a checkpoint holds: every field of a training, so that a resume continues it exactly."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from digitkaggle.core import training as core_training
from digitkaggle.core.basics import Compute, Digits, LabeledImages
from digitkaggle.core.run import Epochs, Member, run
from digitkaggle.core.settings import derive_member_settings, make_settings
from digitkaggle.core.training import Training, start_training, train
from digitkaggle.runs import checkpoint
from digitkaggle.runs.checkpoint import (
    NOT_SAVED,
    SAVED,
    collect_state,
    get_state,
    restore_training,
    resume_epochs,
)

# At one size, so that every epoch may be the best.
SMALL = {"widths": (4, 4, 4), "epochs": 3, "batch_size": 64, "image_sizes": (28,)}
SMALL |= {"minimum_steps": 0}
# As the preset classic, with a small network: Adam, dropout, copies of the images, no schedule.
LIKE_CLASSIC = SMALL | {"network": "compact", "learning_rate": 0.005, "piece_size": 32}
FIELDS = [field.name for field in dataclasses.fields(Training)]


def make_training(seed: int, preset: str = "fast", **changes: object) -> Training:
    settings = make_settings(preset, SMALL | {"seed": seed} | changes)
    dtype = torch.float16 if settings.precision == "float16" else torch.float32
    compute = Compute(torch.device("cpu"), dtype, "for a test")
    return start_training(derive_member_settings(settings, 1), compute, 300)


def train_one_epoch(training: Training, digits: Digits) -> None:
    images = LabeledImages(digits.train_images, digits.train_labels)
    next(train(training, images, images))


def save_and_load(state: dict[str, Any], path: Path) -> dict[str, Any]:
    torch.save(state, path)
    return torch.load(path, weights_only=True)


def flatten(state: Any) -> list[Any]:
    """The numbers and lists of numbers in a state, in order, so that states can be compared."""
    if isinstance(state, Tensor):
        return [state.tolist()]
    if isinstance(state, dict):
        return [part for key, value in state.items() for part in [key, *flatten(value)]]
    if isinstance(state, list | tuple):
        return [part for value in state for part in flatten(value)]
    return [state]


def test_every_field_is_saved_except_those_that_are_made_again_from_the_settings():
    assert set(NOT_SAVED) == {"settings", "compute", "epochs"}
    assert sorted([*SAVED, *NOT_SAVED]) == sorted(FIELDS)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon"},
        {"optimizer": "adam", "dropout": 0.5},
        {"optimizer": "muon", "precision": "float16"},
    ],
    ids=["muon", "adam", "float16"],
)
def test_every_saved_field_comes_back(tmp_path, few_digits, changes):
    trained, other = make_training(1, **changes), make_training(2, **changes)
    train_one_epoch(trained, few_digits)
    wanted = {name: flatten(get_state(getattr(trained, name))) for name in SAVED}
    state = save_and_load(collect_state(trained), tmp_path / "state.pt")
    same = {name for name in SAVED if flatten(get_state(getattr(other, name))) == wanted[name]}
    # The scaler has a state only where the dtype needs one; all else has to be restored.
    assert same == (set() if changes.get("precision") == "float16" else {"scaler"})
    restore_training(other, state)
    assert {name: flatten(get_state(getattr(other, name))) for name in SAVED} == wanted


class Average(nn.Module):
    """Something with a state of its own, as a future field may have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(3))


@dataclasses.dataclass
class ExtendedTraining(Training):
    """A training with fields that the checkpoint has never heard of."""

    extra_state: nn.Module = dataclasses.field(default_factory=Average)
    shadow: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    sampler: torch.Generator = dataclasses.field(default_factory=torch.Generator)
    decay: float = 0.0


def import_again(module: ModuleType) -> ModuleType:
    """A second copy of a module, made from its file; the first one stays as it is."""
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_again", module.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


def test_a_field_added_to_training_is_saved_and_restored_without_a_line_of_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(core_training, "Training", ExtendedTraining)
    imported = import_again(checkpoint)
    saved, restored = make_training(1), make_training(1)
    saved.extra_state.weights += 7
    saved.shadow["layer"] = torch.ones(2)
    saved.sampler.manual_seed(99)
    saved.decay = 0.5
    state = save_and_load(imported.collect_state(saved), tmp_path / "state.pt")
    imported.restore_training(restored, state)
    assert restored.extra_state.weights.tolist() == [7, 7, 7]
    assert restored.shadow["layer"].tolist() == [1, 1]
    assert restored.sampler.initial_seed() == 99
    assert restored.decay == 0.5


def collect_outcome(member: Member) -> list[Any]:
    """All that two equal trainings share: weights, predictions, and a history without seconds."""
    rows = [{name: row[name] for name in row if name != "seconds"} for row in member.history]
    return flatten([member.weights, member.probabilities, member.best_epoch, rows])


@pytest.mark.parametrize(
    ("preset", "changes"), [("fast", SMALL), ("classic", LIKE_CLASSIC)], ids=["muon", "adam"]
)
def test_a_training_resumed_after_any_epoch_ends_as_one_that_was_never_interrupted(
    tmp_path, few_digits, preset, changes
):
    settings = make_settings(preset, changes)
    compute = Compute(torch.device("cpu"), torch.float32, "for a test")
    trained_epochs: list[float] = []

    def train_until(
        last: int, folder: Path, number: int, training: Training, epochs: Epochs
    ) -> Epochs:
        for row in resume_epochs(folder, number, training, epochs):
            yield row
            trained_epochs.append(row["epoch"])
            if row["epoch"] == last < 3:
                raise KeyboardInterrupt

    [whole] = run(settings, few_digits, compute).members
    for last in (1, 2):
        folder = tmp_path / f"after-{last}"
        with pytest.raises(KeyboardInterrupt):
            run(settings, few_digits, compute, wrap_epochs=partial(train_until, last, folder))
        wrap_epochs = partial(train_until, 3, folder)
        [resumed] = run(settings, few_digits, compute, wrap_epochs=wrap_epochs).members
        assert collect_outcome(resumed) == collect_outcome(whole)
    assert trained_epochs == [1, 2, 3, 1, 2, 3]  # each epoch once, before or after the interruption
