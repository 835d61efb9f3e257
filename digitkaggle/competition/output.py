"""The kernel's run on Kaggle: its state, how it ended, and the files that it made."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..core.basics import InputError, logger, progress
from ..core.data import KAGGLE_TEST_IMAGES
from ..core.results import METRICS, SUBMISSION, write_file
from ..runs.folder import RUNS
from .client import Kaggle, KaggleError, fetch, first_pause, one_line
from .record import read_record
from .submit import check_submission

RUNNING = ("QUEUED", "RUNNING", "NEW_SCRIPT", "CANCEL_REQUESTED")
LOG_LINES = 20
STALE = 15  # pauses


def status(wait: bool = False) -> None:
    """Print the state of the run that was pushed last; KaggleError if it failed."""
    pushed, kaggle = last_push(), Kaggle()
    state, reason = run_state(kaggle, pushed, wait)
    print(f"{pushed['id']} version {pushed['version']}: {state.lower()}")
    if state in ("ERROR", "CANCEL_ACKNOWLEDGED"):
        _, log = list_output(kaggle, pushed["kernel"])
        print(*log.splitlines()[-LOG_LINES:], sep="\n", file=sys.stderr)
        raise KaggleError(f"the run ended in {state} ({reason}): see {pushed['url']}")


def output() -> Path:
    """Get what the run that was pushed last made into `runs/kaggle-VERSION/`; print the folder."""
    pushed, kaggle = last_push(), Kaggle()
    state, _ = run_state(kaggle, pushed)
    if state in RUNNING:
        raise KaggleError(f"the run is still {state.lower()}: make status says when it is done")
    listed, log = list_output(kaggle, pushed["kernel"])
    files = {"kaggle.log": log.encode()}
    for file in progress(listed, desc="output"):
        name = file.file_name
        if re.fullmatch(r"\w[\w.-]*", name):  # the kernel makes no folders
            files[name] = kaggle.call(f"fetch {name}", partial(fetch, file.url))
        else:
            logger.warning("left out an output file named %r", name)
    check_output(files, pushed["source_digest"])
    folder = RUNS / f"kaggle-{pushed['version']}"
    shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed cannot be written either
    for name in sorted(files, key=METRICS.__eq__):  # the metrics last: they mark a finished run
        write_file(folder / name, files[name])
    print(folder)
    return folder


def last_push() -> dict[str, Any]:
    """What is recorded of the last push, and `kernel`, the fields that name it to Kaggle."""
    pushes = read_record()["pushes"]
    if not pushes:
        raise InputError("nothing was pushed from here yet: make push")
    owner, slug = pushes[-1]["id"].split("/")
    return pushes[-1] | {"kernel": {"user_name": owner, "kernel_slug": slug}}


def run_state(kaggle: Kaggle, pushed: dict[str, Any], wait: bool = False) -> tuple[str, str]:
    """A run's state now, or at its end, and the reason if it failed."""
    while True:
        answer = kaggle.ask("get_kernel_session_status", **pushed["kernel"])
        age = datetime.now(UTC) - datetime.fromisoformat(pushed["time"])
        running = answer.status.name in RUNNING
        # Soon after the push an end may be that of the version before.
        if not wait if running else age.total_seconds() > STALE * first_pause():
            return answer.status.name, one_line(answer.failure_message or "no reason given")
        time.sleep(first_pause())


def list_output(kaggle: Kaggle, kernel: dict[str, str]) -> tuple[list[Any], str]:
    """The files of a run's output, from all pages of the list, and its log."""
    answer = kaggle.ask("list_kernel_session_output", **kernel)
    files, log = answer.files or [], answer.log or ""
    while token := answer.next_page_token:
        answer = kaggle.ask("list_kernel_session_output", **kernel, page_token=token)
        files += answer.files or []
    # Usually JSON: a list of texts with their times.
    with contextlib.suppress(ValueError, TypeError, KeyError):
        log = "".join(entry["data"] for entry in json.loads(log))
    return files, log


def check_output(files: dict[str, bytes], digest: str) -> None:
    """Refuse an output without a valid submission, or of another version than was pushed."""
    try:
        check_submission(files[SUBMISSION].decode(), KAGGLE_TEST_IMAGES, SUBMISSION)
        metrics = json.loads(files[METRICS])
        made_by = metrics["source_digest"]
    except (KeyError, InputError, ValueError, TypeError) as error:
        raise KaggleError(f"the output is not good ({error}): make status shows its log") from error
    if made_by != digest:
        sources = f"sources {made_by[:12]}, not {digest[:12]} as pushed"
        raise KaggleError(f"the output is of another version ({sources}): try again later")
    for warning in metrics.get("warnings", []):
        logger.warning("%s", warning)
