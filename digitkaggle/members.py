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

from .augment import CLASSIC_COPIES, classic_expanded_set
from .budget import TimeBudget, share_spent
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
from .errors import TrainingError
from .interrupts import Interrupted, signals_noted
from .log import logger
from .models import cpu_weights
from .prediction import PREDICTION_BATCH, member_probabilities, predict_logits
from .screen import epoch_header, epoch_row, tell
from .settings import Settings
from .split import member_rows
from .training import (
    LabelledImages,
    number_of_epochs,
    start_training,
    train,
    train_batch_within_memory,
    validate,
)
from .training_state import Training

# Within an epoch, so much work may be lost to a kill.
SECONDS_BETWEEN_SAVES = 60.0
# What predicting took when it was tried may take so much longer when it counts.
PREDICTION_MARGIN = 1.3
# For the files and figures of a run.
WRITING_SECONDS = 5.0
NO_REFIT = "no time was left to train on all images, so the validated network is kept"


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
    settings = dataclasses.replace(settings, seed=(settings.seed + number - 1) % 2**63)
    train_rows, held_rows = member_rows(digits.train_labels, settings, number)
    held_out = LabelledImages(digits.train_images[held_rows], digits.train_labels[held_rows])
    _tell_member(number, settings, len(train_rows), len(held_rows))

    started = time.monotonic()
    data = training_images(digits, train_rows, settings, progress_bar=progress_bar)
    data = data.to(compute.device)
    tell("augment", augmentation_in_words(settings, len(data)))

    augmented = time.monotonic()
    training = work.resumed(resumed_training(training_file(folder, number), settings, compute))
    predicting = (
        PREDICTION_MARGIN
        * seconds_to_predict(training, settings, compute, digits.test_images, held_out.images)
        if budget
        else 0.0
    )

    def time_left() -> float | None:
        return budget.left() - WRITING_SECONDS - predicting if budget else None

    kept = training_file(folder, number)
    left = time_left()
    _train(training, data, held_out, settings, compute, kept, left, work, progress_bar=progress_bar)
    _tell_how_it_ended(training, number_of_epochs(settings, len(data)))
    cut = _cut_in_words(training, number_of_epochs(settings, len(data)))
    network, history = training.best_network(), training.history
    refitted = None
    if settings.refit:
        again = refit_settings(settings, training)
        kept = refit_file(folder, number)
        refitted = _refit(
            digits,
            again,
            compute,
            kept,
            time_left,
            work,
            _seconds_to_refit(training, len(digits.train_labels) / len(train_rows)),
            progress_bar=progress_bar,
        )
        if refitted is None:
            cut = "; ".join(filter(None, [cut, NO_REFIT]))
    if refitted is not None:
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


def refit_settings(settings: Settings, training: Training) -> Settings:
    """The settings of the training on all images: as many epochs as validation found best."""
    return dataclasses.replace(settings, epochs=training.best_epoch, minimum_steps=0, patience=0)


def _refit(
    digits: Digits,
    settings: Settings,
    compute: Compute,
    kept: Path,
    time_left: Callable[[], float | None],
    work: Any,
    seconds_needed: float,
    *,
    progress_bar: bool,
) -> Training | None:
    """Train a second network, of the same seed, on all images; None where time is too short."""
    rows = torch.arange(len(digits.train_labels))
    data = training_images(digits, rows, settings, progress_bar=progress_bar).to(compute.device)
    training = work.resumed(resumed_training(kept, settings, compute))
    left = time_left()
    fits = left is None or left > seconds_needed * (1 - training.epoch / settings.epochs)
    if work.agreed(fits):
        tell("refit", f"all {len(rows):,} images, {settings.epochs} epochs, none held out")
        _train(training, data, None, settings, compute, kept, left, work, progress_bar=progress_bar)
        if not training.out_of_time:
            logger.info("Keeping the last weights of the training on all images.")
            return training
    logger.warning("Out of time: %s.", NO_REFIT)
    return None


def _seconds_to_refit(validated: Training, more_images: float) -> float:
    """About how long the training on all images will take, by what the validated one took.

    Args:
        validated: done.
        more_images: how many times as many there are to train on.
    """
    seconds = sum(row["seconds"] for row in validated.history)
    return seconds * validated.best_epoch / validated.epoch * more_images


