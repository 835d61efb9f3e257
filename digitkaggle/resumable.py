"""A training that may be cut off: its state is kept whenever it rests, and taken up again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .budget import share_spent
from .checkpoint import keep_state, take_up_state
from .device import Compute
from .errors import TrainingError
from .interrupts import signals_noted
from .log import logger
from .screen import epoch_header, epoch_row
from .settings import Settings
from .training import number_of_epochs, start_training, train
from .training_set import LabelledImages
from .training_state import Training

# Within an epoch, so much work may be lost to a kill.
SECONDS_BETWEEN_SAVES = 60.0


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


def train_and_keep(
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
    """Train to the end: a row on screen for each epoch, and a state kept whenever at rest.

    Args:
        training, data, held_out: as `train` takes them.
        kept: where the state is kept.
        available: seconds that there are; None is no limit.
        work: a OneProcess or a SharedTraining.
        progress_bar: show one for each epoch.

    Raises:
        TrainingError: the loss is no number any more; the last good state is kept.
        InputError: the state cannot be written, or the device has too little memory.
        Interrupted: Ctrl-C or SIGTERM came; the step was finished and kept.
    """
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
