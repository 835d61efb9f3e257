"""The run.

All of it in order: split, augment, train, predict, for every member. A member depends on the data,
the settings and its number alone, so wherever it is trained it is the same; on a GPU, nearly.
`best` trains ten, each of which holds out another tenth of the images, and averages what they
say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .basics import Compute, Digits, LabelledImages, keep_freed_memory, logger
from .prediction import predict_probabilities
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

    @property
    def probabilities(self) -> Tensor:
        """The mean of the members', float32, test images x 10; added in order: the same bytes."""
        first, *others = [member.probabilities for member in self.members]
        return sum(others, start=first) / len(self.members)


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
    members = []
    for member in each(learn, range(1, settings.members + 1)):
        members.append(member)
        wrong = member.held_probabilities.argmax(dim=1) != digits.train_labels[member.held_rows]
        logger.info(
            "member %d of %d: %d of %d held-out images wrong, weights of epoch %d of %d, %.0f s",
            *(member.number, settings.members, wrong.sum(), len(wrong), member.best_epoch),
            *(len(member.history), member.seconds["train"]),
        )
    keep_freed_memory(False)
    return Result(settings, compute, sorted(members, key=lambda member: member.number))


def train_member(
    number: int, settings: Settings, digits: Digits, compute: Compute, watch: Watch = unwatched
) -> Member:
    """Train one member of a run, from 1, to its end, and let it predict."""
    settings = member_settings(settings, number)
    train_rows, held_rows = member_rows(digits.train_labels, settings, number)
    held_out = LabelledImages(digits.train_images[held_rows], digits.train_labels[held_rows])
    held_out = held_out.to(compute.device)

    started = time.perf_counter()
    data = training_images(digits, train_rows, settings).to(compute.device)
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
    answers = [
        predict_probabilities([network], images, compute, settings.views)
        for images in (held_out.images, digits.test_images.to(compute.device))
    ]
    weights = {name: w.detach().cpu().contiguous() for name, w in training.best_weights.items()}
    times = (expanded - started, trained - expanded, time.perf_counter() - trained)
    return Member(
        *(number, weights, training.history, planned_epochs),
        *(training.best_epoch, training.best_loss, held_rows, *answers),
        seconds=dict(zip(("augment", "train", "predict"), times, strict=True)),
    )
