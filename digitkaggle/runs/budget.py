"""A time budget: epochs and members are left out so that the submission still fits in."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..core.basics import IMAGE_SIZE, InputError, logger
from ..core.run import Member
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


def process_age() -> float:
    """Seconds since this process started, imports included; 0 where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, LookupError, AttributeError):
        return 0.0
    return age if 0 <= age < 300 else 0.0  # some containers tell the time of another start


def shortened(
    budget: TimeBudget,
    images: int,
    number: int,
    training: Training,
    epochs: Iterator[dict[str, float]],
) -> Iterator[dict[str, float]]:
    """A watch: after each epoch, plan as many as fit in; the first one always runs.

    Args:
        images: how many the member will predict, each in all views.
    """
    predicting = 0.0
    for row in epochs:
        yield row
        if not predicting:
            batch = torch.zeros(PREDICTION_BATCH, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
            started = time.perf_counter()
            predict_logits(training.network, batch, training.compute).cpu()
            batches = training.settings.views * images / PREDICTION_BATCH
            predicting = MARGIN * batches * (time.perf_counter() - started)
        plan = epochs_that_fit(training, budget.left() - predicting)
        if plan < training.epochs:
            logger.info("Time is short: %d epochs in place of %d.", plan, training.epochs)
            training.epochs = plan


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
    steps = 60  # an epoch, enough for the mean
    shares = [(step + 0.5) / (epochs * steps) for step in range(epochs * steps)]
    squares = [sizes[int(share * len(sizes))] ** 2 for share in shares]
    return [sum(squares[start : start + steps]) / steps for start in range(0, len(squares), steps)]


def seconds_for_another(members: Sequence[Member]) -> float:
    """Seconds that one more member may need."""
    return max(
        sum(row["seconds"] for row in member.history)
        + member.seconds["augment"]
        + MARGIN * member.seconds["predict"]
        for member in members
    )


def cut_in_words(members: Sequence[Member], settings: Settings) -> str:
    """What the time budget cut off, in words; nothing is the empty text."""
    parts = []
    for member in members:
        epochs = len(member.history)
        patient = not 0 < settings.patience <= epochs - member.best_epoch
        if epochs < member.planned_epochs and patient:
            parts.append(f"member {member.number}: {epochs} of {member.planned_epochs} epochs")
    if len(members) < settings.members:
        parts.append(f"{len(members)} of {settings.members} members are trained")
    return "; ".join(parts)