def training_images(
    digits: Digits, train_rows: torch.Tensor, settings: Settings, *, progress_bar: bool = False
) -> LabelledImages:
    """The images to train on: the rows as they are, or the classic set made of them."""
    images, labels = digits.train_images[train_rows], digits.train_labels[train_rows]
    if settings.augmentation == "expanded":
        expanded = classic_expanded_set(images, progress_bar=progress_bar)
        return LabelledImages(expanded, labels.repeat(CLASSIC_COPIES))
    return LabelledImages(images, labels)


def resumed_training(kept: Path, settings: Settings, compute: Compute) -> Training:
    """The training of a member where the state at `kept` left it, or a fresh one."""

    def take_up(state: dict[str, Any]) -> Training:
        training = start_training(settings, compute)
        training.restore(state)
        return training

    training = take_up_state(kept, take_up)
    if training is None:
        return start_training(settings, compute)
    logger.info(
        "Going on after epoch %d%s, from the checkpoint in %s.",
        training.epoch,
        f" and {len(training.losses)} steps" if training.losses else "",
        kept.parent.parent,
    )
    return training


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


def _train(
    training: Training,
    data: LabelledImages,
    held_out: LabelledImages | None,
    settings: Settings,
    compute: Compute,
    kept: Path,
    available: float | None,
    work: Any,
    *,
    progress_bar: bool,
) -> None:
    """Train to the end: a row on screen for each epoch, and a state kept whenever at rest."""
    epochs = number_of_epochs(settings, len(data))
    if epochs > settings.epochs:
        logger.info("Small data: %d epochs instead of %d.", epochs, settings.epochs)
    logger.info("\n%s", epoch_header())
    saved = time.monotonic()
    with signals_noted() as signal_number:
        work.begin(signal_number, (lambda: 0.0) if available is None else share_spent(available))
        rows = train(
            training,
            data,
            held_out,
            settings,
            compute,
            progress_bar=progress_bar,
            pause=lambda: (
                work.wants_to_end()
                or (work.keeps and time.monotonic() - saved > SECONDS_BETWEEN_SAVES)
            ),
            time_spent=work.time_spent,
            step=work.step,
            validation=work.validation,
        )
        try:
            for row in rows:
                if work.keeps:
                    keep_state(kept, training.state())
                saved = time.monotonic()
                if row:
                    best = held_out is not None and training.best_epoch == row["epoch"]
                    logger.info("%s", epoch_row(row, epochs, best=best))
                work.end_if_wanted()
        except TrainingError as error:
            if not kept.exists():
                raise
            raise TrainingError(
                f"{error}; the last good checkpoint is kept in {kept.parent}"
            ) from error


def augmentation_in_words(settings: Settings, images: int) -> str:
    """What augmentation does, for the log."""
    if settings.augmentation == "expanded":
        return f"the classic set, {CLASSIC_COPIES} versions of each: {images:,} images"
    if settings.augmentation == "affine":
        return (
            f"every image anew each epoch: turned by up to {settings.rotation:g} degrees, "
            f"shifted {settings.shift:g} pixels, zoomed {settings.zoom:.0%}, "
            f"sheared {settings.shear:g} degrees"
        )
    return "none"


def _cut_in_words(training: Training, epochs: int) -> str:
    if not training.out_of_time:
        return ""
    return f"training stopped within or after epoch {training.epoch} of {epochs}"


def _tell_member(number: int, settings: Settings, trained_on: int, held_out: int) -> None:
    if settings.members > 1:
        logger.info("\nmember %d of %d", number, settings.members)
    tell("split", f"{trained_on:,} to train on, {held_out:,} held out to validate")


def _tell_how_it_ended(training: Training, epochs: int) -> None:
    if training.out_of_time:
        logger.warning("Out of time: %s.", _cut_in_words(training, epochs))
    elif training.epoch < epochs:
        logger.info(
            "Stopped early: %d epochs without a lower validation loss.",
            training.epoch - training.best_epoch,
        )
    logger.info(
        "Keeping the weights of epoch %d of %d, the one with the lowest validation loss.",
        training.best_epoch,
        training.epoch,
    )
