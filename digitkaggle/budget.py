"""A time budget: how long it is, what is left of it, and how far it is spent step by step."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
LONGEST_BUDGET = 1000 * 3600
LONGEST_IMPORTS = 300


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `45m` or `1.5h`.

    Raises:
        InputError: it is none, or none that is of use.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text, re.ASCII)
    if not found:
        raise InputError(f"{text!r} is no duration: write 90s, 45m or 2h")
    seconds = float(found[1]) * UNIT_SECONDS[found[2]]
    if not 0 < seconds <= LONGEST_BUDGET:
        raise InputError(f"{text!r} is no time to train in: more than 0s, at most 1000h")
    return seconds


@dataclass(frozen=True)
class TimeBudget:
    """So many seconds, from the moment that the object is made, or from `started` on."""

    seconds: float
    started: float = dataclasses.field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds that remain; negative when the budget is overdrawn."""
        return self.started + self.seconds - time.monotonic()


def process_age(process: int | str = "self") -> float:
    """Seconds since a process started, its imports included; 0 where the system does not say."""
    try:
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, LookupError, AttributeError):
        return 0.0
    # Some containers tell the time of another start: imports take no such time.
    return age if 0 <= age < LONGEST_IMPORTS else 0.0


def share_spent(available: float) -> Callable[[], float]:
    """What tells, asked after every step, the share of the seconds from now that is spent.

    It looks ahead by a step as long as the last: 1 or more means that none fits in any more.
    """
    begun = asked = time.monotonic()

    def share() -> float:
        nonlocal asked
        now = time.monotonic()
        step, asked = now - asked, now
        return (now + step - begun) / available if available > 0 else 1.0

    return share
