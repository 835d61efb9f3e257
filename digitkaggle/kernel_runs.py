"""The run of the kernel on Kaggle: how it stands, how it ended, and what it made."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import Any

from .digits import KAGGLE_TEST_IMAGES
from .errors import InputError, KaggleError
from .files import read_json, write_text
from .kaggle_client import COPY_BLOCK, Kaggle, first_pause, one_line
from .kaggle_record import age, read_record
from .locations import RUNS_FOLDER
from .log import logger
from .progress import make_bar
from .run_folder import METRICS, SUBMISSION
from .submission import check_submission, read_submission

RUNNING = ("QUEUED", "RUNNING", "NEW_SCRIPT", "CANCEL_REQUESTED")
LOG_LINES = 20
BEATS_OF_AN_OUTPUT = 15  # pauses that `output` waits for a run's end
STALE_BEATS = 15  # pauses for which the end of an earlier run may still be shown after a push


def status() -> None:
    """Print the state of the run that was pushed last.

    Raises:
        InputError: nothing was pushed from here.
        KaggleError: the run failed or was cancelled; says why, with the log's last lines.
    """
    pushed = last_push()
    kaggle = Kaggle()
    _tell_state(kaggle, pushed, *_state(kaggle, pushed))


def follow_run(kaggle: Kaggle) -> None:
    """Follow the run that was pushed last to its end, and tell it; raises as `status` does."""
    pushed = last_push()
    _tell_state(kaggle, pushed, *_state_in_the_end(kaggle, pushed))


def last_push() -> dict[str, Any]:
    """What is recorded of the last push; raises InputError if there was none."""
    pushes = read_record()["pushes"]
    if not pushes:
        raise InputError("nothing was pushed from here yet: make push")
    return pushes[-1]


def _state(kaggle: Kaggle, pushed: dict[str, Any]) -> tuple[str, str]:
    """The state's name and, of a failed run, the reason."""
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

    request = ApiGetKernelSessionStatusRequest()
    request.user_name, request.kernel_slug = pushed["id"].split("/")
    answer = kaggle.call("status", lambda: kaggle.kernels.get_kernel_session_status(request))
    return answer.status.name, one_line(answer.failure_message or "")


def _state_in_the_end(
    kaggle: Kaggle, pushed: dict[str, Any], *, beats: float = math.inf
) -> tuple[str, str]:
    """The state, and the reason, in which a run ended; or one of RUNNING after so many beats.

    Right after a push Kaggle may still show how the version before it ended. An end is believed if
    there was no version before, if this one was seen at work, or when that has had time to change.
    """
    doubtful = (pushed.get("version") or 1) > 1 and age(pushed) < STALE_BEATS * first_pause()
    shown, beat = "", 0
    while True:
        state, reason = _state(kaggle, pushed)
        if state not in RUNNING:
            if not doubtful or beat >= STALE_BEATS:
                return state, reason
        elif beat >= beats:
            return state, reason
        else:
            doubtful = False
            if state != shown:
                logger.info("%s", state.lower())
                shown = state
        beat += 1
        time.sleep(first_pause())


def _tell_state(kaggle: Kaggle, pushed: dict[str, Any], state: str, reason: str) -> None:
    print(f"{pushed['id']} version {pushed['version']}: {state.lower()}")
    if state in ("ERROR", "CANCEL_ACKNOWLEDGED"):
        _, log = _list_output(kaggle, pushed)
        for line in log_lines(log)[-LOG_LINES:]:
            print(line, file=sys.stderr)
        what = "failed" if state == "ERROR" else "was cancelled"
        raise KaggleError(f"the run {what}{f': {reason}' if reason else ''}: see {pushed['url']}")


def log_lines(log: str) -> list[str]:
    """The lines of a kernel's log, which Kaggle keeps as JSON objects of text with times."""
    try:
        parts = [str(entry.get("data", "")) for entry in json.loads(log or "[]")]
    except (ValueError, AttributeError, RecursionError):
        parts = [log]
    return "".join(parts).splitlines()


def output(*, progress_bar: bool = True) -> Path:
    """Get the files of the finished run that was pushed last into `runs/kaggle-VERSION/`.

    Returns:
        The folder.

    Raises:
        InputError: nothing was pushed from here, or no room.
        KaggleError: the run is not finished, or what came is not its output.
    """
    pushed = last_push()
    kaggle = Kaggle()
    # A run that is about to end is worth a short wait.
    state, _ = _state_in_the_end(kaggle, pushed, beats=BEATS_OF_AN_OUTPUT)
    if state in RUNNING:
        raise KaggleError(f"the run is still {state.lower()}: make status says when it is done")
    files, log = _list_output(kaggle, pushed)
    digest = pushed.get("source_digest", "")
    folder = RUNS_FOLDER / f"kaggle-{pushed.get('version') or digest[:12]}"
    try:
        RUNS_FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=RUNS_FOLDER, prefix=".kaggle-") as aside:
            fetched = Path(aside) / "output"
            fetched.mkdir()
            for file in make_bar(files, shown=progress_bar, desc="output", delay=0):
                _fetch_output_file(kaggle, file.file_name, file.url, fetched)
            write_text(fetched / "kaggle.log", "\n".join(log_lines(log)) + "\n")
            _check_output(fetched, digest)
            if folder.exists():
                os.replace(folder, Path(aside) / "replaced")
            os.replace(fetched, folder)
    except OSError as error:
        raise InputError(
            f"{RUNS_FOLDER} cannot be written ({error.strerror or error}): free some space, or "
            "mind its rights, and try again"
        ) from error
    print(folder)
    return folder


def _list_output(kaggle: Kaggle, pushed: dict[str, Any]) -> tuple[list[Any], str]:
    from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

    files: list[Any] = []
    log, token = "", None
    while True:
        request = ApiListKernelSessionOutputRequest()
        request.user_name, request.kernel_slug = pushed["id"].split("/")
        if token:
            request.page_token = token
        answer = kaggle.call(
            "list the output", lambda r=request: kaggle.kernels.list_kernel_session_output(r)
        )
        files += answer.files or []
        log = log or answer.log or ""
        if not answer.next_page_token or answer.next_page_token == token:
            return files, log
        token = answer.next_page_token


def _fetch_output_file(kaggle: Kaggle, name: str, url: str, folder: Path) -> None:
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or not place.parts or ":" in name:
        logger.warning("left out an output file named %r, which lies outside the folder", name)
        return
    target = folder / place
    target.parent.mkdir(parents=True, exist_ok=True)

    def fetch() -> None:
        with kaggle.fetch(url) as response, open(target, "wb") as file:
            for block in response.iter_content(COPY_BLOCK):
                file.write(block)

    kaggle.call(f"fetch {place}", fetch)


def _check_output(folder: Path, digest: str) -> None:
    """Refuse an output without a valid submission, or of another version than was pushed."""
    submission = folder / SUBMISSION
    if not submission.is_file():
        raise KaggleError(f"the output has no {SUBMISSION}: make status shows the run's log")
    try:
        check_submission(read_submission(submission), KAGGLE_TEST_IMAGES, SUBMISSION)
        found = read_json(folder / METRICS)
        there = str(found.get("source_digest", "")) if isinstance(found, dict) else ""
    except InputError as error:
        raise KaggleError(f"the output is not good: {error}") from error
    if digest and there != digest:
        raise KaggleError(
            f"the output is of another version (sources {there[:12] or 'unknown'}) than was pushed "
            f"({digest[:12]}): wait for the run to end, make status, and try again"
        )
