"""The kernel: made, checked and pushed to Kaggle, which runs it; its state, and what it made."""

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

from ..core.basics import InputError, logger, progress
from ..core.data import KAGGLE_TEST_IMAGES
from ..core.results import METRICS, SUBMISSION, write_file
from ..runs.files import read_json, write_json
from ..runs.folder import RUNS
from .client import RULES, Kaggle, KaggleError, fetch, kaggle_account, one_line
from .record import read_record, write_record
from .submit import check_submission

METADATA = Path("kernel/kernel-metadata.json")
USUAL_METADATA = Path(__file__).with_name("kernel-metadata.json")  # private, two T4, no internet
NO_OWNER = "YOUR-KAGGLE-USERNAME"
SOURCES = ("competition_sources", "dataset_sources", "kernel_sources", "model_sources")
# What the metadata call otherwise than the request.
FIELDS = {"id": "slug", "title": "new_title", "keywords": "category_ids"}
FIELDS |= {source: source.replace("_", "_data_") for source in SOURCES}
RUNNING = ("QUEUED", "RUNNING", "NEW_SCRIPT", "CANCEL_REQUESTED")
LOG_LINES = 20
STALE = 15  # pauses


def push(kind: str = "script", wait: bool = False) -> None:
    """Make the kernel, `script` or `notebook`, and run it on Kaggle; `wait` for its end."""
    kaggle = Kaggle()
    make_kernel()
    metadata = checked_metadata(kind)
    script = Path("kernel/main.py").read_text(encoding="utf-8")
    text = script if kind == "script" else server_notebook(Path("kernel/main.ipynb"))
    write_record()
    fields = {FIELDS.get(key, key): metadata[key] for key in metadata if key != "code_file"}
    answer = kaggle.ask("save_kernel", text=text, **fields)
    refused = [source for part in SOURCES for source in getattr(answer, f"invalid_{part}") or []]
    if answer.error or refused or not answer.version_number:  # a success to Kaggle's client
        reason = answer.error or f"{refused or 'no version'}: accept the rules at {RULES}"
        raise KaggleError(f"push: Kaggle refused it: {one_line(reason)}")
    digest = re.search(r'^SOURCE_DIGEST = "(\w{64})"', script, re.MULTILINE)
    entry = {"id": metadata["id"], "kind": kind, "url": answer.url}
    entry |= {"version": answer.version_number, "source_digest": digest[1]}
    write_record("pushes", entry)
    print(f"{answer.url} version {answer.version_number}")
    if wait:
        status(wait=True)


def make_kernel() -> None:
    """Run kernel/bundle.py, which writes the script and the notebook."""
    done = subprocess.run([sys.executable, "kernel/bundle.py"], capture_output=True, text=True)
    if done.returncode:
        said = one_line(done.stderr)
        raise InputError(f"kernel/bundle.py failed ({said}): push from the repository's folder")


def server_notebook(path: Path) -> str:
    """A notebook as Kaggle's server takes it: each cell's source is one text."""
    notebook = read_json(path)
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return json.dumps(notebook)


def checked_metadata(kind: str) -> dict[str, Any]:
    """What kernel-metadata.json says, made if missing; InputError for what Kaggle lets pass."""
    from slugify import slugify  # kaggle brings it; Kaggle makes addresses by the same rule

    usual = read_json(USUAL_METADATA) | {"kernel_type": kind}
    usual["code_file"] = "main.py" if kind == "script" else "main.ipynb"
    found = read_json(METADATA) if METADATA.exists() else {}
    metadata = usual | found | {name: usual[name] for name in ("kernel_type", "code_file")}
    metadata["id"] = str(metadata["id"]).replace(NO_OWNER, kaggle_account()["username"] or NO_OWNER)
    write_json(METADATA, metadata)
    faults = [f"there is no key {key!r}" for key in metadata if key not in usual]
    for key, value in usual.items():
        if type(metadata[key]) is not type(value):
            faults.append(f"{key} is like {json.dumps(value)}, not {json.dumps(metadata[key])}")
    owner, _, slug = metadata["id"].partition("/")
    if owner in ("", NO_OWNER) or not slug:
        faults.append(f"id has no owner: put your user name for {NO_OWNER}, or set KAGGLE_USERNAME")
    address = slugify(str(metadata["title"]))
    if address != slug:
        faults.append(f"the title makes the address {address!r}, but id says {slug!r}")
    if faults:
        raise InputError(f"{METADATA}: {'; '.join(faults)}")
    return metadata


def status(wait: bool = False) -> str:
    """Print the state of the last push's run, now or at its end; KaggleError if it failed."""
    pushed, kaggle = last_push(), Kaggle()
    while True:
        answer = kaggle.ask("get_kernel_session_status", **pushed["kernel"])
        state, age = answer.status.name, datetime.now(UTC) - datetime.fromisoformat(pushed["time"])
        if state in RUNNING and not wait:
            break
        # Soon after the push an end may be that of the version before.
        if state not in RUNNING and age.total_seconds() > STALE * kaggle.pause:
            break
        time.sleep(kaggle.pause)
    print(f"{pushed['id']} version {pushed['version']}: {state.lower()}")
    if state in ("ERROR", "CANCEL_ACKNOWLEDGED"):
        _, log = list_output(kaggle, pushed["kernel"])
        print(*log.splitlines()[-LOG_LINES:], sep="\n", file=sys.stderr)
        reason = one_line(answer.failure_message or "no reason given")
        raise KaggleError(f"the run ended in {state} ({reason}): see {pushed['url']}")
    return state


def output() -> Path:
    """Get what the last push's run made into `runs/kaggle-VERSION/`; print the folder."""
    if status() in RUNNING:
        raise KaggleError("the run is still running: make status says when it is done")
    pushed, kaggle = last_push(), Kaggle()
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
