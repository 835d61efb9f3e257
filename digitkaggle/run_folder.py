"""A run's folder: the names of its files, whose run it is, and which folder a new run takes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import clear_leftovers, read_json, write_json
from .lock import lock_folder

SUBMISSION = "submission.csv"
SAMPLE_SUBMISSION = "not-for-kaggle.csv"
MODEL = "model.pt"
HISTORY = "history.csv"
METRICS = "metrics.json"
PROBABILITIES = "probabilities.npy"
VALIDATION = "validation.npz"
# Each member's own answers to the test images; only an ensemble has it.
MEMBERS = "members.npz"
REPORT = "report.html"
FIGURES = "figures"
CHECKPOINT = "checkpoint"
CHECKPOINT_RUN = Path(CHECKPOINT) / "run.json"
DROPPED_CHECKPOINT = ".checkpoint.dropped"
# A finished run has all of these; a folder with one of them and no metrics.json is somebody else's.
RESULTS = (MODEL, HISTORY, PROBABILITIES, VALIDATION)
MOST_DIFFERENCES = 6
CLAIMED = (SUBMISSION, SAMPLE_SUBMISSION, *RESULTS)


def run_identity(
    settings: dict[str, Any], data_digest: str, source_digest: str
) -> dict[str, dict[str, Any]]:
    """What makes two runs the same: their settings, their data, and the code that ran them."""
    return {
        "settings": settings,
        "data": {"digest": data_digest},
        "source": {"digest": source_digest},
    }


def identity_in(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The identity of the run in a folder, or None if there is none (or no readable one)."""
    try:
        if (folder / CHECKPOINT_RUN).exists():
            found = run_identity(**read_json(folder / CHECKPOINT_RUN))
        else:
            metrics = read_json(folder / METRICS)
            found = run_identity(
                metrics["settings"], metrics["data"]["digest"], metrics["source_digest"]
            )
    except (InputError, KeyError, TypeError):
        return None
    return found if isinstance(found["settings"], dict) else None


def is_finished(folder: Path, identity: dict[str, dict[str, Any]] | None = None) -> bool:
    """Whether the folder holds a whole run, that very run if one is given, with its results."""
    if identity is not None and identity_in(folder) != identity:
        return False
    submissions = [(folder / name).exists() for name in (SUBMISSION, SAMPLE_SUBMISSION)]
    results = [(folder / name).exists() for name in (METRICS, *RESULTS)]
    return any(submissions) and all(results) and not (folder / CHECKPOINT).exists()


def choose_run_folder(
    identity: dict[str, dict[str, Any]],
    default: Path,
    named: Path | None,
    *,
    fresh: bool,
    beside: bool = True,
    passed_over: Collection[Path] = (),
) -> Path:
    """The folder for a run.

    Args:
        identity: whose folder it shall be.
        default: taken if none is named.
        named: taken as it is.
        fresh: a named folder may hold another run, which is replaced.
        beside: where the default holds another run, take the next free `-2`, `-3` beside it.
        passed_over: folders beside the default that are not free, whatever they hold.

    Raises:
        InputError: the named folder holds another run, or files that no run of ours wrote.
    """
    if named is not None:
        if not fresh:
            _refuse_other_run(named, identity)
        return named
    candidate, number = default, 1
    while beside and (candidate in passed_over or _is_taken(candidate, identity)):
        number += 1
        candidate = default.with_name(f"{default.name}-{number}")
    return candidate


def _is_taken(folder: Path, identity: dict[str, dict[str, Any]]) -> bool:
    if not folder.exists():
        return False
    found = identity_in(folder)
    if found is not None:
        return found != identity
    # Whose these results, or this checkpoint, are nobody can tell.
    checkpoint = folder / CHECKPOINT
    kept = any(checkpoint.glob("[!.]*")) if checkpoint.is_dir() else checkpoint.exists()
    return not folder.is_dir() or kept or any((folder / name).exists() for name in CLAIMED)


