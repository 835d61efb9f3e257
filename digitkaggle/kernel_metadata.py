"""kernel-metadata.json: what tells Kaggle how to run the kernel, and whose it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import InputError
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


def kaggle_owner() -> str:
    """The user name in KAGGLE_USERNAME or kaggle.json, or nothing; the network is never asked.

    Raises:
        InputError: there is a kaggle.json that is none.
    """
    if os.environ.get("KAGGLE_USERNAME"):
        return os.environ["KAGGLE_USERNAME"]
    path = kaggle_config_folder() / "kaggle.json"
    if not path.is_file():
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
    return old if old.is_dir() else base / "kaggle"
