"""The run.

All of it in order, for every member: split, augment, train, predict. A member depends only on the
data, the settings and its number, so it is the same wherever it is trained (on a GPU, nearly).
`best` trains four, each of which holds out another fortieth of the images, and averages their
probabilities."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from torch import Tensor

from .basics import Compute, Digits, LabeledImages
from .prediction import Model, average_members
from .settings import Settings, derive_member_settings
from .split import split_for_member
from .training import Training, predict_logits, start_training, train

Epochs = Iterator[dict[str, float]]
WrapEpochs = Callable[[int, Training, Epochs], Epochs]


@dataclass(frozen=True)
class Member:
    """One trained network, as plain tensors and numbers, with its predictions."""

    number: int  # from 1
    weights: dict[str, Tensor]  # of its best epoch, on the CPU
    history: list[dict[str, float]]  # a row per epoch
    planned_epochs: int
    best_epoch: int
    best_loss: float
    temperature: float  # already applied to the weights
    held_out_rows: Tensor  # int64, n: rows of the training images
    held_out_probabilities: Tensor  # float32, n x 10
    probabilities: Tensor  # float32, test images x 10
    seconds: dict[str, float]  # of augmentation, training and prediction


@dataclass(frozen=True)
class Result:
    """Everything that a run found out. It may have fewer members than its settings."""

    settings: Settings
    compute: Compute
    members: list[Member]  # by number

    @property
    def probabilities(self) -> Tensor:
        """The average of the members' probabilities, float32, test images x 10."""
        return average_members([member.probabilities for member in self.members])


def run(
    settings: Settings,
    digits: Digits,
    compute: Compute,
    *,
    wrap_epochs: WrapEpochs | None = None,
    map_members: Callable[..., Iterable[Member]] = map,
) -> Result:
    """Train every member, predict, and return everything that was found out.

    Args:
        wrap_epochs: wraps the iterator of a member's epochs; it may save, print, shorten or stop.
        map_members: maps the training function over the members' numbers; `map` trains them here.
    """
    from .console import log_members

    train_one = partial(
        train_member, settings=settings, digits=digits, compute=compute, wrap_epochs=wrap_epochs
    )
    trained = map_members(train_one, range(1, settings.members + 1))
    members = sorted(log_members(trained, digits), key=attrgetter("number"))
    return Result(settings, compute, members)


def train_member(
    number: int,
    settings: Settings,
    digits: Digits,
    compute: Compute,
    wrap_epochs: WrapEpochs | None = None,
) -> Member:
    """Train one member of a run, numbered from 1, and let it predict."""
    from .calibration import calibrate
    from .classic import select_training_images
    from .console import log_epoch, log_plan
    from .device import reuse_freed_memory

    own_settings = derive_member_settings(settings, number)
    train_rows, held_out_rows = split_for_member(digits.train_labels, settings, number)
    held_out = LabeledImages(digits.train_images[held_out_rows], digits.train_labels[held_out_rows])
    held_out = held_out.to(compute.device)
    with reuse_freed_memory():
        started = time.perf_counter()
        data = select_training_images(digits, train_rows, own_settings).to(compute.device)
        augmented_at = time.perf_counter()

        training = start_training(own_settings, compute, len(data))
        planned_epochs = training.epochs
        epochs = train(training, data, held_out)
        epochs = wrap_epochs(number, training, epochs) if wrap_epochs else epochs
        log_plan(training, len(data), len(held_out))
        for row in epochs:
            log_epoch(row, training)
        trained_at = time.perf_counter()

        network = training.network
        network.load_state_dict(training.best_weights)
        logits = training.best_logits
        if logits is None and len(held_out):  # the last epoch was at a smaller size
            logits = predict_logits(network, held_out.images, compute)
        temperature = 1.0 if logits is None else calibrate(network, logits, held_out.labels)
        model = Model([network], settings, compute)
        held_out_probabilities = model.predict(held_out.images)
        probabilities = model.predict(digits.test_images.to(compute.device))
        predicted_at = time.perf_counter()
    return Member(
        number=number,
        weights={name: w.detach().cpu().contiguous() for name, w in network.state_dict().items()},
        history=training.history,
        planned_epochs=planned_epochs,
        best_epoch=training.best_epoch,
        best_loss=training.history[training.best_epoch - 1]["val_loss"],
        temperature=temperature,
        held_out_rows=held_out_rows,
        held_out_probabilities=held_out_probabilities,
        probabilities=probabilities,
        seconds={
            "augment": augmented_at - started,
            "train": trained_at - augmented_at,
            "predict": predicted_at - trained_at,
        },
    )
