"""Lays the modules of digitkaggle/core one after another: the kernel, as a script and a notebook.

    python kernel/bundle.py            writes main.py and main.ipynb
    python kernel/bundle.py --check    says whether they are what the sources make today

A module is read as text and cut by line numbers, never printed anew: comments and layout survive
to the letter, and the bytes are the same on every Python. Only imports move. What would mean
another thing, or nothing, in a single file is refused, with file and line and what to write.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KERNEL = Path(__file__).parent
CORE = KERNEL.parent / "digitkaggle" / "core"
MODULES = (
    *("basics", "settings", "split", "augment", "classic", "networks", "optimizers"),
    *("training", "prediction", "run", "data", "device", "results", "main"),
)
# What Kaggle's image has besides the standard library.
ALLOWED = ("torch", "numpy", "pandas", "scipy", "sklearn", "joblib", "tqdm", "matplotlib")
FORBIDDEN = {
    "exec": "write the code out",
    "eval": "write the code out",
    "globals": "name what you need",
    "__file__": "pass the path in",
    "__name__": "write the name out",
    "importlib": "import at the top level",
}
GUARD = 'if __name__ == "__main__":\n'
DIGEST = 'SOURCE_DIGEST = ""\n'
LONGEST_LINE = 100
# What a notebook says of a cell of code: folded, so that who scrolls sees text and pictures.
FOLDED = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}
CODE = {"metadata": FOLDED, "execution_count": None, "outputs": []}


class BundleError(Exception):
    """The core cannot be laid into one file; names file and line, and what to write instead."""


@dataclass(frozen=True)
class Chapter:
    """A module of the core, cut."""

    name: str
    title: str
    text: str  # the docstring's rest, Markdown
    code: str  # all but docstring and imports
    outside: list[ast.Import | ast.ImportFrom]  # imports from outside
    inside: list[ast.ImportFrom]  # imports of ours
    names: dict[str, int]  # bound at top level, and the line


def read_chapter(folder: Path, name: str) -> Chapter:
    """Parse a module, refuse what cannot survive, and cut its imports out."""
    path = folder / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines(keepends=True)
    docstring = ast.get_docstring(tree)
    if not docstring:
        raise BundleError(f"{path}:1: a docstring is missing, which becomes the chapter's text")
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for place, fault in refusals(tree, imports, last=name == MODULES[-1]):
        raise BundleError(f"{path}:{place}: {fault}")
    last = max([tree.body[0].end_lineno or 1, *(node.end_lineno or 1 for node in imports)])
    early = [n for n in tree.body[1:] if n not in imports and n.lineno < last]
    if early or any("#" in line for node in imports for line in lines_of(node, lines)):
        raise BundleError(
            f"{path}:{last}: imports come first, and without comments, which get lost"
        )
    title, _, text = docstring.partition("\n")
    own = [node for node in imports if isinstance(node, ast.ImportFrom) and node.level]
    return Chapter(
        name=name,
        title=title.strip().rstrip("."),
        text=text.strip(),
        code="".join(lines[last:]).strip() + "\n",
        outside=[node for node in imports if node not in own],
        inside=own,
        names=dict(bindings(tree)),
    )


def lines_of(node: ast.stmt, lines: list[str]) -> list[str]:
    """The source lines of a statement."""
    return lines[node.lineno - 1 : node.end_lineno]


def refusals(tree: ast.Module, imports: list[ast.stmt], last: bool) -> Iterator[tuple[int, str]]:
    """Line and fault of all that would mean another thing, or nothing, in a single file."""
    guard = tree.body[-1] if last and ast.unparse(tree.body[-1]).startswith("if __name__") else None
    allowed = set(map(id, ast.walk(guard.test))) if isinstance(guard, ast.If) else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN and id(node) not in allowed:
            yield node.lineno, f"{node.id}: {FORBIDDEN[node.id]}"
        if isinstance(node, ast.ImportFrom) and node.level:
            plain = node.level == 1 and node.module and not any(a.asname for a in node.names)
            if not plain or node not in imports or node.names[0].name == "*":
                yield node.lineno, "inside the core write `from .module import name` at the top"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            roots = [str(getattr(node, "module", "") or a.name).split(".")[0] for a in node.names]
            for root in roots:
                if root in FORBIDDEN:
                    yield node.lineno, f"{root}: {FORBIDDEN[root]}"
                if root not in sys.stdlib_module_names and root not in ALLOWED:
                    yield node.lineno, f"{root} may be missing on Kaggle: use {', '.join(ALLOWED)}"
            if any(alias.name == "*" for alias in node.names):
                yield node.lineno, "a star import: name what you need"
    for node in tree.body:
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    yield inner.lineno, "a conditional import: import at the top level"


def bindings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a module binds at top level, imports aside, with its line."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id, inner.lineno


def refuse_disagreements(chapters: list[Chapter]) -> None:
    """Raise BundleError where modules do not get along in one file."""
    defined: dict[str, tuple[str, object]] = {}
    for number, chapter in enumerate(chapters):
        place = f"{chapter.name}.py"
        before = {earlier.name: earlier.names for earlier in chapters[:number]}
        for node in chapter.inside:
            for alias in node.names:
                if alias.name not in before.get(str(node.module), {}):
                    raise BundleError(
                        f"{place}:{node.lineno}: {alias.name} is not defined in {node.module}.py, "
                        "or that comes later: import it from an earlier module that defines it"
                    )
        meanings = [(name, line, (place, name)) for name, line in chapter.names.items()]
        for node in chapter.outside:
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                source = (str(getattr(node, "module", "")), alias.name if alias.asname else bound)
                meanings.append((bound, node.lineno, source))
        for name, line, meaning in meanings:
            other_place, other = defined.setdefault(name, (f"{place}:{line}", meaning))
            if meaning != other:
                raise BundleError(f"{place}:{line}: {name} is another thing in {other_place}")


def merged_imports(chapters: list[Chapter]) -> str:
    """All imports from outside once, sorted: the standard library first."""
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    for node in (node for chapter in chapters for node in chapter.outside):
        for alias in node.names:
            text = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
            if isinstance(node, ast.ImportFrom):
                named.setdefault(str(node.module), set()).add(text)
            else:
                plain.add(text)
    named.pop("__future__", None)
    statements = [(name.split(".")[0], 0, f"import {name}") for name in plain]
    for module, names in named.items():
        line = f"from {module} import {', '.join(sorted(names, key=order))}"
        if len(line) > LONGEST_LINE:
            line = f"from {module} import (\n    {', '.join(sorted(names, key=order))},\n)"
        statements.append((module.split(".")[0], 1, line))
    groups: list[list[str]] = [[], []]
    for root, _, line in sorted(statements, key=lambda s: (s[1], s[2])):
        groups[root.split()[0] not in sys.stdlib_module_names].append(line)
    return "\n\n".join("\n".join(group) for group in groups if group) + "\n"


def order(name: str) -> tuple[bool, bool, str]:
    """Constants first, then classes, then the rest."""
    return not name.isupper(), not name[0].isupper(), name


def kernel(folder: Path = CORE, modules: tuple[str, ...] = MODULES) -> tuple[str, str]:
    """The texts of main.py and main.ipynb.

    Raises:
        BundleError: the core cannot be laid into one file.
    """
    there = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    if odd := there ^ set(modules):
        raise BundleError(f"{folder}: {sorted(odd)[0]}.py is missing, or not in MODULES")
    chapters = [read_chapter(folder, name) for name in modules]
    refuse_disagreements(chapters)
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        total.update(f"{path.name}\n{len(text)}\n{text}".encode())
    introduction = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    title, _, text = introduction.partition("\n")
    text += "\n\nMade by `make kernel` from digitkaggle/core; change it there."
    imports = "from __future__ import annotations\n\n" + merged_imports(chapters)
    cells = [(title.strip().rstrip("."), text.strip(), imports)]
    cells += [(chapter.title, chapter.text, chapter.code) for chapter in chapters]
    digest = f'SOURCE_DIGEST = "{total.hexdigest()}"\n'
    cells = [(title, text, code.replace(DIGEST, digest)) for title, text, code in cells]
    script = "\n\n".join(
        f"# %% {title}\n{commented(text)}\n\n{code}" if text else f"# %% {title}\n\n{code}"
        for title, text, code in cells
    )
    return script, notebook(cells)


def commented(text: str) -> str:
    """Markdown as comments."""
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())


def notebook(cells: list[tuple[str, str, str]]) -> str:
    """The chapters as a notebook without outputs; what shows pictures is in notebook.py."""
    parts = []
    for title, text, code in cells:
        parts.append(("markdown", f"# {title}\n\n{text}".strip()))
        parts.append(("code", code.partition(GUARD)[0].strip()))
    shown = (KERNEL / "notebook.py").read_text(encoding="utf-8").split("# %% ")[1:]
    for cell in shown:
        heading, _, code = cell.partition("\n")
        parts.append(("markdown", f"## {heading.strip()}"))
        parts.append(("code", code.strip()))
    book = {
        "cells": [
            {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
            | (CODE if kind == "code" else {})
            | {"source": text.splitlines(keepends=True)}
            for number, (kind, text) in enumerate(parts, start=1)
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the kernel, or check that it is current."""
    try:
        files = dict(zip(("main.py", "main.ipynb"), kernel(), strict=True))
    except (BundleError, SyntaxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if "--check" in arguments:
        stale = [n for n, text in files.items() if (KERNEL / n).read_text("utf-8") != text]
        print(f"{' and '.join(stale)} not current: run make kernel" if stale else "current")
        return int(bool(stale))
    for name, text in files.items():
        aside = KERNEL / f".{name}.part"
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, KERNEL / name)
    lines, chapters = files["main.py"].count("\n"), files["main.py"].count("\n# %% ") + 1
    print(f"made kernel/main.py ({lines} lines, {chapters} chapters) and kernel/main.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
