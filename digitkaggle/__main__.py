"""`python -m digitkaggle`, and the program `digitkaggle`: a process around the command line."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, TextIO


class SafeStream:
    """Standard output or error that goes on when nobody reads it any more.

    Files are worth more than messages: after a closed pipe or a full disk the rest is dropped.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        if hasattr(stream, "reconfigure"):  # some programs replace the streams by their own
            # A console that cannot encode a character shows its number.
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write, or drop what cannot be written."""
        try:
            return self.stream.write(text)
        except OSError:
            self.drop_output()
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what cannot be written."""
        try:
            self.stream.flush()
        except OSError:
            self.drop_output()

    def drop_output(self) -> None:
        """Send what is written from now on, and what is still buffered, nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def main() -> int:
    """Run the command line on the process's arguments; returns the exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)  # None: closed before the start
        setattr(sys, name, SafeStream(stream or open(os.devnull, "w")))  # noqa: SIM115
    # To import torch takes seconds. An interrupt would raise somewhere in its code, which may even
    # swallow it; so far there is nothing to clean up.
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in signals}
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:  # as a shell's background processes ignore Ctrl-C
            signal.signal(number, lambda number, frame: os._exit(128 + number))
    from .runs.early import start_reading

    start_reading(sys.argv[1:])
    from .cli import main as run_command

    for number, handler in handlers.items():
        signal.signal(number, handler)
    code = run_command()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
