"""What a module may not contain if it is to live in a single file with others, and why not.

Each refusal names file and line, and what to write instead. Rules here look at one module's syntax;
whether modules get along with each other is seen in `flatten_modules`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence

# What Kaggle's image has besides the standard library.
ALLOWED = ("torch", "numpy", "pandas", "scipy", "sklearn", "tqdm", "matplotlib")

# Names that mean another thing, or nothing, once all modules are one.
FORBIDDEN_NAMES = {
    "exec": "write the code out",
    "eval": "write the code out",
    "globals": "name what you need",
    "__import__": "import at the top level",
    "__file__": "pass the path in",
    "__name__": "write the name out",
    "__package__": "write the name out",
    "__spec__": "write the name out",
    "__path__": "pass the path in",
    "__doc__": "write the text out",
}
FORBIDDEN_MODULES = {
    "importlib": "import at the top level; resources cannot be read from a single file",
    "pkgutil": "resources cannot be read from a single file",
    "pkg_resources": "resources cannot be read from a single file",
    "runpy": "call the function",
}


class BundleError(Exception):
    """The package cannot be flattened; the message names file, line and what to write instead."""


def refuse_what_cannot_survive(
    tree: ast.Module, path: str, package: str, allowed: Sequence[str], *, entry: bool
) -> None:
    """Check a module's syntax.

    Args:
        path: of the module, for messages.
        package: the name of the package that it belongs to.
        allowed: packages from outside the standard library that may be imported.
        entry: whether this module is the one that may have a main guard.

    Raises:
        BundleError: something would mean another thing, or nothing, in a single file.
    """
    if not ast.get_docstring(tree):
        raise BundleError(f"{path}:1: the module has no docstring, which becomes its banner")
    guard = _main_guard(tree)
    if guard and not entry:
        raise BundleError(f"{path}:{guard.lineno}: a main guard: only the entry may have one")
    _refuse_names_and_forms(tree, path, package, guard)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _refuse_other_packages(node, path, allowed)


def _main_guard(tree: ast.Module) -> ast.If | None:
    for node in tree.body:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            return node
    return None


def _refuse_names_and_forms(
    tree: ast.Module, path: str, package: str, guard: ast.If | None
) -> None:
    top_level = set(map(id, tree.body))
    in_guard = set(map(id, ast.walk(guard.test))) if guard else set()
    for node in ast.walk(tree):
        place = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES and id(node) not in in_guard:
            raise BundleError(f"{place}: {node.id}: {FORBIDDEN_NAMES[node.id]}")
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            raise BundleError(f"{place}: a star import: name what you need")
        if isinstance(node, ast.If | ast.Try | ast.For | ast.While | ast.With | ast.Match):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    raise BundleError(
                        f"{path}:{inner.lineno}: a conditional import: import at the top level, "
                        "or at the start of the function that needs it"
                    )
        if isinstance(node, ast.ImportFrom) and node.level:
            _refuse_other_forms(node, place, at_top=id(node) in top_level)
        if isinstance(node, ast.Import | ast.ImportFrom):
            for root in _roots(node):
                if root == package:
                    raise BundleError(
                        f"{place}: {ast.unparse(node)}: inside the package write "
                        "`from .module import name`"
                    )
                if root in FORBIDDEN_MODULES:
                    raise BundleError(f"{place}: {root}: {FORBIDDEN_MODULES[root]}")


def _refuse_other_forms(node: ast.ImportFrom, place: str, *, at_top: bool) -> None:
    form = "inside the package write `from .module import name`"
    if not at_top:
        raise BundleError(f"{place}: {ast.unparse(node)}: {form} at top level")
    renamed = any(alias.asname for alias in node.names)
    if node.level > 1 or not node.module or "." in node.module or renamed:
        raise BundleError(f"{place}: {ast.unparse(node)}: {form}")


def _roots(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [] if node.level else [(node.module or "").partition(".")[0]]
    return [alias.name.partition(".")[0] for alias in node.names]


def _refuse_other_packages(
    node: ast.Import | ast.ImportFrom, path: str, allowed: Sequence[str]
) -> None:
    for root in _roots(node):
        if root not in sys.stdlib_module_names and root not in allowed:
            raise BundleError(
                f"{path}:{node.lineno}: {root} may be missing on Kaggle: use only the standard "
                f"library and {', '.join(allowed)}"
            )
