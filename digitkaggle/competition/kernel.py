"""The kernel on Kaggle: build and push it, follow its run, fetch its output."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..core.basics import InputError, logger
from ..core.console import show_progress
from ..core.kaggle import KAGGLE_TEST_IMAGES
from ..core.results import METRICS, SUBMISSION, write_file
from ..runs.files import read_json, write_json
from ..runs.folder import RUNS
from .client import RULES, Kaggle, KaggleError, fetch, find_account, join_lines
from .record import add_to_record, check_record, read_record
from .submit import check_submission

METADATA = Path("kernel/kernel-metadata.json")
DEFAULT_METADATA = Path(__file__).with_name("kernel-metadata.json")  # private, two T4, no internet
OWNER_PLACEHOLDER = "YOUR-KAGGLE-USERNAME"
CODE_FILES = {"script": "main.py", "notebook": "main.ipynb"}
SOURCES = ("competition_sources", "dataset_sources", "kernel_sources", "model_sources")
# Fields of the metadata that have other names in the request.
REQUEST_FIELDS = {"id": "slug", "title": "new_title", "keywords": "category_ids"}
REQUEST_FIELDS |= {source: source.replace("_", "_data_") for source in SOURCES}
RUNNING = ("QUEUED", "RUNNING", "NEW_SCRIPT", "CANCEL_REQUESTED")
LOG_LINES = 20
SETTLING_PAUSES = 15


def push(kind: str = "script", wait: bool = False) -> None:
    """Build the kernel, `script` or `notebook`, and run it on Kaggle; `wait` for its end.

    Raises InputError before anything is sent if the metadata are wrong, KaggleError if Kaggle
    refuses the kernel or, with `wait`, its run fails.
    """
    kaggle = Kaggle()
    build_kernel()
    metadata = prepare_metadata(kind)
    script = Path("kernel/main.py").read_text(encoding="utf-8")
    text = script if kind == "script" else read_notebook(Path("kernel/main.ipynb"))
    check_record()
    fields = {REQUEST_FIELDS.get(key, key): metadata[key] for key in metadata if key != "code_file"}
    response = kaggle.ask("save_kernel", text=text, **fields)
    refused = [source for part in SOURCES for source in getattr(response, f"invalid_{part}") or []]
    if response.error or refused or not response.version_number:  # a success to Kaggle's client
        reason = response.error or f"{refused or 'no version'}: accept the rules at {RULES}"
        raise KaggleError(f"push: Kaggle refused it: {join_lines(reason)}")
    digest = re.search(r'^SOURCE_DIGEST = "(\w{64})"', script, re.MULTILINE)
    entry = {"id": metadata["id"], "kind": kind, "url": response.url}
    entry |= {"version": response.version_number, "source_digest": digest[1]}
    add_to_record("pushes", entry)
    print(f"{response.url} version {response.version_number}")
    if wait:
        status(wait=True)


def build_kernel() -> None:
    """Run kernel/bundle.py, which writes the script and the notebook."""
    done = subprocess.run([sys.executable, "kernel/bundle.py"], capture_output=True, text=True)
    if done.returncode:
        reason = join_lines(done.stderr)
        raise InputError(f"kernel/bundle.py failed ({reason}): push from the repository's folder")


def read_notebook(path: Path) -> str:
    """A notebook as Kaggle's server takes it: the source of each cell is one string."""
    notebook = read_json(path)
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return json.dumps(notebook)


def prepare_metadata(kind: str) -> dict[str, Any]:
    """The contents of kernel-metadata.json, which is written with defaults for missing fields.

    Raises InputError for errors that Kaggle does not report.
    """
    from slugify import slugify  # comes with kaggle; Kaggle makes addresses by the same rule

    defaults = read_json(DEFAULT_METADATA)
    found = read_json(METADATA) if METADATA.exists() else {}
    metadata = defaults | found | {"kernel_type": kind, "code_file": CODE_FILES[kind]}
    username = find_account()["username"] or OWNER_PLACEHOLDER
    metadata["id"] = str(metadata["id"]).replace(OWNER_PLACEHOLDER, username)
    write_json(METADATA, metadata)
    problems = [f"{key!r} is not a field" for key in metadata if key not in defaults]
    for key, value in defaults.items():
        items = metadata[key] if isinstance(metadata[key], list) else []
        if type(metadata[key]) is not type(value) or not all(type(item) is str for item in items):
            problems.append(f"{key} is like {json.dumps(value)}, not {json.dumps(metadata[key])}")
    owner, _, slug = metadata["id"].partition("/")
    if owner in ("", OWNER_PLACEHOLDER) or not slug:
        advice = f"put your user name for {OWNER_PLACEHOLDER}, or set KAGGLE_USERNAME"
        problems.append(f"id has no owner: {advice}")
    address = slugify(str(metadata["title"]))
    if address != slug:
        problems.append(f"the title makes the address {address!r}, but id has {slug!r}")
    if problems:
        raise InputError(f"{METADATA}: {'; '.join(problems)}")
    return metadata


