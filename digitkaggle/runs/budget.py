"""A time budget: fewer epochs and members, so that the submission is still written in time."""

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
# Prediction may take longer by this factor than its trial did.
SAFETY_FACTOR = 1.3
# Reserved for the files and figures of a run.
WRITING_SECONDS = 5.0


@dataclass(frozen=True)
class TimeBudget:
    """A number of seconds from `started` on, a moment of `time.monotonic`."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds that remain to train and predict; negative when it is overrun."""
        return self.started + self.seconds - time.monotonic() - WRITING_SECONDS


def parse_duration(text: str) -> float:
    """The seconds of a duration such as `90s`, `45m` or `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text, re.ASCII)
    seconds = float(match[1]) * UNIT_SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= 1000 * 3600:
        raise InputError(f"{text!r} is not a duration: write 90s, 45m or 2h")
    return seconds


def fit_epochs(budget: TimeBudget, images: int, training: Training, epochs: Epochs) -> Epochs:
    """Wrap a member's epochs: plan only as many as leave time to predict N images."""
    predicting = 0.0
    for row in epochs:
        yield row
        predicting = predicting or estimate_prediction_seconds(images, training)
        plan = count_fitting_epochs(training, budget.left() - predicting)
        if plan < training.epochs:
            logger.info("Time is short: %d epochs in place of %d.", plan, training.epochs)
            training.epochs = plan


def estimate_prediction_seconds(images: int, training: Training) -> float:
    """The longest that all views of N images may take, measured on a batch of blank images."""
    batch = torch.zeros(PREDICTION_BATCH, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    started = time.perf_counter()
    predict_logits(training.network, batch, training.compute).cpu()
    batches = training.settings.views * images / PREDICTION_BATCH
    return SAFETY_FACTOR * batches * (time.perf_counter() - started)


def count_fitting_epochs(training: Training, seconds: float) -> int:
    """The number of epochs, with those done, that fit if the others take time like them."""
    sizes, done = training.settings.image_sizes, training.epoch
    spent = sum(row["seconds"] for row in training.history)
    rate = spent / sum(compute_areas(sizes, training.epochs)[:done])
    for plan in range(training.epochs, done, -1):
        if rate * sum(compute_areas(sizes, plan)[done:]) <= seconds:
            return plan
    return done


def compute_areas(sizes: Sequence[int], epochs: int) -> list[float]:
    """The mean area of the images in each epoch, to which its time is proportional."""
    # Each size has an equal share of the training, so an epoch is split into as many equal parts.
    return np.square(sizes).repeat(epochs).reshape(epochs, -1).mean(axis=1).tolist()


def sum_seconds(member: Member) -> float:
    """The seconds a member took, including epochs before a resume."""
    epochs = sum(row["seconds"] for row in member.history)
    return epochs + member.seconds["augment"] + SAFETY_FACTOR * member.seconds["predict"]


def describe_cut(members: Sequence[Member], settings: Settings) -> str:
    """What the time budget left out; empty if nothing."""
    parts = []
    for member in members:
        epochs = len(member.history)
        out_of_patience = 0 < settings.patience <= epochs - member.best_epoch
        if epochs < member.planned_epochs and not out_of_patience:
            parts.append(f"member {member.number}: {epochs} of {member.planned_epochs} epochs")
    if len(members) < settings.members:
        parts.append(f"{len(members)} of {settings.members} members are trained")
    return "; ".join(parts)