def _refuse_other_run(folder: Path, identity: dict[str, dict[str, Any]]) -> None:
    if not _is_taken(folder, identity):
        return
    found = identity_in(folder)
    if found is None:
        raise InputError(
            f"{folder} is no folder, or holds results or a checkpoint that no known run wrote: "
            "choose another with --out, or replace them with --fresh"
        )
    raise InputError(
        f"{folder} holds another run ({differences(found, identity)}): choose another folder "
        "with --out, or start anew there with --fresh"
    )


def differences(found: dict[str, dict[str, Any]], asked: dict[str, dict[str, Any]]) -> str:
    """What tells two runs apart, in words: settings by name and value, other data, other code."""
    there, here = found["settings"], asked["settings"]
    told = [
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in [*here, *(name for name in there if name not in here)]
        if there.get(name) != here.get(name)
    ]
    if len(told) > MOST_DIFFERENCES:
        told[MOST_DIFFERENCES:] = [f"{len(told) - MOST_DIFFERENCES} more settings"]
    if found["data"] != asked["data"]:
        told.append("made from other data")
    if found["source"] != asked["source"]:
        told.append("made by another version of the code")
    return "; ".join(told)


@contextlib.contextmanager
def claimed_run_folder(
    identity: dict[str, dict[str, Any]],
    default: Path,
    named: Path | None,
    *,
    fresh: bool,
    beside: bool = True,
) -> Iterator[Path]:
    """The folder that `choose_run_folder` chooses, made, and locked for as long as this lasts.

    Raises:
        InputError: as there; or another process is at work in it, or it cannot be made.
    """

    def choose() -> Path:
        return choose_run_folder(
            identity, default, named, fresh=fresh, beside=beside, passed_over=busy
        )

    busy: set[Path] = set()
    with contextlib.ExitStack() as held:
        while True:
            folder = choose()
            unlock = _lock_run_folder(folder)
            if unlock is None:
                if named is not None or not beside or identity_in(folder) == identity:
                    raise InputError(
                        f"another run is at work in {folder}: let it end, or choose another "
                        "folder with --out"
                    )
                # Somebody was a moment faster, and is about to write whose folder it is.
                busy.add(folder)
                continue
            with contextlib.ExitStack() as lock:
                lock.callback(unlock)
                # Chosen again, under the lock: somebody may have been here since.
                if choose() == folder:
                    held.push(lock.pop_all())
                    break
        yield folder


def _lock_run_folder(folder: Path) -> Callable[[], None] | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return lock_folder(folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be used ({error.strerror or error}): mind its rights, or name "
            "another folder with --out"
        ) from error


def begin_run(folder: Path, identity: dict[str, dict[str, Any]], *, fresh: bool) -> None:
    """Make a folder this run's own: its checkpoint stays, unless `fresh`; another's goes.

    Raises:
        InputError: nothing can be written there.
    """
    clear_leftovers([folder, folder / CHECKPOINT, folder / FIGURES])
    if fresh or not (folder / CHECKPOINT_RUN).exists() or identity_in(folder) != identity:
        drop_checkpoint(folder)
        run = {
            "settings": identity["settings"],
            "data_digest": identity["data"]["digest"],
            "source_digest": identity["source"]["digest"],
        }
        write_json(folder / CHECKPOINT_RUN, run)


def drop_checkpoint(folder: Path) -> None:
    """Take the checkpoint away, as one: the run is done, or starts anew.

    Raises:
        InputError: it cannot be moved.
    """
    dropped = folder / DROPPED_CHECKPOINT
    shutil.rmtree(dropped, ignore_errors=True)
    if (folder / CHECKPOINT).exists():
        try:
            os.replace(folder / CHECKPOINT, dropped)
        except OSError as error:
            raise InputError(
                f"{folder / CHECKPOINT} cannot be taken away ({error.strerror or error}): "
                "mind its rights, or name another folder with --out"
            ) from error
        shutil.rmtree(dropped, ignore_errors=True)


def newest_run(runs: Path) -> Path:
    """The finished run below `runs` that ended last.

    Raises:
        InputError: there is none.
    """
    finished = [path.parent for path in runs.glob(f"*/{METRICS}") if is_finished(path.parent)]
    if not finished:
        raise InputError(f"{runs} holds no finished run: make one with python -m digitkaggle")
    return max(finished, key=lambda folder: (folder / METRICS).stat().st_mtime)
