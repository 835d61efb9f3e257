"""The run.

All of it in order: split, augment, train, predict, for every member. A member depends on the data,
the settings and its number alone, so wherever it is trained it is the same; on a GPU, nearly.
`best` trains ten, each of which holds out another fortieth of the images, and averages what they
say. A second round may learn from the test images as well, as the first has named them: with
probabilities, so that doubt stays doubt. It is off, for it makes one network better (by one wrong
digit in eleven), but not several together: 171 wrong of 50,400 for 173."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from .basics import CLASSES, Compute, Digits, LabelledImages, keep_freed_memory, logger
from .prediction import calibrate, predict_probabilities
from .settings import Settings, member_settings
from .split import member_rows
from .training import Training, start_training, train, training_images

Epochs = Iterator[dict[str, float]]
Watch = Callable[[int, Training, Epochs], Epochs]


@dataclass(frozen=True)
class Member:
    """A network that is trained, and all that the run wants of it."""

    number: int  # from 1
    weights: dict[str, Tensor]  # of its best epoch, on the CPU
    history: list[dict[str, float]]  # a row an epoch
    planned_epochs: int
    best_epoch: int
    best_loss: float
    temperature: float  # that its logits are divided by; its weights have it in them
    held_rows: Tensor  # int64, n: of the training images
    held_probabilities: Tensor  # float32, n x 10
    probabilities: Tensor  # float32, test images x 10
    seconds: dict[str, float]  # of augmentation, training and prediction


@dataclass(frozen=True)
class Result:
    """What there is to know after a run: its members by number, maybe fewer than were asked for."""

    settings: Settings
    compute: Compute
    members: list[Member]
    teachers: list[Member] = field(default_factory=list)  # whose answers the members learned from

    @property
    def probabilities(self) -> Tensor:
        """The mean of the members', float32, test images x 10; added in order: the same bytes."""
        return mean_answer(self.members)


def mean_answer(members: list[Member]) -> Tensor:
    """The mean of the members' probabilities of test images."""
    first, *others = [member.probabilities for member in members]
    return sum(others, start=first) / len(members)


def unwatched(number: int, training: Training, epochs: Epochs) -> Epochs:
    """The epochs of a member as they are."""
    return epochs


def run(
    settings: Settings, digits: Digits, compute: Compute, *, watch: Watch = unwatched, each=map
) -> Result:
    """Train every member, predict, and return all there is to know.

    Args:
        watch: wraps the iterator of a member's epochs: it may save, print, shorten or stop.
        each: decides where members are trained, and may yield them in any order; `map` does here.
    """
    learn = partial(train_member, settings=settings, digits=digits, compute=compute, watch=watch)

    def trained(learn: Callable[..., Member], first: int) -> list[Member]:
        members = []
        for member in each(learn, range(first, first + settings.members)):
            members.append(member)
            named = member.held_probabilities.argmax(dim=1)
            logger.info(
                "member %d: %d of %d held-out images wrong, weights of epoch %d of %d, %.0f s",
                member.number,
                (named != digits.train_labels[member.held_rows]).sum(),
                *(len(named), member.best_epoch, len(member.history), member.seconds["train"]),
            )
        return sorted(members, key=lambda member: member.number)

    members, teachers = trained(learn, 1), []
    if settings.learn_from_test and len(members) == settings.members:  # else time is up
        taught = partial(learn, test_answers=mean_answer(members))
        if students := trained(taught, settings.members + 1):
            members, teachers = students, members
    keep_freed_memory(False)
    return Result(settings, compute, members, teachers)


def train_member(
    number: int,
    settings: Settings,
    digits: Digits,
    compute: Compute,
    watch: Watch = unwatched,
    test_answers: Tensor | None = None,
) -> Member:
    """Train one member of a run, from 1, to its end, and let it predict.

    With `test_answers`, probabilities, float32, test images x 10, it learns from test images, too.
    """
    settings = member_settings(settings, number)
    train_rows, held_rows = member_rows(digits.train_labels, settings, number)
    held_out = LabelledImages(digits.train_images[held_rows], digits.train_labels[held_rows])
    held_out = held_out.to(compute.device)

    started = time.perf_counter()
    data = training_images(digits, train_rows, settings)
    if test_answers is not None:
        answers = torch.cat([functional.one_hot(data.labels, CLASSES).float(), test_answers])
        data = LabelledImages(torch.cat([data.images, digits.test_images]), answers)
    data = data.to(compute.device)
    expanded = time.perf_counter()
    training = start_training(settings, compute, len(data))
    planned_epochs = training.epochs
    epochs = train(training, data, held_out)
    logger.info("%d images to train on, %d held out", len(data), len(held_out))
    for row in watch(number, training, epochs):
        logger.info(
            "epoch %3d/%d  loss %.4f  right %6.2f %%  held out loss %.4f  right %6.2f %% %6.1f s%s",
            *(row["epoch"], training.epochs, row["train_loss"], 100 * row["train_accuracy"]),
            *(row["val_loss"], 100 * row["val_accuracy"], row["seconds"]),
            "  best" if training.best_epoch == row["epoch"] else "",
        )
    trained = time.perf_counter()

    network = training.best_network()
    temperature = calibrate(network, held_out, compute) if len(held_out) else 1.0
    answers = [
        predict_probabilities([network], images, compute, settings.views)
        for images in (held_out.images, digits.test_images.to(compute.device))
    ]
    weights = {name: w.detach().cpu().contiguous() for name, w in network.state_dict().items()}
    times = (expanded - started, trained - expanded, time.perf_counter() - trained)
    return Member(
        *(number, weights, training.history, planned_epochs),
        *(training.best_epoch, training.best_loss, temperature, held_rows, *answers),
        seconds=dict(zip(("augment", "train", "predict"), times, strict=True)),
    )
