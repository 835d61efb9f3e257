"""The full run in a folder: claimed, gone on with, trained, written."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..core.basics import VERSION, Digits, logger
from ..core.device import choose_compute
from ..core.main import warn
from ..core.results import SUBMISSION, accuracy, run_metrics, write_file, write_results
from ..core.run import Epochs, run, unwatched
from ..core.settings import Settings
from ..core.split import member_rows
from ..core.training import Training
from .budget import TimeBudget, cut_in_words, shortened
from .checkpoint import resumed
from .folder import (
    MEMBERS,
    SAMPLE_SUBMISSION,
    begin_run,
    claimed_folder,
    default_folder,
    drop_checkpoint,
    is_finished,
    run_identity,
    source_digest,
)
from .jobs import in_jobs, on_cluster, one_by_one


def run_in_folder(
    settings: Settings,
    digits: Digits,
    *,
    out: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    jobs: int = 1,
    threads: int | None = None,
    cluster: str = "",
    budget: TimeBudget | None = None,
) -> Path:
    """Do the full run and leave its files in a folder; a run that was cut off goes on.

    Args:
        out: the run's folder; None takes the usual one, or the next free one beside it.
        device: as core's `choose_compute`.
        fresh: start anew even where the same run is finished or begun.
        jobs: members at once on this machine, a process each; 0: one a GPU.
        threads: of each process; None: all cores, shared by the jobs.
        cluster: a Dask scheduler's address, on whose workers members are trained.
        budget: training stops so that the submission still fits in.

    Raises:
        InputError: a folder that holds another run or is another's at the moment, a device that
            does not work, a file that cannot be written.
        TrainingError: the loss went to NaN; the checkpoint of the last good epoch is kept.
        WorkerError: a process of the run died; the same command goes on.
    """
    started = time.perf_counter()
    compute = choose_compute(settings, device)
    logger.info("digitkaggle %s, preset %s, seed %d", VERSION, settings.preset, settings.seed)
    logger.debug("%s", json.dumps(vars(settings)))
    logger.info("%s, %s: %s", compute.device, compute.dtype, compute.reason)
    warn(compute)
    learn_from, predict = len(digits.train_images), len(digits.test_images)
    logger.info("%s: %d images to learn from, %d to predict", digits.origin, learn_from, predict)
    member_rows(digits.train_labels, settings, 1)  # data too few to split are refused here
    identity = run_identity(settings, digits.digest(), source_digest())
    default = default_folder(settings, digits)
    with claimed_folder(identity, default, out, fresh=fresh) as folder:
        if is_finished(folder, identity) and not fresh:
            logger.info("This very run is finished in %s; --fresh would do it anew.", folder)
            return folder
        begin_run(folder, identity, fresh=fresh)
        jobs = min(jobs or max(1, torch.cuda.device_count()), settings.members)
        threads = threads or max(1, torch.get_num_threads() // jobs)
        watch, each = partial(watched, folder, budget, learn_from + predict), one_by_one
        if cluster:
            watch, each = unwatched, partial(on_cluster, folder, cluster, threads)
        elif jobs > 1:
            each = partial(in_jobs, folder, budget, jobs, threads)
        else:
            torch.set_num_threads(threads)
            each = partial(one_by_one, folder, budget)
        result = run(settings, digits, compute, watch=watch, each=each)
        sample = digits.test_labels is not None
        seconds = {"total": time.perf_counter() - started}
        metrics = run_metrics(result, digits, identity["source"]["digest"], seconds)
        if sample:
            labels = digits.test_labels.numpy()
            metrics["test"] = accuracy(result.probabilities.numpy(), labels)
        cut = cut_in_words(result.members, settings)
        if budget or cut:
            # Cut off, but gone on with without a budget: a command before this one had it.
            metrics["time_budget"] = {"seconds": budget.seconds if budget else None, "cut": cut}
            over = -budget.left() if budget else 0
            if over > 0:
                logger.warning("The time budget is overrun by %.0f s.", over)
        if settings.members > 1:
            said = np.stack([member.probabilities.argmax(1).byte() for member in result.members])
            write_file(folder / MEMBERS, lambda file: np.savez(file, digits=said))
        name = SAMPLE_SUBMISSION if sample else SUBMISSION
        write_results(folder, result, digits, metrics, submission=name)
        drop_checkpoint(folder)
        warn(compute)
    return folder


def watched(
    folder: Path,
    budget: TimeBudget | None,
    images: int,
    number: int,
    training: Training,
    epochs: Epochs,
) -> Epochs:
    """The watch of a run in a folder: saved after every epoch, and shortened if time is short."""
    epochs = resumed(folder, number, training, epochs)
    return shortened(budget, images, number, training, epochs) if budget else epochs
