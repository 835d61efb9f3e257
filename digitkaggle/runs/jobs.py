"""Where members are trained: in this process, in several by joblib, or on a Dask cluster.

Each of these is an `each` of core's `run`. A member that is done is saved by the process that
trained it, so nothing is trained twice; members are yielded in whatever order they are done.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from ..core.basics import InputError, progress
from ..core.main import on_gpu
from ..core.run import Member
from .budget import TimeBudget, seconds_of
from .checkpoint import checkpoint_file, load_member, save_member

Learn = Callable[..., Member]
Keep = Callable[[Learn, int], Member | None]  # `learned`, in a folder and a time budget


def learned(folder: Path, budget: TimeBudget | None, learn: Learn, number: int) -> Member | None:
    """A member from the checkpoint, or trained and saved; None if it would not be done in time."""
    if member := load_member(folder, number):
        return member
    if budget and not checkpoint_file(folder, "training", number).exists():
        done = [member for n in range(1, number) if (member := load_member(folder, n))]
        if done and budget.left() < max(map(seconds_of, done)):
            return None
    member = learn(number)
    save_member(folder, member)
    return member


def one_by_one(keep: Keep, learn: Learn, numbers: Sequence[int]) -> Iterator[Member]:
    """Members in this process, in order."""
    return filter(None, (keep(learn, number) for number in numbers))


def in_jobs(
    keep: Keep, jobs: int, threads: int, learn: Learn, numbers: Sequence[int]
) -> Iterator[Member]:
    """Members in several processes of this machine, so many at once."""
    from joblib import Parallel, delayed  # here, for others need not wait for it

    tasks = (delayed(in_job)(os.getpid(), threads, keep, learn, number) for number in numbers)
    with Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch=jobs) as parallel:
        bar = progress(parallel(tasks), total=len(numbers), desc="members", delay=0)
        yield from filter(None, bar)


def in_job(parent: int, threads: int, keep: Keep, learn: Learn, number: int) -> Member | None:
    """A member in a process of its own; of several GPUs the members take one after another."""
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(threads)
    if os.getpid() != parent:  # joblib may run it in the parent itself: nested, or by threads
        threading.Thread(target=end_with_parent, args=[parent], daemon=True).start()
    if learn.keywords["compute"].device == torch.device("cuda"):
        learn = partial(on_gpu, learn, gpu=number % torch.cuda.device_count())
    return keep(learn, number)


def end_with_parent(parent: int) -> None:
    """End this process as soon as it is an orphan: its folder may be another run's then."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def on_cluster(
    folder: Path, address: str, threads: int, learn: Learn, numbers: Sequence[int]
) -> Iterator[Member]:
    """Members on the workers of a Dask scheduler; this process saves what arrives."""
    from joblib import Parallel, delayed, parallel_config

    try:
        from distributed import Client

        client = Client(address, timeout=10, set_as_default=False)
    except ImportError as error:
        raise InputError("--cluster needs Dask: pip install 'digitkaggle[cluster]'") from error
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from error
    saved = {number: load_member(folder, number) for number in numbers}
    yield from filter(None, saved.values())
    # A worker has no folder: a member that is cut off starts anew.
    tasks = [delayed(on_worker)(learn, n, threads) for n, member in saved.items() if not member]
    with client, parallel_config("dask", client=client):
        for member in Parallel(return_as="generator_unordered")(tasks):
            save_member(folder, member)
            yield member


def on_worker(learn: Learn, number: int, threads: int) -> Member:
    """A member on a cluster's worker."""
    torch.set_num_threads(threads)
    return learn(number)
