"""Files are written whole or not at all: beside their place first, then renamed into it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import InputError


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never half.

    Raises:
        InputError: the folder cannot be made, or the file cannot be written or renamed there.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(aside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            _sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): "
            "free some space, mind its rights, or name another folder"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Have a new name in a folder survive a power cut; Windows opens no folders and needs none."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def clear_leftovers(folders: Iterable[Path]) -> None:
    """Take away what `write_bytes` left beside its files in these folders when it was killed."""
    for folder in folders:
        for path in folder.glob(".*.part"):
            if re.fullmatch(r"\..+\.\d+\.part", path.name):
                remove_if_possible(path)


def remove_if_possible(path: Path) -> None:
    """Take a file away that would do no harm if it stayed."""
    with contextlib.suppress(OSError):
        path.unlink()


def write_text(path: Path, text: str) -> None:
    """Put UTF-8 text with LF line ends at `path` in one step; raises as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as indented JSON in one step; raises as `write_bytes` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def saved_bytes(value: Any) -> bytes:
    """What torch.save writes, through memory: a file's name would get into the bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def write_array(path: Path, array: np.ndarray) -> None:
    """Put an array at `path` as .npy in one step; raises as `write_bytes` does."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Put named arrays at `path` as .npz in one step; raises as `write_bytes` does."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        InputError: the file is missing, cannot be read, or is not JSON; names line and column.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not JSON: it is not even text") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})"
        ) from error
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON that can be read: it holds too long a number"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path} is not JSON that can be read: it is nested too deeply") from error
