"""Flattens the library into one readable script, `kernel/main.py`, for Kaggle.

    python kernel/bundle.py            writes main.py, main.ipynb and kernel-metadata.json
    python kernel/bundle.py --check F  says whether F is what the sources make today

Starting from one entry, the package's own modules are laid one after another, each after what it
needs, cut by line numbers and never re-printed: comments, docstrings and layout survive to the
letter. Only imports move: those inside the package fall away, those from outside are merged into
one block at the top. Nothing is renamed, so two modules that bind one name are an error, as is
everything else that would mean something different, or nothing, in a single file.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digitkaggle.errors import InputError
from digitkaggle.files import read_json, write_text
from digitkaggle.kernel_metadata import KINDS, OWNER_MISSING, kaggle_owner, kernel_metadata
from digitkaggle.settings import VERSION
from digitkaggle.sources import (
    KERNEL_ENTRY,
    PACKAGE,
    SourcesError,
    kernel_modules,
    source_digest,
)

KERNEL_FOLDER = Path(__file__).parent
ALLOWED = ("torch", "numpy", "pandas", "scipy", "sklearn", "tqdm", "matplotlib")
DIGEST_LINE = 'SOURCE_DIGEST = ""'
LINE_LENGTH = 100

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

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
COMPREHENSIONS = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class BundleError(Exception):
    """The package cannot be flattened; the message names file, line and what to write instead."""


@dataclass(frozen=True)
class Module:
    """A module cut into what stays and what moves."""

    name: str
    path: str  # as messages and banners show it
    title: str  # the first line of its docstring
    body: str  # docstring and code, without imports
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


def flatten(package: Path, entry: str, digest: str, *, allowed: Sequence[str] = ALLOWED) -> str:
    """The whole script.

    Args:
        package: the package's folder.
        entry: the module to start from; the only one that may have a main guard.
        digest: of the sources; written into the header and the entry's SOURCE_DIGEST.
        allowed: packages from outside the standard library that may be imported.

    Raises:
        BundleError: something in the package cannot survive in a single file.
        SourcesError: modules import each other, or what is not there.
    """
    names = kernel_modules(package, entry)
    modules = [read_module(package, name, entry, allowed) for name in names]
    _refuse_unknown_names(modules)
    _refuse_clashes(modules)
    parts = []
    for number, module in enumerate(modules, start=1):
        banner = f"# %% [markdown]\n# ## {number}. {module.path}\n# {module.title}\n\n# %%\n"
        parts.append(banner + module.body)
    head = _header(package.name, modules, digest) + "\n" + _import_block(modules) + "\n\n"
    script = head + "\n\n".join(part.strip("\n") + "\n" for part in parts)
    if script.count(DIGEST_LINE) > 1:
        raise BundleError(f"{DIGEST_LINE} stands more than once in {package.name}")
    return script.replace(DIGEST_LINE, f'SOURCE_DIGEST = "{digest}"')


def read_module(package: Path, name: str, entry: str, allowed: Sequence[str]) -> Module:
    """Parse a module, refuse what cannot survive, and cut its imports out."""
    path = f"{package.name}/{name}.py"
    source = (package / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree)
    if not docstring:
        raise BundleError(f"{path}:1: the module has no docstring, which becomes its banner")
    guard = _main_guard(tree)
    if guard and name != entry:
        raise BundleError(f"{path}:{guard.lineno}: a main guard: only {entry}.py may have one")
    _refuse_what_cannot_survive(tree, path, package.name, guard)
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
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _refuse_other_packages(node, path, allowed)
    return Module(
        name=name,
        path=path,
        title=docstring.partition("\n")[0],
        body=_cut(source, imports, tree, path),
        outside=tuple(outside),
        inside=tuple(inside),
        bindings=dict(_bindings(tree.body)),
    )


def _main_guard(tree: ast.Module) -> ast.If | None:
    for node in tree.body:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            return node
    return None


def _refuse_what_cannot_survive(
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


def _cut(source: str, imports: list[ast.stmt], tree: ast.Module, path: str) -> str:
    """The source without its import statements and the blank lines above them."""
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
    return "".join(line for number, line in enumerate(lines, start=1) if number not in cut)


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


def _refuse_unknown_names(modules: Sequence[Module]) -> None:
    bound = {module.name: set(module.bindings) for module in modules}
    for module in modules:
        for source, name, line in module.inside:
            if name not in bound[source]:
                raise BundleError(
                    f"{module.path}:{line}: {source}.py itself defines no {name}: import it from "
                    "where it is defined"
                )


def _refuse_clashes(modules: Sequence[Module]) -> None:
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


def _header(package: str, modules: Sequence[Module], digest: str) -> str:
    contents = "\n".join(
        f"# {number}. `{module.name}`: {_first_clause(module.title)}"
        for number, module in enumerate(modules, start=1)
    )
    return f'''\
# %% [markdown]
# # Handwritten digits for Kaggle's Digit Recognizer
#
# Made by `make kernel` from {package} {VERSION}; change the library, not this file. It does
# the full run: load, split, augment, train with early stopping, predict, write and check
# `submission.csv`. It needs no flags, and takes those of `python -m {package} run`; on
# Kaggle it finds the competition's data and the GPU by itself.
#
# Sources (SHA-256): `{digest}`
#
# ## Contents
{contents}
#
# Read 1 to {len(modules)} in order, each part needs only those above it; or start with the run
# itself, in `{package}/pipeline.py`, and look up what it calls.

# %%
"""Trains on Kaggle's Digit Recognizer and writes submission.csv; generated, see above."""
'''


def _first_clause(title: str) -> str:
    """As much of a title as fits a line of the contents."""
    clause = title.rstrip(".")
    for end in (": ", "; ", ", "):
        if len(clause) > 70:
            clause = clause.partition(end)[0]
    return clause


def _import_block(modules: Sequence[Module]) -> str:
    """All imports from outside, merged and sorted as ruff's isort sorts them."""
    found = {
        Import(item.module, item.name, item.bound) for module in modules for item in module.outside
    }
    sections = []
    for belongs in (_is_future, _is_standard, _is_other):
        here = sorted(item for item in found if belongs(item.module))
        plain = [_plain_import(item) for item in here if not item.name]
        from_modules = sorted({item.module for item in here if item.name})
        members = [
            _from_import(module, [item for item in here if item.module == module and item.name])
            for module in from_modules
        ]
        if plain or members:
            sections.append("\n".join([*plain, *members]))
    return "\n\n".join(sections)


def _is_future(module: str) -> bool:
    return module == "__future__"


def _is_standard(module: str) -> bool:
    return not _is_future(module) and module.partition(".")[0] in sys.stdlib_module_names


def _is_other(module: str) -> bool:
    return not _is_future(module) and not _is_standard(module)


def _plain_import(item: Import) -> str:
    renamed = item.bound != item.module.partition(".")[0]
    return f"import {item.module}" + (f" as {item.bound}" if renamed else "")


def _from_import(module: str, items: Sequence[Import]) -> str:
    def order(item: Import) -> tuple[int, str, str]:
        constant = item.name.isupper() and len(item.name) > 1
        kind = 0 if constant else 1 if item.name[0].isupper() else 2
        return kind, item.name, item.bound

    names = [
        item.name if item.name == item.bound else f"{item.name} as {item.bound}"
        for item in sorted(items, key=order)
    ]
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= LINE_LENGTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])


def notebook(script: str) -> str:
    """The script as a notebook, .ipynb, with no outputs and the same bytes for the same script."""
    # The kaggle client brings both packages.
    import jupytext
    import nbformat

    book = jupytext.reads(script, fmt="py:percent")
    for number, cell in enumerate(book.cells, start=1):
        cell["id"] = f"cell-{number}"  # random by default
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    book.nbformat, book.nbformat_minor = 4, 5
    nbformat.validate(book)
    return nbformat.writes(book) + "\n"


def kept_metadata(path: Path, kind: str) -> dict[str, Any]:
    """The metadata for a kind of kernel; what somebody changed in the file that is there stays.

    Raises:
        InputError: that file is no JSON object.
    """
    made = kernel_metadata(kind, kaggle_owner())
    if not path.exists():
        return made
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object: take it away and make kernel again")
    kept = made | found | {name: made[name] for name in ("code_file", "kernel_type")}
    if str(kept["id"]).startswith(OWNER_MISSING):
        kept["id"] = made["id"]
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the kernel, or check a file against what the sources make."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--kind", choices=KINDS, default="script", help="what the metadata tell Kaggle to run"
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="is FILE, either kind, current?")
    flags = parser.parse_args(arguments)
    try:
        script = flatten(PACKAGE, KERNEL_ENTRY, source_digest())
        metadata = kept_metadata(KERNEL_FOLDER / "kernel-metadata.json", flags.kind)
    except (BundleError, SourcesError, SyntaxError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    book = notebook(script)
    if flags.check:
        made = book if flags.check.suffix == ".ipynb" else script
        current = flags.check.is_file() and flags.check.read_bytes() == made.encode()
        print(f"{flags.check} is {'current' if current else 'not current: run make kernel'}")
        return 0 if current else 1
    files = {
        "main.py": script,
        "main.ipynb": book,
        "kernel-metadata.json": json.dumps(metadata, indent=2) + "\n",
    }
    try:
        for name, text in files.items():
            write_text(KERNEL_FOLDER / name, text)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"made {', '.join(files)} in {KERNEL_FOLDER.name}/ (a {flags.kind} for Kaggle)")
    if metadata["id"].startswith(OWNER_MISSING):
        print(
            f"The owner is missing: put your Kaggle user name in the place of {OWNER_MISSING} in "
            "kernel-metadata.json, or set KAGGLE_USERNAME and make it again."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
