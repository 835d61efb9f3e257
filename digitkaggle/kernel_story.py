"""The story that the kernel tells."""

from __future__ import annotations

from .flatten import Chapter

CHAPTERS: tuple[Chapter, ...] = ()
