"""The full run in a folder: claimed, gone on with, trained, written."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..core.basics import VERSION, Digits, logger
from ..core.data import kaggle_folder, on_kaggle
from ..core.device import choose_compute
from ..core.main import warn
from ..core.results import SUBMISSION, accuracy, run_metrics, write_file, write_results
from ..core.run import Epochs, Result, run, unwatched
from ..core.settings import Settings
from ..core.split import member_rows
from ..core.training import Training
from . import folder as folders
from .budget import TimeBudget, cut_in_words, shortened
from .checkpoint import resumed
from .jobs import in_jobs, learned, on_cluster, one_by_one


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
        fresh: start anew even where the same run is finished or begun.
        jobs: members at once on this machine, a process each; 0: one a GPU.
        threads: of each process; None: all cores, shared out.
        cluster: a Dask scheduler's address, on whose workers members are trained.

    Raises:
        InputError: a folder that holds another run or is another's at the moment, a device that
            does not work, a file that cannot be written, a loss that went to NaN.
        TerminatedWorkerError: joblib's: a process of the run died; the same command goes on.
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
    source = folders.source_digest()
    identity = folders.run_identity(vars(settings), digits.digest(), source)
    sample = "" if digits.test_labels is None else "-sample"
    usual = folders.RUNS / f"{settings.preset}{sample}"
    named = out or (kaggle_folder("working") if on_kaggle() else None)
    with folders.claimed_folder(identity, usual, named, fresh=fresh) as folder:
        done = folders.is_finished(folder) and folders.identity_in(folder) == identity
        if done and not fresh:
            logger.info("This very run is finished in %s; --fresh would do it anew.", folder)
            return folder
        folders.begin_run(folder, identity, fresh=fresh)
        jobs = min(jobs or max(1, torch.cuda.device_count()), settings.members)
        threads = threads or max(1, torch.get_num_threads() // jobs)
        keep = partial(learned, folder, budget)

        def watch(number: int, training: Training, epochs: Epochs) -> Epochs:
            epochs, images = resumed(folder, number, training, epochs), learn_from + predict
            return shortened(budget, images, training, epochs) if budget else epochs

        if cluster:
            watch, each = unwatched, partial(on_cluster, folder, cluster, threads)
        elif jobs > 1:
            each = partial(in_jobs, keep, jobs, threads)
        else:
            torch.set_num_threads(threads)
            each = partial(one_by_one, keep)
        result = run(settings, digits, compute, watch=watch, each=each)
        metrics = run_metrics(result, digits, source, {"total": time.perf_counter() - started})
        write_run(folder, result, digits, metrics, budget)
        warn(compute)
    return folder


def write_run(
    folder: Path, result: Result, digits: Digits, metrics: dict, budget: TimeBudget | None
) -> None:
    """Write what a run leaves, say what the time budget cut off, and drop the checkpoint."""
    if cut := cut_in_words(result.members, result.settings):
        logger.warning("Time was short: %s.", cut)
        # Maybe without a budget: a command that this one went on with had it.
        metrics["time_budget"] = {"seconds": budget and budget.seconds, "cut": cut}
    if budget and budget.left() < 0:
        logger.warning("The time budget is overrun by %.0f s.", -budget.left())
    submission = SUBMISSION
    if digits.test_labels is not None:
        submission, labels = folders.SAMPLE_SUBMISSION, digits.test_labels.numpy()
        metrics["test"] = accuracy(result.probabilities.numpy(), labels)
    if result.settings.members > 1:
        said = np.stack([member.probabilities.argmax(1).byte() for member in result.members])
        write_file(folder / folders.MEMBERS, lambda file: np.savez(file, digits=said))
    write_results(folder, result, digits, metrics, submission)
    folders.drop_checkpoint(folder)
