"""kernel-metadata.json: what tells Kaggle how to run the kernel, and whose it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_json
from .locations import COMPETITION

KINDS = ("script", "notebook")
OWNER_MISSING = "YOUR-KAGGLE-USERNAME"
# Kaggle makes the address from the title: the two must agree, or the kernel gets another name.
KERNEL_TITLE = "digitkaggle digit recognizer"
KERNEL_SLUG = "digitkaggle-digit-recognizer"


def kernel_metadata(kind: str, owner: str) -> dict[str, Any]:
    """The metadata of our kernel: private, on two T4 GPUs, without internet.

    Args:
        kind: `script` or `notebook`.
        owner: a Kaggle user name; empty puts a placeholder there, with which nothing is pushed.
    """
    return {
        "id": f"{owner or OWNER_MISSING}/{KERNEL_SLUG}",
        "title": KERNEL_TITLE,
        "code_file": "main.py" if kind == "script" else "main.ipynb",
        "language": "python",
        "kernel_type": kind,
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "dataset_sources": [],
        "competition_sources": [COMPETITION],
        "kernel_sources": [],
        "model_sources": [],
        "keywords": [],
    }


def kept_metadata(path: Path, kind: str) -> dict[str, Any]:
    """The metadata for a kind of kernel; what somebody changed in the file that is there stays.

    Raises:
        InputError: that file is no JSON object.
    """
    made = kernel_metadata(kind, kaggle_owner())
    if not path.exists():
        return made
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object: take it away and make kernel again")
    kept = made | found | {name: made[name] for name in ("code_file", "kernel_type")}
    if str(kept["id"]).startswith(OWNER_MISSING):
        kept["id"] = made["id"]
    return kept


def kaggle_owner() -> str:
    """The user name in KAGGLE_USERNAME or kaggle.json, or nothing; the network is never asked.

    Raises:
        InputError: there is a kaggle.json that is none.
    """
    if os.environ.get("KAGGLE_USERNAME"):
        return os.environ["KAGGLE_USERNAME"]
    path = kaggle_config_folder() / "kaggle.json"
    if not os.path.isfile(path):  # unlike Path's, false where one may not look
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["username"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the file that Kaggle gives: make a new one in your account's settings"
        ) from error


def kaggle_config_folder() -> Path:
    """Where the Kaggle client looks for kaggle.json."""
    if "KAGGLE_CONFIG_DIR" in os.environ:
        return Path(os.environ["KAGGLE_CONFIG_DIR"])
    old = Path.home() / ".kaggle"
    base = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    return old if os.path.isdir(old) else base / "kaggle"


def check_metadata(metadata: Any, name: str) -> None:
    """Refuse metadata with which a push would do something else than one thinks.

    Kaggle passes over misspelt keys, takes a wrong title for another kernel's, and reads text where
    true or false should be.

    Raises:
        InputError: names the file and the key.
    """
    if not isinstance(metadata, dict):
        raise InputError(f"{name} is no JSON object: make kernel")
    right = kernel_metadata("script", "owner")
    for key in metadata:
        if key not in right:
            raise InputError(f"{name}: there is no key {key!r}; known are {', '.join(right)}")
    for key, example in right.items():
        if key not in metadata:
            raise InputError(f"{name}: {key} is missing: make kernel")
        value = metadata[key]
        if type(value) is not type(example):
            kind = {bool: "true or false", list: "a list", str: "text"}[type(example)]
            raise InputError(f"{name}: {key} is {kind}, not {value!r}")
    owner, slash, slug = metadata["id"].partition("/")
    if owner == OWNER_MISSING or not owner or not slash or not slug:
        raise InputError(
            f"{name}: id has no owner: put your Kaggle user name in the place of {OWNER_MISSING}, "
            "or set KAGGLE_USERNAME"
        )
    if len(metadata["title"]) < 5 or title_slug(metadata["title"]) != slug:
        raise InputError(
            f"{name}: the title {metadata['title']!r} makes the address "
            f"{title_slug(metadata['title'])!r}, but id says {slug!r}: make them agree"
        )
    if metadata["kernel_type"] not in KINDS:
        raise InputError(f"{name}: kernel_type is {' or '.join(KINDS)}")
    if metadata["code_file"] != kernel_metadata(metadata["kernel_type"], "")["code_file"]:
        raise InputError(f"{name}: code_file {metadata['code_file']!r} is none of ours")
    if COMPETITION not in metadata["competition_sources"]:
        raise InputError(f"{name}: competition_sources lacks {COMPETITION}: the run has no data")


def title_slug(title: str) -> str:
    """The address that Kaggle makes of a title."""
    # The kaggle client brings this package.
    from slugify import slugify

    return slugify(title)
