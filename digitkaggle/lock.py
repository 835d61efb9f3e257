"""One run in a folder at a time: a lock that dies with its process, so that none is ever stale."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def lock_folder(folder: Path) -> Callable[[], None] | None:
    """Lock a folder that exists, until the process ends or unlocks it.

    The operating system holds the lock, and drops it however the process ends, kill -9 included.

    Returns:
        What unlocks the folder; None while it is locked already, be it by this process.

    Raises:
        OSError: the folder cannot be opened.
    """
    return _lock_on_posix(folder) if os.name == "posix" else _lock_on_windows(folder)


def _lock_on_posix(folder: Path) -> Callable[[], None] | None:
    import fcntl

    # The folder itself takes the lock: no file of ours is left, and a reader needs no rights.
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        # Some network file systems lock no folders: better a run without a lock there than none.
        pass
    return lambda: os.close(handle)


def _lock_on_windows(folder: Path) -> Callable[[], None] | None:
    import msvcrt

    path = folder / ".lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError:
        os.close(handle)
        return None

    def unlock() -> None:
        os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink()

    return unlock
