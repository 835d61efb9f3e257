"""A run's folder: which run it holds, which folder a new run takes, and one run in it at a time."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..core.basics import InputError
from ..core.results import HISTORY, METRICS, MODEL, PROBABILITIES, SUBMISSION, VALIDATION
from .files import read_json, write_json

RUNS = Path("runs")
SAMPLE_SUBMISSION = "not-for-kaggle.csv"
MEMBERS, REPORT, FIGURES = "members.npz", "report.html", "figures"
PAGE, STRANGENESS = "digits.html", "strangeness.npz"
CHECKPOINT = "checkpoint"
IDENTITY = Path(CHECKPOINT) / "run.json"
# A folder with one of these is in use; without an identity, by something that is not a run.
RESULTS = (SUBMISSION, SAMPLE_SUBMISSION, MODEL, HISTORY, PROBABILITIES, METRICS, IDENTITY)

Identity = dict[str, dict[str, Any]]


def list_run_files(run: Path) -> list[Path]:
    """The files that are read from a run's folder; a model.pt itself is one."""
    names = (*RESULTS, VALIDATION, MEMBERS, STRANGENESS)
    return [run / name for name in names] if run.is_dir() else [run]


def make_identity(settings: dict[str, Any], data_digest: str, source_digest: str) -> Identity:
    """What makes two runs the same: their settings, their data, and the code that ran them."""
    return {
        "settings": json.loads(json.dumps(settings)),
        "data": {"digest": data_digest},
        "source": {"digest": source_digest},
    }


def read_identity(folder: Path) -> Identity | None:
    """The identity of the run in a folder, or None if there is no readable one."""
    started = folder / IDENTITY
    try:
        found = read_json(started if started.exists() else folder / METRICS)
        return make_identity(found["settings"], found["data"]["digest"], found["source_digest"])
    except (InputError, KeyError, TypeError):
        return None


def is_finished(folder: Path) -> bool:
    """Whether a run finished there: it writes its metrics last, then deletes its checkpoint."""
    return (folder / METRICS).exists() and not (folder / IDENTITY).exists()


def is_free(folder: Path, found: Identity | None) -> bool:
    """Whether a new run may take the folder of the run `found`: nothing in it could get lost."""
    present = [name for name in RESULTS if (folder / name).exists()]
    if found and present == [IDENTITY]:
        # A run that failed in its first epoch, as at a wrong setting, has saved nothing else.
        return not any((folder / CHECKPOINT).glob("*.pt"))
    return not present


def find_newest_run(runs: Path = RUNS) -> Path:
    """The run below `runs` that finished last; InputError if there is none."""
    finished = [path for path in runs.glob("*") if is_finished(path)]
    if not finished:
        raise InputError(f"{runs} holds no finished run: make one with python -m digitkaggle")
    return max(finished, key=lambda folder: (folder / METRICS).stat().st_mtime)


def describe_differences(found: Identity, wanted: Identity) -> str:
    """How two runs differ: settings by name and value, data, code."""
    there, here = found["settings"], wanted["settings"]
    parts = [
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in dict.fromkeys([*here, *there])
        if there.get(name) != here.get(name)
    ]
    if found["data"] != wanted["data"]:
        parts.append("made from other data")
    if found["source"] != wanted["source"]:
        parts.append("made by another version of the code")
    return "; ".join(parts)


@contextlib.contextmanager
def lock_run_folder(
    identity: Identity, default: Path, explicit: Path | None, *, fresh: bool
) -> Iterator[Path]:
    """The explicit folder, or the first free one of `default`, `default-2`, ..., while locked.

    Raises:
        InputError: the explicit folder holds another run; another process works in it, or on this
            same run; or it cannot be created.
    """
    numbered = (default.with_name(f"{default.name}-{number}") for number in itertools.count(2))
    for folder in [explicit] if explicit else itertools.chain([default], numbered):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock", timeout=0):
                found = read_identity(folder)
                if is_free(folder, found) or found == identity or (explicit and fresh):
                    yield folder
                    return
        except Timeout:
            if explicit or read_identity(folder) == identity:
                advice = "let it finish, or choose another --out"
                raise InputError(f"another run is working in {folder}: {advice}") from None
        except OSError as error:
            reason, advice = error.strerror or error, "check permissions, or choose another --out"
            raise InputError(f"{folder} cannot be used ({reason}): {advice}") from error
    content = "files that no run wrote"
    if found:
        content = f"another run ({describe_differences(found, identity)})"
    raise InputError(f"{explicit} holds {content}: choose another --out, or replace it by --fresh")


def start_run(folder: Path, identity: Identity, *, fresh: bool) -> None:
    """Prepare a folder for this run: keep its own checkpoint unless `fresh`, delete another's."""
    # Of an earlier run; this one may write none.
    for name in (REPORT, PAGE, MEMBERS, VALIDATION, STRANGENESS):
        (folder / name).unlink(missing_ok=True)
    if fresh or read_identity(folder) != identity:
        delete_checkpoint(folder)
        write_json(folder / IDENTITY, identity | {"source_digest": identity["source"]["digest"]})


def delete_checkpoint(folder: Path) -> None:
    """Delete the checkpoint: the run is finished, or starts again."""
    (folder / IDENTITY).unlink(missing_ok=True)  # first, so that the rest no longer counts
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
