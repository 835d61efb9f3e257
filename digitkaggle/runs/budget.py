"""A time budget: epochs and members are left out so that the submission still fits in."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..core.basics import IMAGE_SIZE, InputError, logger
from ..core.run import Epochs, Member
from ..core.settings import Settings
from ..core.training import PREDICTION_BATCH, Training, predict_logits

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
# What predicting took when it was tried may take so much longer when it counts.
MARGIN = 1.3
# For the files and figures of a run.
WRITING_SECONDS = 5.0


@dataclass(frozen=True)
class TimeBudget:
    """So many seconds from `started`, a moment of `time.time`, on."""

    seconds: float
    started: float = field(default_factory=time.time)

    def left(self) -> float:
        """Seconds that remain to train and predict; negative when it is overdrawn."""
        return self.started + self.seconds - time.time() - WRITING_SECONDS


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `45m` or `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text, re.ASCII)
    seconds = float(match[1]) * UNIT_SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= 1000 * 3600:
        raise InputError(f"{text!r} is no time to train in: write 90s, 45m or 2h")
    return seconds


def shortened(budget: TimeBudget, images: int, training: Training, epochs: Epochs) -> Epochs:
    """After each epoch, plan as many as fit in before the network predicts so many images."""
    predicting = 0.0
    for row in epochs:
        yield row
        predicting = predicting or seconds_to_predict(images, training)
        plan = epochs_that_fit(training, budget.left() - predicting)
        if plan < training.epochs:
            logger.info("Time is short: %d epochs in place of %d.", plan, training.epochs)
            training.epochs = plan


def seconds_to_predict(images: int, training: Training) -> float:
    """What all views of so many images will take at most, by what a batch of blank ones takes."""
    batch = torch.zeros(PREDICTION_BATCH, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    started = time.perf_counter()
    predict_logits(training.network, batch, training.compute).cpu()
    batches = training.settings.views * images / PREDICTION_BATCH
    return MARGIN * batches * (time.perf_counter() - started)


def epochs_that_fit(training: Training, seconds: float) -> int:
    """How many epochs fit in, those that are done included, by what these took."""
    sizes, done = training.settings.image_sizes, training.epoch
    spent = sum(row["seconds"] for row in training.history)
    rate = spent / sum(areas(sizes, training.epochs)[:done])
    for plan in range(training.epochs, done, -1):
        if rate * sum(areas(sizes, plan)[done:]) <= seconds:
            return plan
    return done


def areas(sizes: Sequence[int], epochs: int) -> list[float]:
    """The mean area of the images of each of so many epochs, for their time goes with it."""
    # Each size has an equal share of the training: in parts that are equal, as many an epoch.
    return np.square(sizes).repeat(epochs).reshape(epochs, -1).mean(axis=1).tolist()


def seconds_of(member: Member) -> float:
    """What a member took, the epochs before it was gone on with included."""
    epochs = sum(row["seconds"] for row in member.history)
    return epochs + member.seconds["augment"] + MARGIN * member.seconds["predict"]


def cut_in_words(members: Sequence[Member], settings: Settings) -> str:
    """What the time budget cut off, in words; nothing is the empty text."""
    parts = []
    for member in members:
        epochs = len(member.history)
        out_of_patience = 0 < settings.patience <= epochs - member.best_epoch
        if epochs < member.planned_epochs and not out_of_patience:
            parts.append(f"member {member.number}: {epochs} of {member.planned_epochs} epochs")
    if len(members) < settings.members:
        parts.append(f"{len(members)} of {settings.members} members are trained")
    return "; ".join(parts)
