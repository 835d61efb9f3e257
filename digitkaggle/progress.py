"""Progress bars: on standard error, on a terminal only, for what takes more than two seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def make_bar(items: Iterable[Any] | None = None, *, shown: bool, **options: Any) -> tqdm[Any]:
    """A bar that goes away when it is done; over items, or to be updated by hand.

    Args:
        items: to go through; None is a bar that counts what it is told of.
        shown: whether somebody wants to see it; where there is no terminal nobody does.
        options: as `tqdm`; its `delay` is two seconds unless given, and it does not `leave` a bar.
    """
    # None is tqdm's word for: on a terminal only.
    return tqdm(items, disable=None if shown else True, **({"leave": False, "delay": 2} | options))
