"""A run's folder: whose run it is, which folder a new run takes, and one run in it at a time."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..core import basics
from ..core.basics import InputError
from ..core.results import HISTORY, METRICS, MODEL, PROBABILITIES, SUBMISSION, VALIDATION
from .files import read_json, write_json

RUNS = Path("runs")
SAMPLE_SUBMISSION = "not-for-kaggle.csv"
MEMBERS, REPORT, FIGURES = "members.npz", "report.html", "figures"
CHECKPOINT = "checkpoint"
IDENTITY = Path(CHECKPOINT) / "run.json"
# A folder with one of these is used; without an identity, by no run that we know.
RESULTS = (SUBMISSION, SAMPLE_SUBMISSION, MODEL, HISTORY, PROBABILITIES, METRICS, IDENTITY)

Identity = dict[str, dict[str, Any]]


def source_digest() -> str:
    """SHA-256 over the names and texts of the core's modules."""
    modules = sorted(Path(basics.__file__).parent.glob("*.py"))
    text = "".join(f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in modules)
    return hashlib.sha256(text.encode()).hexdigest()


def run_identity(settings: dict[str, Any], data_digest: str, source_digest: str) -> Identity:
    """What makes two runs the same: their settings, their data, and the code that ran them."""
    return {
        "settings": json.loads(json.dumps(settings)),
        "data": {"digest": data_digest},
        "source": {"digest": source_digest},
    }


def identity_in(folder: Path) -> Identity | None:
    """The identity of the run in a folder, or None if there is none, or no readable one."""
    begun = folder / IDENTITY
    try:
        found = read_json(begun if begun.exists() else folder / METRICS)
        return run_identity(found["settings"], found["data"]["digest"], found["source_digest"])
    except (InputError, KeyError, TypeError):
        return None


def is_finished(folder: Path) -> bool:
    """Whether a run ended there: its metrics are written last, then its checkpoint goes."""
    return (folder / METRICS).exists() and not (folder / IDENTITY).exists()


def newest_run(runs: Path = RUNS) -> Path:
    """The finished run below `runs` that ended last; InputError if there is none."""
    finished = [path for path in runs.glob("*") if is_finished(path)]
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
    parts += ["made from other data"] * (found["data"] != asked["data"])
    parts += ["made by another version of the code"] * (found["source"] != asked["source"])
    return "; ".join(parts)


@contextlib.contextmanager
def claimed_folder(
    identity: Identity, default: Path, named: Path | None, *, fresh: bool
) -> Iterator[Path]:
    """The named folder, or the first free one of `default`, `default-2`, ...; locked meanwhile.

    Raises:
        InputError: the named folder holds another run; somebody else is at work in it, or on this
            very run; or it cannot be made.
    """
    numbered = (default.with_name(f"{default.name}-{number}") for number in itertools.count(2))
    for folder in [named] if named else itertools.chain([default], numbered):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock", timeout=0):
                found = identity_in(folder)
                empty = not any((folder / name).exists() for name in RESULTS)
                if empty or found == identity or (named and fresh):
                    yield folder
                    return
        except Timeout:
            if named or identity_in(folder) == identity:
                advice = "let it end, or choose another --out"
                raise InputError(f"another run is at work in {folder}: {advice}") from None
        except OSError as error:
            reason, advice = error.strerror or error, "mind its rights, or choose another --out"
            raise InputError(f"{folder} cannot be used ({reason}): {advice}") from error
    whose = f"another run ({differences(found, identity)})" if found else "what no run wrote"
    raise InputError(f"{named} holds {whose}: choose another --out, or replace it by --fresh")


def begin_run(folder: Path, identity: Identity, *, fresh: bool) -> None:
    """Make a folder this run's own: its checkpoint stays, unless `fresh`; another's goes."""
    for name in (REPORT, MEMBERS, VALIDATION):  # of the run before; this one may have none
        (folder / name).unlink(missing_ok=True)
    if fresh or identity_in(folder) != identity:
        drop_checkpoint(folder)
        write_json(folder / IDENTITY, identity | {"source_digest": identity["source"]["digest"]})


def drop_checkpoint(folder: Path) -> None:
    """Take the checkpoint away: the run is done, or starts anew."""
    (folder / IDENTITY).unlink(missing_ok=True)  # first: what is left then counts for nothing
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
