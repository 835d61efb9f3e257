"""Ctrl-C and SIGTERM: the first lets the step end and be saved, the second ends at once."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal, whose number it carries, asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def termination_raised() -> Iterator[None]:
    """SIGTERM is raised as `Interrupted` inside, as Python raises Ctrl-C by itself.

    Either comes out even where a library has made an error of its own of it.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handling([signal.SIGTERM], interrupt):
        try:
            yield
        except Exception as error:
            # An extension module that is interrupted while it imports another raises ImportError.
            cause = error.__cause__
            while cause and not isinstance(cause, KeyboardInterrupt):
                cause = cause.__cause__
            if cause:
                raise cause from None
            raise


@contextlib.contextmanager
def signals_noted() -> Iterator[Callable[[], int]]:
    """The first Ctrl-C or SIGTERM inside is noted, for the work to stop where it likes.

    From then on both do what they did outside, so that a second one ends the work at once.

    Yields:
        What tells the number of the signal that came, 0 before.
    """
    noted = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        noted = number
        handlers.close()

    with contextlib.ExitStack() as handlers:
        handlers.enter_context(_handling(STOPPING_SIGNALS, note))
        yield lambda: noted


@contextlib.contextmanager
def _handling(numbers: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    """A handler for signals, except for those that are ignored, as in a shell's background."""
    before = {}
    # Python lets the main thread alone set handlers; elsewhere signals are somebody else's.
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            # None: a handler that Python did not install, and cannot put back.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def report_interrupt(interrupt: KeyboardInterrupt, command: Sequence[str]) -> int:
    """Say in one line how to go on, and return the exit code: 130 for Ctrl-C, 143 for SIGTERM."""
    # Given again, --fresh would throw away what was kept.
    again = shlex.join(part for part in command if part != "--fresh")
    print(f"interrupted; this goes on where it stopped: {again}", file=sys.stderr)
    return 128 + getattr(interrupt, "number", signal.SIGINT)
