"""A run's folder: whose run it is, which folder a new run takes, and one run in it at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..core import basics
from ..core.basics import Digits, InputError
from ..core.data import kaggle_folder, on_kaggle
from ..core.results import HISTORY, METRICS, MODEL, PROBABILITIES, SUBMISSION
from ..core.settings import Settings
from .files import read_json, write_json

RUNS = Path("runs")
SAMPLE_SUBMISSION = "not-for-kaggle.csv"
MEMBERS, REPORT, FIGURES = "members.npz", "report.html", "figures"
CHECKPOINT = "checkpoint"
IDENTITY = Path(CHECKPOINT) / "run.json"
# A folder with one of these and no metrics is of no run that we know.
RESULTS = (SUBMISSION, SAMPLE_SUBMISSION, MODEL, HISTORY, PROBABILITIES)
MOST_DIFFERENCES = 6

Identity = dict[str, dict[str, Any]]


def source_digest() -> str:
    """SHA-256 over the names and texts of the core's modules."""
    total = hashlib.sha256()
    for path in sorted(Path(basics.__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        total.update(f"{path.name}\n{len(text)}\n{text}".encode())
    return total.hexdigest()


def run_identity(settings: Settings | dict, data_digest: str, source_digest: str) -> Identity:
    """What makes two runs the same: their settings, their data, and the code that ran them."""
    values = settings if isinstance(settings, dict) else vars(settings)
    return {
        "settings": json.loads(json.dumps(values)),
        "data": {"digest": data_digest},
        "source": {"digest": source_digest},
    }


def identity_in(folder: Path) -> Identity | None:
    """The identity of the run in a folder, or None if there is none, or no readable one."""
    try:
        if (folder / IDENTITY).exists():
            found = read_json(folder / IDENTITY)
            return run_identity(found["settings"], found["data_digest"], found["source_digest"])
        found = read_json(folder / METRICS)
        return run_identity(found["settings"], found["data"]["digest"], found["source_digest"])
    except (InputError, KeyError, TypeError):
        return None


def is_finished(folder: Path, identity: Identity | None = None) -> bool:
    """Whether the folder holds a whole run; that very run, if one is given."""
    submitted = any((folder / name).exists() for name in (SUBMISSION, SAMPLE_SUBMISSION))
    whole = submitted and all((folder / name).exists() for name in (METRICS, *RESULTS[2:]))
    return whole and not (folder / IDENTITY).exists() and identity in (None, identity_in(folder))


def newest_run(runs: Path = RUNS) -> Path:
    """The finished run below `runs` that ended last; InputError if there is none."""
    finished = [path.parent for path in runs.glob(f"*/{METRICS}") if is_finished(path.parent)]
    if not finished:
        raise InputError(f"{runs} holds no finished run: make one with python -m digitkaggle")
    return max(finished, key=lambda folder: (folder / METRICS).stat().st_mtime)


def differences(found: Identity, asked: Identity) -> str:
    """What tells two runs apart, in words: settings by name and value, other data, other code."""
    there, here = found["settings"], asked["settings"]
    parts = [
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in dict.fromkeys([*here, *there])
        if there.get(name) != here.get(name)
    ]
    if len(parts) > MOST_DIFFERENCES:
        parts[MOST_DIFFERENCES:] = [f"{len(parts) - MOST_DIFFERENCES} more settings"]
    parts += ["made from other data"] * (found["data"] != asked["data"])
    parts += ["made by another version of the code"] * (found["source"] != asked["source"])
    return "; ".join(parts)


def default_folder(settings: Settings, digits: Digits) -> Path:
    """Where a run goes when no folder is named."""
    sample = digits.test_labels is not None
    folder = RUNS / (settings.preset + "-sample" * sample)
    return kaggle_folder("working") if on_kaggle() else folder


@contextlib.contextmanager
def claimed_folder(
    identity: Identity, default: Path, named: Path | None, *, fresh: bool
) -> Iterator[Path]:
    """The named folder, or the first free one of `default`, `default-2`, ...; locked meanwhile.

    Raises:
        InputError: the named folder holds another run; somebody else is at work in it, or on this
            very run; or it cannot be made.
    """
    busy: set[Path] = set()
    while True:
        folder = choose_folder(identity, default, named, busy, fresh=fresh)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock", timeout=0)
            with lock:
                # Workers whose parent was killed end within an epoch, and hold these until then.
                for job in (folder / CHECKPOINT).glob("job-*.lock"):
                    with FileLock(job, timeout=0):
                        pass
                # Chosen again, under the lock: somebody may have been here since.
                if choose_folder(identity, default, named, busy, fresh=fresh) == folder:
                    yield folder
                    return
        except Timeout:
            if named or on_kaggle() or identity_in(folder) == identity:
                raise InputError(
                    f"another run is at work in {folder}: let it end, or choose another --out"
                ) from None
            busy.add(folder)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be used ({error.strerror or error}): mind its rights, or name "
                "another folder with --out"
            ) from error


def choose_folder(
    identity: Identity, default: Path, named: Path | None, busy: Collection[Path], *, fresh: bool
) -> Path:
    """The folder for a run, which may be there and may be locked."""
    folder, number = named or default, 1
    while named is None and not on_kaggle() and (folder in busy or is_taken(folder, identity)):
        number += 1
        folder = default.with_name(f"{default.name}-{number}")
    if named and not fresh and is_taken(folder, identity):
        found = identity_in(folder)
        whose = f"another run ({differences(found, identity)})" if found else "what no run wrote"
        raise InputError(f"{folder} holds {whose}: choose another --out, or replace it by --fresh")
    return folder


def is_taken(folder: Path, identity: Identity) -> bool:
    """Whether a folder is no place for a run, since it holds another one, or what no run wrote."""
    found = identity_in(folder)
    if found is not None:
        return found != identity
    return (folder.exists() and not folder.is_dir()) or any(
        (folder / name).exists() for name in (*RESULTS, METRICS, IDENTITY)
    )


def begin_run(folder: Path, identity: Identity, *, fresh: bool) -> None:
    """Make a folder this run's own: its checkpoint stays, unless `fresh`; another's goes."""
    (folder / REPORT).unlink(missing_ok=True)  # of the run before
    for part in (folder, folder / CHECKPOINT, folder / FIGURES):
        for leftover in part.glob(".*.part"):
            leftover.unlink(missing_ok=True)
    if fresh or not (folder / IDENTITY).exists() or identity_in(folder) != identity:
        drop_checkpoint(folder)
        run = {
            "settings": identity["settings"],
            "data_digest": identity["data"]["digest"],
            "source_digest": identity["source"]["digest"],
        }
        write_json(folder / IDENTITY, run)


def drop_checkpoint(folder: Path) -> None:
    """Take the checkpoint away, as one: the run is done, or starts anew."""
    dropped = folder / ".checkpoint.dropped"
    shutil.rmtree(dropped, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder / CHECKPOINT, dropped)
    shutil.rmtree(dropped, ignore_errors=True)
