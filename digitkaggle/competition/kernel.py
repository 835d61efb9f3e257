"""The kernel: made, checked, and pushed to Kaggle, which runs it."""

from __future__ import annotations

import json
import math
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
SOURCES = ("competition", "dataset", "kernel", "model")


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
    names = {"id": "slug", "title": "new_title", "keywords": "category_ids"}
    names |= {f"{source}_sources": f"{source}_data_sources" for source in SOURCES}
    fields = {names.get(key, key): metadata[key] for key in metadata if key != "code_file"}
    answer = kaggle.ask("save_kernel", text=text, **fields)
    url, version = answer.url, answer.version_number
    refused = {s: ones for s in SOURCES if (ones := getattr(answer, f"invalid_{s}_sources"))}
    if answer.error or refused or not version:  # which Kaggle's client calls a success
        reason = answer.error or f"{refused or 'no version'}: accept the rules at {RULES}"
        raise KaggleError(f"push: Kaggle refused it: {one_line(reason)}")
    digest = re.search(r'^SOURCE_DIGEST = "(\w{64})"', script, re.MULTILINE)
    entry = {"id": metadata["id"], "kind": kind, "url": url, "version": version}
    write_record("pushes", **entry, source_digest=digest[1] if digest else "")
    print(f"{url} version {version}")
    if wait:
        status(pauses=math.inf)


def make_kernel() -> None:
    """Run kernel/bundle.py, which writes the script and the notebook."""
    if not Path("kernel/bundle.py").is_file():
        raise InputError("there is no kernel/bundle.py here: push from the repository's folder")
    done = subprocess.run([sys.executable, "kernel/bundle.py"], capture_output=True, text=True)
    if done.returncode == 2:
        raise InputError(done.stderr.strip().rpartition("error: ")[2])
    if done.returncode:
        raise RuntimeError(f"kernel/bundle.py failed:\n{done.stderr}")


def server_notebook(path: Path) -> str:
    """A notebook as Kaggle's server takes it: each cell's source one text, and no outputs."""
    notebook = read_json(path)
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    return json.dumps(notebook)


def checked_metadata(kind: str) -> dict[str, Any]:
    """What kernel/kernel-metadata.json says for a kind of kernel; it is made if missing."""
    usual = read_json(USUAL_METADATA) | {"kernel_type": kind}
    usual["code_file"] = "main.py" if kind == "script" else "main.ipynb"
    found = read_json(METADATA) if METADATA.exists() else {}
    if not isinstance(found, dict):
        raise InputError(f"{METADATA} is no JSON object: remove it and push again")
    metadata = usual | found | {name: usual[name] for name in ("kernel_type", "code_file")}
    metadata["id"] = str(metadata["id"]).replace(NO_OWNER, kaggle_account()["username"] or NO_OWNER)
    write_json(METADATA, metadata)
    if fault := metadata_fault(metadata, usual):
        raise InputError(f"{METADATA}: {fault}")
    return metadata


def metadata_fault(metadata: dict[str, Any], usual: dict[str, Any]) -> str:
    """What is wrong with metadata, which Kaggle would not say; nothing is the empty text."""
    from slugify import slugify  # kaggle brings it; Kaggle makes addresses by the same rule

    for key, value in metadata.items():
        if key not in usual:
            return f"there is no key {key!r}; known are {', '.join(usual)}"
        if type(value) is not type(usual[key]):
            return f"{key} is like {json.dumps(usual[key])}, not {json.dumps(value)}"
    owner, _, slug = metadata["id"].partition("/")
    if owner in ("", NO_OWNER) or not slug:
        return f"id has no owner: put your user name in {NO_OWNER}'s place, or set KAGGLE_USERNAME"
    if (address := slugify(metadata["title"])) != slug:
        return f"the title makes the address {address!r}, but id says {slug!r}: make them agree"
    if COMPETITION not in metadata["competition_sources"]:
        return f"competition_sources lacks {COMPETITION}, the run's data"
    return ""
