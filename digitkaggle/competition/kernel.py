"""The kernel: made, checked, and pushed to Kaggle, which runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..core.basics import InputError
from ..core.data import COMPETITION
from ..runs.files import read_json, write_json
from .client import RULES, Kaggle, KaggleError, kaggle_account, one_line
from .output import status
from .record import write_record

METADATA = Path("kernel/kernel-metadata.json")
USUAL_METADATA = Path(__file__).with_name("kernel-metadata.json")  # private, two T4, no internet
NO_OWNER = "YOUR-KAGGLE-USERNAME"
SOURCES = ("competition_sources", "dataset_sources", "kernel_sources", "model_sources")
# What the metadata call otherwise than the request.
FIELDS = {"id": "slug", "title": "new_title", "keywords": "category_ids"}
FIELDS |= {source: source.replace("_", "_data_") for source in SOURCES}


def push(kind: str = "script", wait: bool = False) -> None:
    """Make the kernel, `script` or `notebook`, and run it on Kaggle; `wait` for its end."""
    kaggle = Kaggle()
    make_kernel()
    metadata = checked_metadata(kind)
    script = Path("kernel/main.py").read_text(encoding="utf-8")
    text = script if kind == "script" else server_notebook(Path("kernel/main.ipynb"))
    if kaggle.secret in text:
        raise InputError(f"{metadata['code_file']} contains your Kaggle credentials: not pushed")
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
    """What kernel/kernel-metadata.json says for a kind of kernel; it is made if missing.

    InputError for what Kaggle would take without a word.
    """
    from slugify import slugify  # kaggle brings it; Kaggle makes addresses by the same rule

    usual = read_json(USUAL_METADATA) | {"kernel_type": kind}
    usual["code_file"] = "main.py" if kind == "script" else "main.ipynb"
    found = read_json(METADATA) if METADATA.exists() else {}
    if not isinstance(found, dict):
        raise InputError(f"{METADATA} is no JSON object: remove it and push again")
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
    if COMPETITION not in str(metadata["competition_sources"]):
        faults.append(f"competition_sources lacks {COMPETITION}, the run's data")
    if faults:
        raise InputError(f"{METADATA}: {'; '.join(faults)}")
    return metadata
