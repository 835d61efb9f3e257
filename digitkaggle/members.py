"""The members of a run, trained one by one: each is kept once done, and goes on when cut off."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .budget import TimeBudget
from .checkpoint import (
    drop_state,
    keep_state,
    member_file,
    refit_file,
    take_up_state,
    training_file,
)
from .data import Digits
from .device import Compute
from .interrupts import Interrupted
from .log import logger
from .models import cpu_weights
from .prediction import PREDICTION_BATCH, member_probabilities, predict_logits
from .refit import NO_REFIT, refitted_training
from .resumable import resumed_training, train_and_keep
from .screen import augmentation_in_words, cut_in_words, tell, tell_how_it_ended, tell_member
from .settings import Settings, member_settings
from .split import member_rows
from .training import number_of_epochs, train_batch_within_memory, validate
from .training_set import LabelledImages, training_images
from .training_state import Training

# What predicting took when it was tried may take so much longer when it counts.
PREDICTION_MARGIN = 1.3
# For the files and figures of a run.
WRITING_SECONDS = 5.0


@dataclass(frozen=True)
class Member:
    """A network that is trained, and all that the run wants of it."""

    number: int  # from 1
    weights: dict[str, torch.Tensor]  # of its best epoch, or refitted; on the CPU
    history: list[dict[str, float]]  # of the refit too, whose figures of validation are NaN
    best_epoch: int
    best_loss: float
    cut: str  # what the time budget cut off, in words
    held_rows: torch.Tensor  # int64, n: of the training images
    held_probabilities: torch.Tensor  # float32, n x 10, by the validated network
    probabilities: torch.Tensor  # float32, test images x 10
    seconds: dict[str, float]  # of augmentation, training and prediction

    @property
    def validated_epochs(self) -> int:
        """How many epochs were validated."""
        return sum(not math.isnan(row["val_loss"]) for row in self.history)

    @property
    def refit_epochs(self) -> int:
        """How many epochs on all images made the weights; 0: they are the validated ones."""
        return len(self.history) - self.validated_epochs


class OneProcess:
    """How one process trains a member; `SharedTraining` has the same methods for several.

    Args:
        trouble: asked after each step for what should end the work; it is raised once all is saved.
    """

    keeps = True  # whether this process keeps states, and predicts

    def __init__(self, trouble: Callable[[], Exception | None] = lambda: None) -> None:
        self.trouble = trouble
        self.step, self.validation = train_batch_within_memory, validate

    def begin(self, signal_number: Callable[[], int], time_spent: Callable[[], float]) -> None:
        """Ask these after each step: the signal that came, the share of the time that is spent."""
        self.time_spent, self.signal_number = time_spent, signal_number

    def wants_to_end(self) -> bool:
        """Whether the training shall come to rest, and end."""
        return bool(self.signal_number() or self.trouble())

    def end_if_wanted(self) -> None:
        """Raise why the training ends here, if it does."""
        if self.signal_number():
            raise Interrupted(self.signal_number())
        if trouble := self.trouble():
            raise trouble

    def agreed(self, value: Any) -> Any:
        """What all processes take for true: here, what this one does."""
        return value

    def resumed(self, training: Training) -> Training:
        """The training that all go on with."""
        return training


def train_members(
    digits: Digits,
    settings: Settings,
    compute: Compute,
    folder: Path,
    *,
    budget: TimeBudget | None = None,
    progress_bar: bool = False,
) -> list[Member]:
    """Train all members of a run, or take up those that the folder's checkpoint has.

    With a time budget there may be fewer: none is begun that would not be done in time, the first
    excepted, whose training is shortened.

    Raises:
        InputError, TrainingError, Interrupted: as `train_member`.
    """
    members: list[Member] = []
    for number in range(1, settings.members + 1):
        member = kept_member(folder, number)
        if member is None:
            begun = training_file(folder, number).exists()
            if members and budget and not begun and budget.left() < time_for_another(members):
                logger.warning(
                    "Out of time: %d of %d members are trained.", len(members), settings.members
                )
                break
            member = train_member(
                number, digits, settings, compute, folder, budget=budget, progress_bar=progress_bar
            )
            keep_member(folder, member)
        else:
            logger.info("Member %d is trained: taken from the checkpoint in %s.", number, folder)
        members.append(member)
    return members


def keep_member(folder: Path, member: Member) -> None:
    """Keep a member that is trained; what its training kept goes."""
    keep_state(member_file(folder, member.number), dataclasses.asdict(member))
    for file in (training_file, refit_file):
        drop_state(file(folder, member.number))


def kept_member(folder: Path, number: int) -> Member | None:
    """A member that was trained before the run was cut off, if it was."""
    return take_up_state(member_file(folder, number), lambda state: Member(**state))


def time_for_another(members: list[Member]) -> float:
    """Seconds that one more member will need, and the run after it."""
    longest = max(
        sum(row["seconds"] for row in member.history)
        + member.seconds["augment"]
        + PREDICTION_MARGIN * member.seconds["predict"]
        for member in members
    )
    return longest + WRITING_SECONDS


def train_member(
    number: int,
    digits: Digits,
    settings: Settings,
    compute: Compute,
    folder: Path,
    *,
    budget: TimeBudget | None = None,
    progress_bar: bool = False,
    work: Any = None,
) -> Member | None:
    """Train one member of a run to its end, from the folder's checkpoint if it was cut off there.

    It depends on the data, the settings and its number alone, not on other members.

    Args:
        work: how; a OneProcess if it is None, or a SharedTraining, of whose ranks one gets the
            member and the others None.

    Raises:
        TrainingError: the loss is no number any more; the last good checkpoint is kept.
        InputError: the checkpoint cannot be written, or the device has too little memory.
        Interrupted: Ctrl-C or SIGTERM came; the step was finished and saved.
    """
    work = work or OneProcess()
    settings = member_settings(settings, number)
    train_rows, held_rows = member_rows(digits.train_labels, settings, number)
    held_out = LabelledImages(digits.train_images[held_rows], digits.train_labels[held_rows])
    tell_member(number, settings, len(train_rows), len(held_rows))

    started = time.monotonic()
    data = training_images(digits, train_rows, settings, progress_bar=progress_bar)
    data = data.to(compute.device)
    tell("augment", augmentation_in_words(settings, len(data)))

    augmented = time.monotonic()
    kept, epochs = training_file(folder, number), number_of_epochs(settings, len(data))
    training = work.resumed(resumed_training(kept, settings, compute))
    predicting = (
        PREDICTION_MARGIN
        * seconds_to_predict(training, settings, compute, digits.test_images, held_out.images)
        if budget
        else 0.0
    )

    def time_left() -> float | None:
        return budget.left() - WRITING_SECONDS - predicting if budget else None

    left = time_left()
    train_and_keep(
        training, data, held_out, settings, compute, kept, left, work, progress_bar=progress_bar
    )
    tell_how_it_ended(training, epochs)
    cut = cut_in_words(training, epochs)
    network, history = training.best_network(), training.history
    refitted = None
    if settings.refit:
        refitted = refitted_training(
            training,
            len(train_rows),
            digits,
            settings,
            compute,
            refit_file(folder, number),
            time_left,
            work,
            progress_bar=progress_bar,
        )
        if refitted is None:
            cut = "; ".join(filter(None, [cut, NO_REFIT]))
        else:
            rows = [row | {"epoch": training.epoch + row["epoch"]} for row in refitted.history]
            history = [*history, *rows]

    if not work.keeps:
        return None

    trained = time.monotonic()
    held_probabilities, probabilities = (
        member_probabilities(judge, images, compute, settings.views, progress_bar=progress_bar)
        for judge, images in (
            (network, held_out.images),
            (refitted.best_network() if refitted else network, digits.test_images),
        )
    )
    return Member(
        number=number,
        weights=cpu_weights((refitted or training).best_weights),
        history=history,
        best_epoch=training.best_epoch,
        best_loss=training.best_loss,
        cut=cut,
        held_rows=held_rows,
        held_probabilities=held_probabilities,
        probabilities=probabilities,
        seconds={
            "augment": augmented - started,
            "train": trained - augmented,
            "predict": time.monotonic() - trained,
        },
    )


def seconds_to_predict(
    training: Training, settings: Settings, compute: Compute, *stacks: torch.Tensor
) -> float:
    """About how long the predictions of these images will take, and one more validation."""
    batch = stacks[0][:PREDICTION_BATCH]
    for _ in range(2):  # the first try takes longer
        started = time.monotonic()
        predict_logits(training.network, batch, compute).cpu()
        seconds = time.monotonic() - started
    images = (settings.views * sum(map(len, stacks)) + len(stacks[-1])) / len(batch)
    return seconds * images
