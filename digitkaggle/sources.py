"""Which modules the kernel is made of, and their digest, which tells one version from another."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent
KERNEL_ENTRY = "kernel_main"


class SourcesError(Exception):
    """Modules that import each other, with the way round, or a module that is not there."""


def imported_modules(source: str) -> list[str]:
    """The modules of the package that a module's source imports, in order of appearance."""
    return [
        node.module
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
    ]


def kernel_modules(
    package: Path = PACKAGE, entry: str = KERNEL_ENTRY, *, order: Sequence[str] = ()
) -> list[str]:
    """The entry and all that it imports of the package, each after what it needs.

    Args:
        package: the package's folder.
        entry: the module to start from.
        order: which comes first where needs leave it open; modules not in it last, by name.

    Raises:
        SourcesError: modules import each other, or what is not there.
    """
    needs: dict[str, list[str]] = {}

    def collect(module: str, path: list[str]) -> None:
        if module in path:
            circle = " -> ".join([*path[path.index(module) :], module])
            raise SourcesError(f"modules import each other: {circle}")
        if module not in needs:
            if not (package / f"{module}.py").is_file():
                raise SourcesError(f"{path[-1]} imports {module}, which is not there")
            source = (package / f"{module}.py").read_text(encoding="utf-8")
            found = sorted(set(imported_modules(source)))
            for needed in found:
                collect(needed, [*path, module])
            needs[module] = found

    collect(entry, [])
    wanted = [*order, *sorted(needs)]
    ordered: list[str] = []
    while len(ordered) < len(needs):
        ready = (m for m in needs if m not in ordered and set(needs[m]) <= set(ordered))
        ordered.append(min(ready, key=wanted.index))
    return ordered


def source_digest(package: Path = PACKAGE, entry: str = KERNEL_ENTRY) -> str:
    """SHA-256 over the names and texts of the kernel's modules."""
    total = hashlib.sha256()
    for module in kernel_modules(package, entry):
        text = (package / f"{module}.py").read_text(encoding="utf-8")
        total.update(f"{module}\n{len(text)}\n{text}".encode())
    return total.hexdigest()