def status(wait: bool = False) -> str:
    """Print and return the state of the last push's run, with `wait` at its end.

    Raises InputError before the first push, KaggleError if the run failed.
    """
    pushed, kaggle = find_last_push(), Kaggle()
    method, owner, slug = "get_kernel_session_status", pushed["owner"], pushed["slug"]
    while True:
        response = kaggle.ask(method, user_name=owner, kernel_slug=slug)
        state = response.status.name
        age = datetime.now(UTC) - datetime.fromisoformat(pushed["time"])
        if state in RUNNING and not wait:
            break
        # Soon after a push, a final state may be that of the version before.
        if state not in RUNNING and age.total_seconds() > SETTLING_PAUSES * kaggle.pause:
            break
        time.sleep(kaggle.pause)
    print(f"{pushed['id']} version {pushed['version']}: {state.lower()}")
    if state in ("ERROR", "CANCEL_ACKNOWLEDGED"):
        _, log = list_output(kaggle, pushed)
        print(*log.splitlines()[-LOG_LINES:], sep="\n", file=sys.stderr)
        reason = join_lines(response.failure_message or "no reason given")
        raise KaggleError(f"the run ended in {state} ({reason}): see {pushed['url']}")
    return state


def output() -> Path:
    """Fetch the output of the last push's run into `runs/kaggle-VERSION/`; print the folder.

    Raises InputError if the folder cannot be written, KaggleError if the run has not finished or
    its output is not complete.
    """
    if status() in RUNNING:
        raise KaggleError("the run is still running: make status shows when it has finished")
    pushed, kaggle = find_last_push(), Kaggle()
    listed, log = list_output(kaggle, pushed)
    files = {"kaggle.log": log.encode()}
    for file in show_progress(listed, desc="output"):
        name = file.file_name
        if re.fullmatch(r"\w[\w.-]*", name):  # the kernel makes no folders
            files[name] = kaggle.call(f"fetch {name}", partial(fetch, file.url))
        else:
            logger.warning("left out an output file with the name %r", name)
    check_output(files, pushed["source_digest"])
    folder = RUNS / f"kaggle-{pushed['version']}"
    shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed cannot be written either
    for name in sorted(files, key=METRICS.__eq__):  # the metrics last: they mark a finished run
        write_file(folder / name, files[name])
    print(folder)
    return folder


def find_last_push() -> dict[str, Any]:
    """The record of the last push, with `owner` and `slug`, which Kaggle knows the kernel by."""
    pushes = read_record()["pushes"]
    if not pushes:
        raise InputError("nothing was pushed from here yet: make push")
    owner, slug = pushes[-1]["id"].split("/")
    return pushes[-1] | {"owner": owner, "slug": slug}


def list_output(kaggle: Kaggle, pushed: dict[str, Any]) -> tuple[list[Any], str]:
    """The files of a run's output, from all pages of the list, and its log."""
    method, owner, slug = "list_kernel_session_output", pushed["owner"], pushed["slug"]
    response = kaggle.ask(method, user_name=owner, kernel_slug=slug)
    files, log = response.files or [], response.log or ""
    while token := response.next_page_token:
        response = kaggle.ask(method, user_name=owner, kernel_slug=slug, page_token=token)
        files += response.files or []
    # Usually JSON: a list of texts with their times.
    with contextlib.suppress(ValueError, TypeError, KeyError):
        log = "".join(entry["data"] for entry in json.loads(log))
    return files, log


def check_output(files: dict[str, bytes], digest: str) -> None:
    """Raise KaggleError unless the output has a valid submission, made by the pushed version."""
    advice = "make status shows its log"
    for name in (SUBMISSION, METRICS):
        if name not in files:
            raise KaggleError(f"the output lacks {name}: {advice}")
    try:
        check_submission(files[SUBMISSION].decode(), KAGGLE_TEST_IMAGES, SUBMISSION)
        metrics = dict(json.loads(files[METRICS]))
    except (InputError, ValueError) as error:
        raise KaggleError(f"the output is not valid ({error}): {advice}") from error
    found = str(metrics.get("source_digest"))
    if found != digest:
        sources = f"sources {found[:12]}, not {digest[:12]} as pushed"
        raise KaggleError(f"the output is of another version ({sources}): try again later")
    for warning in metrics.get("warnings", []):
        logger.warning("%s", warning)
