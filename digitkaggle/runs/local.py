"""The full run in a folder: lock it, resume, train, write the results."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..core.basics import VERSION, Digits, logger
from ..core.device import choose_compute
from ..core.kaggle import get_kaggle_folder, on_kaggle
from ..core.main import warn_without_gpu
from ..core.results import (
    SUBMISSION,
    collect_metrics,
    compute_data_digest,
    measure_accuracy,
    write_file,
    write_results,
)
from ..core.run import Epochs, Result, run
from ..core.settings import Settings
from ..core.split import split_for_member
from ..core.training import Training
from . import folder as folders
from .budget import TimeBudget, describe_cut, fit_epochs
from .checkpoint import resume_epochs
from .finished import build_model
from .jobs import load_or_train, map_here, map_in_jobs, map_on_cluster
from .source import compute_source_digest
from .strangeness import fit_strangeness


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
    """Do the full run and leave its files in a folder; resume an interrupted run.

    Args:
        out: the run's folder; None takes the default one, or the next free one beside it.
        fresh: start again even where the same run is finished or begun.
        jobs: members at once on this machine, a process each; 0: one per GPU.
        threads: per process; None: all cores, shared equally.
        cluster: the address of a Dask scheduler, whose workers train the members.

    Raises:
        InputError: the folder holds another run or is in use, the device does not work, a file
            cannot be written, or the loss is NaN.
        TerminatedWorkerError: joblib's: a process of the run died; the same command resumes.
    """
    started = time.perf_counter()
    compute = choose_compute(settings, device)
    logger.info("digitkaggle %s, preset %s, seed %d", VERSION, settings.preset, settings.seed)
    logger.debug("%s", json.dumps(vars(settings)))
    logger.info("%s, %s: %s", compute.device, compute.dtype, compute.reason)
    warn_without_gpu(compute)
    images = len(digits.train_images), len(digits.test_images)
    logger.info("%s: %d images to train on, %d to predict", digits.origin, *images)
    split_for_member(digits.train_labels, settings, 1)  # refuses too few images before anything
    source_digest = compute_source_digest()
    identity = folders.make_identity(vars(settings), compute_data_digest(digits), source_digest)
    suffix = "" if digits.test_labels is None else "-sample"
    default = folders.RUNS / f"{settings.preset}{suffix}"
    explicit = out or (get_kaggle_folder("working") if on_kaggle() else None)
    with folders.lock_run_folder(identity, default, explicit, fresh=fresh) as folder:
        finished = folders.is_finished(folder) and folders.read_identity(folder) == identity
        if finished and not fresh:
            logger.info("This run is already finished in %s; --fresh runs it again.", folder)
            return folder
        folders.start_run(folder, identity, fresh=fresh)
        jobs = min(jobs or max(1, torch.cuda.device_count()), settings.members)
        threads = threads or max(1, torch.get_num_threads() // jobs)
        load_or_train_here = partial(load_or_train, folder, budget)

        def wrap_epochs(number: int, training: Training, epochs: Epochs) -> Epochs:
            epochs = resume_epochs(folder, number, training, epochs)
            return fit_epochs(budget, sum(images), training, epochs) if budget else epochs

        if cluster:
            map_members = partial(map_on_cluster, folder, cluster, threads)
        elif jobs > 1:
            map_members = partial(map_in_jobs, load_or_train_here, compute, jobs, threads)
        else:
            torch.set_num_threads(threads)
            map_members = partial(map_here, load_or_train_here)
        result = run(
            settings,
            digits,
            compute,
            # A cluster's worker does not have the folder.
            wrap_epochs=None if cluster else wrap_epochs,
            map_members=map_members,
        )
        seconds = {"total": time.perf_counter() - started}
        metrics = collect_metrics(result, digits, source_digest, seconds)
        write_run(folder, result, digits, metrics, budget)
        warn_without_gpu(compute)
    return folder


def write_run(
    folder: Path, result: Result, digits: Digits, metrics: dict, budget: TimeBudget | None
) -> None:
    """Write a run's files, log what the time budget left out, and delete the checkpoint."""
    if cut := describe_cut(result.members, result.settings):
        logger.warning("Time was short: %s.", cut)
        # Maybe without a budget: an interrupted command, which this one resumed, had it.
        metrics["time_budget"] = {"seconds": budget and budget.seconds, "cut": cut}
    if budget and budget.left() < 0:
        logger.warning("The time budget is overrun by %.0f s.", -budget.left())
    submission = SUBMISSION
    if digits.test_labels is not None:
        submission, labels = folders.SAMPLE_SUBMISSION, digits.test_labels.numpy()
        metrics["test"] = measure_accuracy(result.probabilities.numpy(), labels)
    if result.settings.members > 1:
        stacked = np.stack([member.probabilities.numpy() for member in result.members])
        digits_of_members = stacked.argmax(axis=2).astype(np.uint8)
        write_file(
            folder / folders.MEMBERS,
            lambda file: np.savez_compressed(file, digits=digits_of_members, probabilities=stacked),
        )
    first = result.members[0]
    model = build_model(result.settings, {first.number: first.weights}, result.compute)
    statistics = fit_strangeness(model, digits, first.held_out_rows)
    write_file(folder / folders.STRANGENESS, lambda file: np.savez(file, **statistics))
    write_results(folder, result, digits, metrics, submission)
    folders.delete_checkpoint(folder)
