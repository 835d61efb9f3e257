"""Where members are trained: in this process, in several by joblib, or on a Dask cluster.

Each of these is an `each` of core's `run`. A member that is done is saved by the process that
trained it, so nothing is trained twice; members are yielded in whatever order they are done.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ..core.basics import InputError, logger, progress
from ..core.device import Compute
from ..core.run import Member
from ..core.training import Training
from .budget import TimeBudget, seconds_for_another
from .checkpoint import load_member, member_file, save_member, training_file
from .folder import CHECKPOINT

Learn = Callable[..., Member]


class WorkerError(Exception):
    """A worker died; what is done stays done."""


def one_by_one(
    folder: Path, budget: TimeBudget | None, learn: Learn, numbers: Sequence[int]
) -> Iterator[Member]:
    """Members in this process, in order."""
    members: list[Member] = []
    for number in numbers:
        member = load_member(folder, number)
        if member is None:
            if late(folder, budget, members, number):
                logger.warning("Out of time: %d members are trained.", len(members))
                return
            member = learn(number)
            save_member(folder, member)
        members.append(member)
        yield member


def late(folder: Path, budget: TimeBudget | None, members: Sequence[Member], number: int) -> bool:
    """Whether a member that was not begun would not be done in time; the first always is begun."""
    begun = training_file(folder, number).exists()
    return bool(budget and members and not begun and budget.left() < seconds_for_another(members))


def in_jobs(
    folder: Path,
    budget: TimeBudget | None,
    jobs: int,
    threads: int,
    learn: Learn,
    numbers: Sequence[int],
) -> Iterator[Member]:
    """Members in several processes of this machine, so many at once.

    Raises:
        WorkerError: a process died.
    """
    tasks = (
        delayed(in_job)(folder, budget, jobs, threads, os.getpid(), learn, number)
        for number in numbers
    )
    with Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs) as parallel:
        yield from finished(parallel(tasks), len(numbers))


def in_job(
    folder: Path,
    budget: TimeBudget | None,
    jobs: int,
    threads: int,
    parent: int,
    learn: Learn,
    number: int,
) -> Member | None:
    """A member in a process of its own; None if it would not be done in time."""
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(threads)
    for slot in range(jobs):
        try:
            # The folder stays locked for as long as one of its workers is at work in it.
            with FileLock(folder / CHECKPOINT / f"job-{slot}.lock", timeout=0):
                end_with_parent(parent)
                done = [load_member(folder, n) for n in range(1, number + 1)]
                if done[-1] is not None:
                    return done[-1]
                if late(folder, budget, [member for member in done if member], number):
                    return None
                compute = on_gpu(learn.keywords["compute"], slot)
                watch = WithParent(parent, learn.keywords["watch"])
                member = learn(number, compute=compute, watch=watch)
                save_member(folder, member)
                return member
        except Timeout:
            continue
    raise InputError(f"{folder / CHECKPOINT}: more jobs at work than were asked for")


@dataclasses.dataclass(frozen=True)
class WithParent:
    """A watch around another: ends the process within an epoch when its parent is gone."""

    parent: int
    watch: Callable

    def __call__(self, number: int, training: Training, epochs: Iterator) -> Iterator:
        """The epochs of a member."""
        for row in self.watch(number, training, epochs):
            end_with_parent(self.parent)
            yield row


def end_with_parent(parent: int) -> None:
    """End this process if it is an orphan."""
    if os.getppid() != parent:
        os._exit(1)


def on_gpu(compute: Compute, slot: int) -> Compute:
    """The GPU of a job, where there are several; else the device as it is."""
    if compute.device != torch.device("cuda"):
        return compute
    device = torch.device("cuda", slot % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return dataclasses.replace(compute, device=device)


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
    saved = [member for number in numbers if (member := load_member(folder, number))]
    yield from saved
    missing = [number for number in numbers if not member_file(folder, number).exists()]
    tasks = [delayed(on_worker)(learn, number, threads) for number in missing]
    with client, parallel_config("dask", client=client):
        results = Parallel(return_as="generator_unordered")(tasks)
        for member in finished(results, len(missing)):
            save_member(folder, member)
            yield member


def on_worker(learn: Learn, number: int, threads: int) -> Member:
    """A member on a cluster's worker, which has no folder: if it is cut off, it starts anew."""
    torch.set_num_threads(threads)
    return learn(number)


def finished(results: Iterator[Member | None], asked: int) -> Iterator[Member]:
    """What jobs return, with a progress bar; None is a member for which time was too short."""
    left_out = 0
    try:
        for member in progress(results, total=asked, desc="members", delay=0):
            if member is not None:
                yield member
            left_out += member is None
    except TerminatedWorkerError as error:
        raise WorkerError(
            "a worker died; members that are done are saved: give the same command again"
        ) from error
    if left_out:
        logger.warning("Out of time: %d members are trained.", asked - left_out)
