"""The one logger. The command line and the kernel give it a voice; as a library we stay silent."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

logger = logging.getLogger("digitkaggle")
logger.addHandler(logging.NullHandler())


class _Lines(logging.Formatter):
    """Bare messages; where several processes write, each of their lines with a name before it."""

    name = ""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self.name:
            return text
        return "\n".join(f"{self.name}  {line}" for line in text.splitlines() if line.strip())


def show_log(level: int = logging.INFO) -> None:
    """Print messages of `level` and above, bare, warnings on standard error, the rest on output."""
    plain = _Lines("%(message)s")
    usual = logging.StreamHandler(sys.stdout)
    usual.addFilter(lambda record: record.levelno < logging.WARNING)
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    for handler in (usual, warnings):
        handler.setFormatter(plain)
        logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


def log_level() -> int:
    """What is told: messages of this level and above."""
    return logger.level


def set_log_level(level: int | None) -> None:
    """Tell messages of `level` and above; None tells none."""
    logger.setLevel(logging.CRITICAL + 1 if level is None else level)


@contextlib.contextmanager
def lines_named(name: str, level: int) -> Iterator[None]:
    """Inside, messages of `level` and above are told, each line with a name before it."""
    before = logger.level
    set_log_level(level)
    _Lines.name = name
    try:
        yield
    finally:
        _Lines.name = ""
        set_log_level(before)
