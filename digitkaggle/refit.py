"""The training on all images that may follow the validated one: a new network of the same seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .data import Digits
from .device import Compute
from .log import logger
from .resumable import resumed_training, train_and_keep
from .screen import tell
from .settings import Settings
from .training_set import training_images
from .training_state import Training

NO_REFIT = "no time was left to train on all images, so the validated network is kept"


def refit_settings(settings: Settings, validated: Training) -> Settings:
    """The settings of the training on all images: as many epochs as validation found best."""
    return dataclasses.replace(settings, epochs=validated.best_epoch, minimum_steps=0, patience=0)


def seconds_to_refit(validated: Training, more_images: float) -> float:
    """About how long the training on all images will take, by what the validated one took.

    Args:
        validated: done.
        more_images: how many times as many there are to train on.
    """
    seconds = sum(row["seconds"] for row in validated.history)
    return seconds * validated.best_epoch / validated.epoch * more_images


def refitted_training(
    validated: Training,
    trained_on: int,
    digits: Digits,
    settings: Settings,
    compute: Compute,
    kept: Path,
    time_left: Callable[[], float | None],
    work: Any,
    *,
    progress_bar: bool,
) -> Training | None:
    """Train a network on all images, none held out; None where time is too short for it.

    Args:
        validated: the training that said for how many epochs; done.
        trained_on: how many of the images it had.
        digits: all of them.
        settings: those of the validated training.
        compute: where to train.
        kept: where the state is kept.
        time_left: seconds that there are still; None is no limit.
        work: a OneProcess or a SharedTraining.
        progress_bar: show one for each epoch.

    Raises:
        TrainingError, InputError, Interrupted: as `train_and_keep`.
    """
    settings = refit_settings(settings, validated)
    rows = torch.arange(len(digits.train_labels))
    seconds = seconds_to_refit(validated, len(rows) / trained_on)
    data = training_images(digits, rows, settings, progress_bar=progress_bar).to(compute.device)
    training = work.resumed(resumed_training(kept, settings, compute))
    left = time_left()
    fits = left is None or left > seconds * (1 - training.epoch / settings.epochs)
    if work.agreed(fits):
        tell("refit", f"all {len(rows):,} images, {settings.epochs} epochs, none held out")
        train_and_keep(
            training, data, None, settings, compute, kept, left, work, progress_bar=progress_bar
        )
        if not training.out_of_time:
            logger.info("Keeping the last weights of the training on all images.")
            return training
    logger.warning("Out of time: %s.", NO_REFIT)
    return None
