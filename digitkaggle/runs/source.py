"""The digest of the core's sources: one function, for a run here and for the kernel on Kaggle.

It needs only the standard library, because `kernel/bundle.py` calls it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

CORE = Path(__file__).parent.parent / "core"


def compute_source_digest(folder: Path = CORE) -> str:
    """SHA-256 over the names and texts of a folder's modules."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        total.update(f"{path.name}\n{len(text)}\n{text}".encode())
    return total.hexdigest()
