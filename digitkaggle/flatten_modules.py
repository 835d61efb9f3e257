"""Modules cut for the single file into what stays and what moves; and whether they get along there.

A module is cut by line numbers and never re-printed: comments, docstrings and layout survive to the
letter. Only imports move. Nothing is renamed, so two modules that bind one name are an error.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .flatten_rules import BundleError, refuse_what_cannot_survive

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
COMPREHENSIONS = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Module:
    """A module cut into what stays and what moves."""

    name: str
    path: str  # as messages and banners show it
    title: str  # the first line of its docstring
    docstring: str  # as it stands in the source, quotes included
    code: str  # all else but imports
    outside: tuple[Import, ...]  # imports from outside the package
    inside: tuple[tuple[str, str, int], ...]  # module, name and line of imports within it
    bindings: dict[str, int]  # names bound at top level, and the line


@dataclass(frozen=True, order=True)
class Import:
    """One imported name: `import module as bound`, or `from module import name as bound`."""

    module: str
    name: str  # empty for a plain import
    bound: str
    line: int = 0


def read_module(package: Path, name: str, entry: str, allowed: Sequence[str]) -> Module:
    """Parse a module, refuse what cannot survive, and cut its imports out."""
    path = f"{package.name}/{name}.py"
    source = (package / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    refuse_what_cannot_survive(tree, path, package.name, allowed, entry=name == entry)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    outside, inside = [], []
    for node in imports:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom) and node.level:
                inside.append((node.module or "", alias.name, node.lineno))
            else:
                module = node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
                imported = alias.name if isinstance(node, ast.ImportFrom) else ""
                bound = alias.asname or alias.name.partition(".")[0]
                outside.append(Import(module, imported, bound, node.lineno))
    title = str(ast.get_docstring(tree)).partition("\n")[0]
    docstring_end = tree.body[0].end_lineno or 1
    return Module(
        name=name,
        path=path,
        title=title,
        docstring="".join(source.splitlines(keepends=True)[:docstring_end]),
        code=_cut(source, imports, tree, path, start=docstring_end),
        outside=tuple(outside),
        inside=tuple(inside),
        bindings=dict(_bindings(tree.body)),
    )


def _cut(source: str, imports: list[ast.stmt], tree: ast.Module, path: str, *, start: int) -> str:
    """The source from a line on, without its import statements and the blank lines above them."""
    lines = source.splitlines(keepends=True)
    commented = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    others = {
        line
        for node in tree.body
        if node not in imports
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    cut: set[int] = set()
    for node in imports:
        taken = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if commented & set(taken):
            raise BundleError(
                f"{path}:{node.lineno}: a comment on an import would be lost: put it elsewhere"
            )
        if others & set(taken):
            raise BundleError(f"{path}:{node.lineno}: an import shares its line: give it its own")
        cut.update(taken)
        above = node.lineno - 1
        while above >= 1 and (above in cut or not lines[above - 1].strip()):
            cut.add(above)
            above -= 1
    return "".join(
        line for number, line in enumerate(lines, start=1) if number > start and number not in cut
    )


def _bindings(body: Sequence[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Every name that these statements bind at top level, imports aside, with its line."""
    for statement in body:
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            for node in _in_this_scope(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id, node.lineno
                elif isinstance(node, (*DEFINITIONS, ast.ExceptHandler)) and node.name:
                    yield node.name, node.lineno


def _in_this_scope(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, (*DEFINITIONS, *COMPREHENSIONS)):
        for child in ast.iter_child_nodes(node):
            yield from _in_this_scope(child)


def refuse_unknown_names(modules: Sequence[Module]) -> None:
    """Raise BundleError where a module imports what another only imported itself."""
    bound = {module.name: set(module.bindings) for module in modules}
    for module in modules:
        for source, name, line in module.inside:
            if name not in bound[source]:
                raise BundleError(
                    f"{module.path}:{line}: {source}.py itself defines no {name}: import it from "
                    "where it is defined"
                )


def refuse_clashes(modules: Sequence[Module]) -> None:
    """Raise BundleError where two modules bind one name to two things."""
    taken: dict[str, tuple[str, object]] = {}
    for module in modules:
        found: list[tuple[str, str, object]] = [
            (name, f"{module.path}:{line}", (module.name, name))
            for name, line in module.bindings.items()
        ]
        found += [
            (item.bound, f"{module.path}:{item.line}", (item.module, item.name))
            for item in module.outside
            if item.module != "__future__"
        ]
        for name, place, meaning in found:
            other_place, other_meaning = taken.setdefault(name, (place, meaning))
            # `import a.b` and `import a.c` both bind `a`, to the same thing.
            if meaning != other_meaning and not _same_package(meaning, other_meaning, name):
                raise BundleError(f"{name} means two things: {other_place} and {place}; rename one")


def _same_package(first: object, second: object, name: str) -> bool:
    return all(
        isinstance(meaning, tuple) and not meaning[1] and meaning[0].partition(".")[0] == name
        for meaning in (first, second)
    )
