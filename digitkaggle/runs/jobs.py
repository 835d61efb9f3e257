"""Where members are trained: in this process, in several by joblib, or on a Dask cluster.

Each is a `map_members` of core's `run`. The process that trains a member saves it, so nothing is
trained twice; members arrive in any order.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ..core.basics import Compute, InputError
from ..core.console import show_progress
from ..core.main import train_on_gpu
from ..core.run import Member
from .budget import TimeBudget, sum_seconds
from .checkpoint import get_checkpoint_file, load_member, save_member

TrainOne = Callable[..., Member]
LoadOrTrain = Callable[[TrainOne, int], Member | None]  # `load_or_train` for a folder and a budget


def load_or_train(
    folder: Path, budget: TimeBudget | None, train_one: TrainOne, number: int
) -> Member | None:
    """A member from the checkpoint, or trained and saved; None if there is no time for it."""
    if member := load_member(folder, number):
        return member
    if budget and not get_checkpoint_file(folder, "training", number).exists():
        finished = [member for n in range(1, number) if (member := load_member(folder, n))]
        if finished and budget.left() < max(map(sum_seconds, finished)):
            return None
    member = train_one(number)
    save_member(folder, member)
    return member


def map_here(
    load_or_train: LoadOrTrain, train_one: TrainOne, numbers: Sequence[int]
) -> Iterator[Member]:
    """Members in this process, in order."""
    return filter(None, (load_or_train(train_one, number) for number in numbers))


def map_in_jobs(
    load_or_train: LoadOrTrain,
    compute: Compute,
    jobs: int,
    threads: int,
    train_one: TrainOne,
    numbers: Sequence[int],
) -> Iterator[Member]:
    """Members in several processes of this machine, `jobs` at a time."""
    from joblib import Parallel, delayed  # here, because others need not wait for it

    parent = os.getpid()
    tasks = (
        delayed(train_in_job)(parent, compute, threads, load_or_train, train_one, number)
        for number in numbers
    )
    with Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs) as parallel:
        members = show_progress(parallel(tasks), total=len(numbers), desc="members", delay=0)
        yield from filter(None, members)


def train_in_job(
    parent: int,
    compute: Compute,
    threads: int,
    load_or_train: LoadOrTrain,
    train_one: TrainOne,
    number: int,
) -> Member | None:
    """A member in a process of its own; with several GPUs, members use them in turn."""
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(threads)
    if os.getpid() != parent:  # joblib may run it in the parent itself: nested, or in threads
        threading.Thread(target=exit_with_parent, args=[parent], daemon=True).start()
    if compute.device == torch.device("cuda"):
        gpu = number % torch.cuda.device_count()
        return load_or_train(lambda number: train_on_gpu(train_one, compute, number, gpu), number)
    return load_or_train(train_one, number)


def exit_with_parent(parent: int) -> None:
    """End this process as soon as its parent is gone: another run may use its folder then."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def map_on_cluster(
    folder: Path, address: str, threads: int, train_one: TrainOne, numbers: Sequence[int]
) -> Iterator[Member]:
    """Members on the workers of a Dask scheduler; this process saves what arrives."""
    from joblib import Parallel, delayed, parallel_config

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
    # A worker has no folder: an interrupted member starts again.
    missing = [number for number, member in saved.items() if not member]
    tasks = [delayed(train_on_worker)(train_one, number, threads) for number in missing]
    with client, parallel_config("dask", client=client):
        for member in Parallel(return_as="generator_unordered")(tasks):
            save_member(folder, member)
            yield member


def train_on_worker(train_one: TrainOne, number: int, threads: int) -> Member:
    """A member on a cluster's worker."""
    torch.set_num_threads(threads)
    return train_one(number)
