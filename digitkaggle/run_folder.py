"""A run's folder: the names of its files, whose run it is, and which folder a new run takes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import InputError
from .files import read_json, write_bytes, write_json

SUBMISSION = "submission.csv"
SAMPLE_SUBMISSION = "not-for-kaggle.csv"
MODEL = "model.pt"
HISTORY = "history.csv"
METRICS = "metrics.json"
PROBABILITIES = "probabilities.npy"
VALIDATION = "validation.npz"
# Each member's own answers to the test images; only an ensemble has it.
MEMBERS = "members.npz"
FIGURES = "figures"
CHECKPOINT = "checkpoint"
CHECKPOINT_RUN = Path(CHECKPOINT) / "run.json"
CHECKPOINT_STATE = Path(CHECKPOINT) / "training.pt"
# A finished run has all of these; a folder with one of them and no metrics.json is somebody else's.
RESULTS = (MODEL, HISTORY, PROBABILITIES, VALIDATION)
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
            return run_identity(**read_json(folder / CHECKPOINT_RUN))
        if (folder / METRICS).exists():
            metrics = read_json(folder / METRICS)
            return run_identity(
                metrics["settings"], metrics["data"]["digest"], metrics["source_digest"]
            )
    except (InputError, KeyError, TypeError):
        return None
    return None


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
) -> Path:
    """The folder for a run.

    Args:
        identity: whose folder it shall be.
        default: taken if none is named.
        named: taken as it is.
        fresh: a named folder may hold another run, which is replaced.
        beside: where the default holds another run, take the next free `-2`, `-3` beside it.

    Raises:
        InputError: the named folder holds another run, or files that no run of ours wrote.
    """
    if named is not None:
        if not fresh:
            _refuse_other_run(named, identity)
        return named
    candidate, number = default, 1
    while beside and _is_taken(candidate, identity):
        number += 1
        candidate = default.with_name(f"{default.name}-{number}")
    return candidate


def _is_taken(folder: Path, identity: dict[str, dict[str, Any]]) -> bool:
    if not folder.exists():
        return False
    found = identity_in(folder)
    if found is None:
        return not folder.is_dir() or any((folder / name).exists() for name in CLAIMED)
    return found != identity


def _refuse_other_run(folder: Path, identity: dict[str, dict[str, Any]]) -> None:
    if not _is_taken(folder, identity):
        return
    found = identity_in(folder)
    if found is None:
        raise InputError(
            f"{folder} is no folder, or holds results that no known run wrote: choose another "
            "with --out, or replace them with --fresh"
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
    if found["data"] != asked["data"]:
        told.append("made from other data")
    if found["source"] != asked["source"]:
        told.append("made by another version of the code")
    return "; ".join(told)


def open_checkpoint(folder: Path, identity: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Claim the folder for a run; the training state that an earlier try left there, or None."""
    if (folder / CHECKPOINT_STATE).exists() and identity_in(folder) == identity:
        try:
            return torch.load(folder / CHECKPOINT_STATE, weights_only=True)
        except Exception:
            # Whatever a damaged file makes torch raise, the run can still start from nothing.
            drop_checkpoint(folder)
    drop_checkpoint(folder)
    run = {
        "settings": identity["settings"],
        "data_digest": identity["data"]["digest"],
        "source_digest": identity["source"]["digest"],
    }
    write_json(folder / CHECKPOINT_RUN, run)
    return None


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Put a training state into the run's folder, whole or not at all."""
    write_bytes(folder / CHECKPOINT_STATE, saved_bytes(state))


def drop_checkpoint(folder: Path) -> None:
    """Take the checkpoint away: the run is done, or starts anew."""
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def saved_bytes(value: Any) -> bytes:
    """What torch.save writes, through memory: a file's name would get into the bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def write_array(path: Path, array: np.ndarray) -> None:
    """Put an array at `path` as .npy in one step."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Put named arrays at `path` as .npz in one step."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def newest_run(runs: Path) -> Path:
    """The finished run below `runs` that ended last.

    Raises:
        InputError: there is none.
    """
    finished = [path.parent for path in runs.glob(f"*/{METRICS}") if is_finished(path.parent)]
    if not finished:
        raise InputError(f"{runs} holds no finished run: make one with python -m digitkaggle")
    return max(finished, key=lambda folder: (folder / METRICS).stat().st_mtime)
