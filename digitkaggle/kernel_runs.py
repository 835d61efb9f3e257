"""The kernel on Kaggle, from the desk: push it, follow its run, get what it made."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from .errors import InputError, KaggleError
from .files import read_json, write_text
from .kaggle_client import (
    COMPETITION_PAGE,
    COPY_BLOCK,
    TEST_IMAGES,
    Kaggle,
    first_pause,
    one_line,
)
from .kaggle_record import prove_record, read_record, record_push
from .kernel_metadata import check_metadata
from .locations import RUNS_FOLDER
from .log import logger
from .run_folder import METRICS, SUBMISSION
from .submission import check_submission, read_submission

KERNEL_FOLDER = Path("kernel")
RUNNING = ("QUEUED", "RUNNING", "NEW_SCRIPT", "CANCEL_REQUESTED")
LOG_LINES = 20
PATIENT_STATES = 15  # pauses that an output is waited for
STALE_STATES = 15  # pauses after which a final state right after a push is believed


def push(*, kind: str = "script", wait: bool = False) -> None:
    """Make the kernel, check what is sent, and run it on Kaggle.

    Raises:
        InputError: no credentials, or metadata that are wrong.
        KaggleError: Kaggle refused the kernel or one of its sources; with `wait`, its run failed.
    """
    kaggle = Kaggle()
    _make_kernel(kind)
    path = KERNEL_FOLDER / "kernel-metadata.json"
    metadata = read_json(path)
    check_metadata(metadata, str(path))
    script = (KERNEL_FOLDER / "main.py").read_text(encoding="utf-8")
    text = script if kind == "script" else _notebook_text(KERNEL_FOLDER / metadata["code_file"])
    if any(secret in text for secret in kaggle.credentials.secrets()):
        raise InputError(
            f"{metadata['code_file']} contains the text of your Kaggle credentials: take it out "
            "of the sources; nothing was pushed"
        )
    prove_record()
    answer = kaggle.call("push", lambda: kaggle.kernels.save_kernel(_save_request(metadata, text)))
    if answer.error:
        raise KaggleError(f"push: Kaggle refused the kernel: {one_line(answer.error)}")
    if answer.invalid_competition_sources:
        raise KaggleError(
            f"push: Kaggle refused the competition's data: accept the rules at "
            f"{COMPETITION_PAGE}/rules, then push again"
        )
    refused = [
        *(answer.invalid_dataset_sources or []),
        *(answer.invalid_kernel_sources or []),
        *(answer.invalid_model_sources or []),
    ]
    if refused:
        raise KaggleError(f"push: Kaggle refused the source {one_line(refused[0])}")
    if not answer.version_number:
        raise KaggleError("push: Kaggle named no version: look at the kernel's page and try again")
    record_push(
        id=metadata["id"],
        kind=kind,
        url=answer.url,
        version=answer.version_number,
        source_digest=_script_digest(script),
    )
    print(f"{answer.url} version {answer.version_number}")
    if wait:
        _wait_for_run(kaggle, new_run=answer.version_number > 1)


def _make_kernel(kind: str) -> None:
    if not (KERNEL_FOLDER / "bundle.py").is_file():
        raise InputError("there is no kernel/bundle.py here: push from the repository's folder")
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(sys.stderr):
        bundle = runpy.run_path(str(KERNEL_FOLDER / "bundle.py"))
        code = bundle["main"](["--kind", kind])
    if code:
        raise InputError(f"make kernel: {one_line(said.getvalue()).removeprefix('error: ')}")


def _notebook_text(path: Path) -> str:
    """A notebook as Kaggle's server wants it: a cell's source as one text, no outputs."""
    book = read_json(path)
    for cell in book["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    return json.dumps(book)


def _save_request(metadata: dict[str, Any], text: str) -> Any:
    from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelRequest

    request = ApiSaveKernelRequest()
    request.slug = metadata["id"]
    request.new_title = metadata["title"]
    request.text = text
    request.language = metadata["language"]
    request.kernel_type = metadata["kernel_type"]
    request.is_private = metadata["is_private"]
    request.enable_gpu = metadata["enable_gpu"]
    request.enable_tpu = metadata["enable_tpu"]
    request.enable_internet = metadata["enable_internet"]
    request.machine_shape = metadata["machine_shape"]
    request.competition_data_sources = metadata["competition_sources"]
    request.dataset_data_sources = metadata["dataset_sources"]
    request.kernel_data_sources = metadata["kernel_sources"]
    request.model_data_sources = metadata["model_sources"]
    request.category_ids = metadata["keywords"]
    return request


def _script_digest(script: str) -> str:
    for line in script.splitlines():
        if line.startswith("SOURCE_DIGEST = "):
            return line.split('"')[1]
    return ""


def status() -> None:
    """Print the state of the run that was pushed last.

    Raises:
        InputError: nothing was pushed from here.
        KaggleError: the run failed or was cancelled; says why, with the log's last lines.
    """
    pushed = _last_push()
    _tell_state(Kaggle(), pushed)


def _last_push() -> dict[str, Any]:
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


def _tell_state(kaggle: Kaggle, pushed: dict[str, Any]) -> None:
    state, reason = _state(kaggle, pushed)
    print(f"{pushed['id']} version {pushed['version']}: {state.lower()}")
    if state in ("ERROR", "CANCEL_ACKNOWLEDGED"):
        _, log = _list_output(kaggle, pushed)
        for line in log_lines(log)[-LOG_LINES:]:
            print(line, file=sys.stderr)
        what = "failed" if state == "ERROR" else "was cancelled"
        raise KaggleError(f"the run {what}{f': {reason}' if reason else ''}: see {pushed['url']}")


def _wait_for_run(kaggle: Kaggle, *, new_run: bool) -> None:
    """Follow the last push to the end of its run.

    Args:
        new_run: an earlier version ran before, whose final state may still be shown at first.
    """
    pushed = _last_push()
    shown, beats = "", 0
    while True:
        state, _ = _state(kaggle, pushed)
        if state in RUNNING:
            new_run = False
        elif not new_run or beats >= STALE_STATES:
            break
        if state != shown and not new_run:
            logger.info("%s", state.lower())
            shown = state
        beats += 1
        time.sleep(first_pause())
    _tell_state(kaggle, pushed)


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
    pushed = _last_push()
    kaggle = Kaggle()
    state, _ = _state(kaggle, pushed)
    for _ in range(PATIENT_STATES):  # a run that is about to end is worth a short wait
        if state not in RUNNING:
            break
        time.sleep(first_pause())
        state, _ = _state(kaggle, pushed)
    else:
        raise KaggleError(f"the run is still {state.lower()}: make status says when it is done")
    files, log = _list_output(kaggle, pushed)
    digest = pushed.get("source_digest", "")
    folder = RUNS_FOLDER / f"kaggle-{pushed.get('version') or digest[:12]}"
    try:
        RUNS_FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=RUNS_FOLDER, prefix=".kaggle-") as aside:
            fetched = Path(aside) / "output"
            fetched.mkdir()
            for file in tqdm(
                files, desc="output", leave=False, disable=None if progress_bar else True
            ):
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
        check_submission(read_submission(submission), TEST_IMAGES, SUBMISSION)
        found = read_json(folder / METRICS)
        there = str(found.get("source_digest", "")) if isinstance(found, dict) else ""
    except InputError as error:
        raise KaggleError(f"the output is not good: {error}") from error
    if digest and there != digest:
        raise KaggleError(
            f"the output is of another version (sources {there[:12] or 'unknown'}) than was pushed "
            f"({digest[:12]}): wait for the run to end, make status, and try again"
        )
