"""The one logger. The command line and the kernel give it a voice; as a library we stay silent."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("digitkaggle")
logger.addHandler(logging.NullHandler())


def show_log(level: int = logging.INFO) -> None:
    """Print messages of `level` and above, bare, warnings on standard error, the rest on output."""
    plain = logging.Formatter("%(message)s")
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
