"""Where members are trained: in this process, in several by joblib, or on a Dask cluster.

Each of these is an `each` of core's `run`. A member that is done is saved by the process that
trained it, so nothing is trained twice; members are yielded in whatever order they are done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ..core.basics import InputError, logger, progress
from ..core.main import on_gpu
from ..core.run import Epochs, Member, Watch
from ..core.training import Training
from .budget import TimeBudget, seconds_for_another
from .checkpoint import load_member, save_member, training_file
from .folder import CHECKPOINT

Learn = Callable[..., Member]


class WorkerError(Exception):
    """A worker died; what is done stays done."""


def learned(folder: Path, budget: TimeBudget | None, learn: Learn, number: int) -> Member | None:
    """A member from the checkpoint, or trained and saved; None if it would not be done in time."""
    if member := load_member(folder, number):
        return member
    if budget and not training_file(folder, number).exists():
        done = [member for n in range(1, number) if (member := load_member(folder, n))]
        if done and budget.left() < seconds_for_another(done):
            return None
    member = learn(number)
    save_member(folder, member)
    return member


def one_by_one(
    folder: Path, budget: TimeBudget | None, learn: Learn, numbers: Sequence[int]
) -> Iterator[Member]:
    """Members in this process, in order."""
    return finished(learned(folder, budget, learn, number) for number in numbers)


def in_jobs(
    folder: Path,
    budget: TimeBudget | None,
    jobs: int,
    threads: int,
    learn: Learn,
    numbers: Sequence[int],
) -> Iterator[Member]:
    """Members in several processes of this machine, so many at once; WorkerError if one dies."""
    in_one = partial(in_job, folder, budget, jobs, threads, os.getpid(), learn)
    tasks = (delayed(in_one)(number) for number in numbers)
    with Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs) as parallel:
        yield from finished(progress(parallel(tasks), total=len(numbers), desc="members", delay=0))


def in_job(
    folder: Path,
    budget: TimeBudget | None,
    jobs: int,
    threads: int,
    parent: int,
    learn: Learn,
    number: int,
) -> Member | None:
    """A member in a process of its own, on a GPU of its own where there are several."""
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(threads)
    for slot in range(jobs):
        try:
            # The folder stays locked for as long as one of its workers is at work in it.
            with FileLock(folder / CHECKPOINT / f"job-{slot}.lock", timeout=0):
                end_with_parent(parent)
                watch = partial(watched_by_parent, parent, learn.keywords["watch"])
                learn = partial(learn, watch=watch)
                if learn.keywords["compute"].device == torch.device("cuda"):
                    learn = partial(on_gpu, learn, gpu=slot % torch.cuda.device_count())
                return learned(folder, budget, learn, number)
        except Timeout:
            continue
    raise InputError(f"{folder / CHECKPOINT}: more jobs at work than were asked for")


def watched_by_parent(
    parent: int, watch: Watch, number: int, training: Training, epochs: Epochs
) -> Epochs:
    """A watch around another: ends the process within an epoch when its parent is gone."""
    for row in watch(number, training, epochs):
        end_with_parent(parent)
        yield row


def end_with_parent(parent: int) -> None:
    """End this process if it is an orphan."""
    if os.getppid() != parent:
        os._exit(1)


def on_cluster(
    folder: Path, address: str, threads: int, learn: Learn, numbers: Sequence[int]
) -> Iterator[Member]:
    """Members on the workers of a Dask scheduler; this process saves what arrives.

    Raises:
        InputError: there is no Dask here, or no scheduler at that address.
        WorkerError: a worker died.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--cluster needs Dask: pip install 'digitkaggle[cluster]'") from error
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from error
    saved = {number: load_member(folder, number) for number in numbers}
    yield from filter(None, saved.values())
    # A worker has no folder: a member that is cut off starts anew.
    tasks = [delayed(on_worker)(learn, n, threads) for n, member in saved.items() if not member]
    with client, parallel_config("dask", client=client):
        for member in finished(Parallel(return_as="generator_unordered")(tasks)):
            save_member(folder, member)
            yield member


def on_worker(learn: Learn, number: int, threads: int) -> Member:
    """A member on a cluster's worker."""
    torch.set_num_threads(threads)
    return learn(number)


def finished(results: Iterable[Member | None]) -> Iterator[Member]:
    """The members that are done; None is one for which time was too short, which is said."""
    try:
        for member in results:
            if member is None:
                logger.warning("Out of time: a member is left out.")
            else:
                yield member
    except TerminatedWorkerError as error:
        advice = "members that are done are saved: give the same command again"
        raise WorkerError(f"a worker died; {advice}") from error
