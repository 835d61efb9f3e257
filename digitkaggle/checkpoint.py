"""What a resume needs, kept on disk so that no crash, full disk or torn file loses more than a bit.

Each state is a file of its own: its SHA-256 in a first line, then what torch.save writes. The one
before stays beside it, and is used where the newest is torn or was altered.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .errors import InputError
from .files import remove_if_possible, saved_bytes, write_bytes
from .log import logger
from .run_folder import CHECKPOINT

EARLIER = ".earlier"


def training_file(folder: Path, number: int) -> Path:
    """Where the state of a member in training is kept, in a run's folder."""
    return folder / CHECKPOINT / f"training-{number:04}.pt"


def refit_file(folder: Path, number: int) -> Path:
    """Where the state of a member that is trained anew on all images is kept."""
    return folder / CHECKPOINT / f"refit-{number:04}.pt"


def member_file(folder: Path, number: int) -> Path:
    """Where a member whose training is done is kept, in a run's folder."""
    return folder / CHECKPOINT / f"member-{number:04}.pt"


def keep_state(path: Path, state: dict[str, Any]) -> None:
    """Keep a state of tensors, numbers and plain containers; the one before stays beside it.

    Raises:
        InputError: it cannot be written; the one before is still there.
    """
    content = saved_bytes(state)
    digest = hashlib.sha256(content).hexdigest()
    try:
        if path.exists():
            os.replace(path, _earlier(path))
    except OSError as error:
        raise InputError(
            f"{path} cannot be moved ({error.strerror or error}): mind its folder's rights"
        ) from error
    write_bytes(path, f"{digest}\n".encode() + content)


def take_up_state(path: Path, take_up: Callable[[dict[str, Any]], Any]) -> Any:
    """Hand the newest whole state of a path to `take_up`, and return what that makes of it.

    What is torn, was altered, or does not fit is passed over and taken away, with a warning.
    Nothing in it is executed. The result is None where no state is left.
    """
    for kept in (path, _earlier(path)):
        try:
            return take_up(_read_state(kept))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(
                f"{kept} cannot be read ({error.strerror or error}): mind its rights, or start "
                "anew with --fresh"
            ) from error
        except MemoryError:
            raise
        except Exception as error:
            # Whatever a damaged file makes torch and `take_up` raise, there is one before it.
            logger.warning(
                "%s is damaged (%s): going on from what was kept before it.",
                kept,
                str(error).partition("\n")[0][:100] or type(error).__name__,
            )
            remove_if_possible(kept)
    return None


def drop_state(path: Path) -> None:
    """Take a state away, and the one before it."""
    for kept in (path, _earlier(path)):
        remove_if_possible(kept)


def _earlier(path: Path) -> Path:
    return path.with_name(path.name + EARLIER)


def _read_state(path: Path) -> dict[str, Any]:
    digest, _, content = path.read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("its digest is not that of its content")
    # Onto the CPU first: a run may go on where there is no GPU.
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
