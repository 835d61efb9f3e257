"""Writes the modules of digitkaggle/core one after another: the kernel, as a script and a notebook.

    python kernel/bundle.py            writes main.py and main.ipynb
    python kernel/bundle.py --check    says whether they are up to date

A module is read as text and cut by line numbers, never printed from its syntax tree: comments and
layout survive to the letter, and the bytes are the same on every Python. Only imports move. Code
that would mean something else, or nothing, in a single file is refused, with file and line and what
to write instead.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KERNEL = Path(__file__).parent
CORE = KERNEL.parent / "digitkaggle" / "core"
sys.path.insert(0, str(KERNEL.parent))  # the repository's own package, installed or not

from digitkaggle.runs.source import compute_source_digest  # noqa: E402

MODULES = (
    *("basics", "data", "settings", "split", "augment", "networks", "optimizers", "training"),
    *("prediction", "run", "device", "layers", "affine", "folds", "parsing", "checks"),
    *("kaggle", "calibration", "classic", "console", "results", "drawing", "main"),
)
FIRST_TO_SKIP = "device"
# What the notebook needs before its first picture.
EARLY = (
    *("basics", "layers", "affine", "parsing", "checks", "kaggle", "classic", "console"),
    "drawing",
)
SKIP_TITLE = "The rest may be skipped"
SKIP_TEXT = (
    "The program needs it, but it is not about digits: device, files, pictures and the like."
)
# What Kaggle's image has besides the standard library.
KAGGLE_PACKAGES = ("torch", "numpy", "pandas", "scipy", "sklearn", "joblib", "tqdm", "matplotlib")
FORBIDDEN = {
    "exec": "write the code out",
    "eval": "write the code out",
    "globals": "name what you need",
    "__file__": "pass the path in",
    "__name__": "write the name out",
    "importlib": "import at the top level",
}
FUTURE = "from __future__ import annotations\n\n"
GUARD = 'if __name__ == "__main__":\n'
DIGEST = 'SOURCE_DIGEST = ""\n'
LONGEST_LINE = 100
# Marks a notebook's code cell as folded on Kaggle and in Jupyter: readers see text and pictures.
FOLDED = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}


class BundleError(Exception):
    """The core does not fit into one file; names file and line, and what to write instead."""


@dataclass(frozen=True)
class Chapter:
    """A module of the core, taken apart."""

    name: str
    title: str
    text: str  # the rest of the docstring, Markdown
    code: str  # everything except docstring and imports
    outside: list[ast.Import | ast.ImportFrom]  # imports of other packages
    inside: list[ast.ImportFrom]  # imports of other chapters, at the top level
    local: list[ast.ImportFrom]  # imports of other chapters, inside functions
    names: dict[str, int]  # bound at top level, with the line


def read_title(folder: Path, name: str) -> str:
    """A chapter's title, the first line of the module's docstring."""
    path = folder / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")
    return (ast.get_docstring(tree) or "").partition("\n")[0].strip().rstrip(".")


def read_chapter(folder: Path, name: str) -> Chapter:
    """Parse a module, refuse what does not survive in one file, and cut its imports out.

    A local import, of a later chapter, becomes a comment with that chapter's title.
    """
    path = folder / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines(keepends=True)
    docstring = ast.get_docstring(tree)
    if not docstring:
        raise BundleError(f"{path}:1: a docstring is missing; it becomes the chapter's text")
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for place, problem in find_problems(tree, imports, last=name == MODULES[-1]):
        raise BundleError(f"{path}:{place}: {problem}")
    last = max([tree.body[0].end_lineno or 1, *(node.end_lineno or 1 for node in imports)])
    early = [n for n in tree.body[1:] if n not in imports and n.lineno < last]
    import_lines = [line for node in imports for line in lines[node.lineno - 1 : node.end_lineno]]
    if early or any("#" in line for line in import_lines):
        raise BundleError(
            f"{path}:{last}: imports come first, and without comments, which would get lost"
        )
    text = docstring.partition("\n")[2]
    own = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    local = [node for node in own if node not in imports]
    for node in local:
        end = node.end_lineno or node.lineno
        end += end < len(lines) and not lines[end].strip()  # with the blank line below it
        names, title = ", ".join(a.name for a in node.names), read_title(folder, str(node.module))
        comment = f"{' ' * node.col_offset}# {names}: see the chapter {title}\n"
        lines[node.lineno - 1 : end] = [comment, *[""] * (end - node.lineno)]
    return Chapter(
        name=name,
        title=read_title(folder, name),
        text=text.strip(),
        code="".join(lines[last:]).strip() + "\n",
        outside=[node for node in imports if node not in own],
        inside=[node for node in own if node in imports],
        local=local,
        names=dict(find_bindings(tree)),
    )


def find_problems(
    tree: ast.Module, imports: list[ast.stmt], last: bool
) -> Iterator[tuple[int, str]]:
    """Line and problem of all that would mean something else, or nothing, in a single file."""
    guard = tree.body[-1] if last else None
    allowed = set(map(id, ast.walk(guard.test))) if isinstance(guard, ast.If) else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN and id(node) not in allowed:
            yield node.lineno, f"{node.id}: {FORBIDDEN[node.id]}"
        if isinstance(node, ast.ImportFrom) and node.level:
            plain = node.level == 1 and node.module and not any(a.asname for a in node.names)
            if not plain or node.names[0].name == "*":
                yield node.lineno, "inside the core write `from .module import name`"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            roots = [str(getattr(node, "module", "") or a.name).split(".")[0] for a in node.names]
            for root in roots:
                if root in FORBIDDEN:
                    yield node.lineno, f"{root}: {FORBIDDEN[root]}"
                if root not in sys.stdlib_module_names and root not in KAGGLE_PACKAGES:
                    available = ", ".join(KAGGLE_PACKAGES)
                    yield node.lineno, f"{root} may be missing on Kaggle: use {available}"
            if any(alias.name == "*" for alias in node.names):
                yield node.lineno, "a star import: name what you need"
    for node in tree.body:
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    yield inner.lineno, "a conditional import: import at the top level"


def find_bindings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a module binds at top level, except by imports, with its line."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id, inner.lineno


def check_chapters(chapters: list[Chapter]) -> None:
    """Raise BundleError where modules contradict each other in one file."""
    defined: dict[str, tuple[str, object]] = {}
    everywhere = {chapter.name: chapter.names for chapter in chapters}
    for number, chapter in enumerate(chapters):
        place = f"{chapter.name}.py"
        before = {earlier.name: earlier.names for earlier in chapters[:number]}
        for nodes, known in ((chapter.inside, before), (chapter.local, everywhere)):
            for node in nodes:
                for alias in node.names:
                    if alias.name not in known.get(str(node.module), {}):
                        raise BundleError(
                            f"{place}:{node.lineno}: {alias.name} is not defined in "
                            f"{node.module}.py, or that comes later: import it inside a function"
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
                raise BundleError(f"{place}:{line}: {name} means something else in {other_place}")


def merge_imports(chapters: list[Chapter], without: str = "") -> str:
    """All imports of other packages once, sorted: the standard library first.

    Those that stand in `without`, the text of earlier imports, are left out.
    """
    earlier = set(find_imports(ast.parse(without)))
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    nodes: list[ast.stmt] = [node for chapter in chapters for node in chapter.outside]
    for module, text in find_imports(ast.Module(nodes, [])):
        if (module, text) in earlier or module == "__future__":
            continue
        if module:
            named.setdefault(module, set()).add(text)
        else:
            plain.add(text)
    statements = [(name.split(".")[0], 0, f"import {name}") for name in plain]
    for module, names in named.items():
        line = f"from {module} import {', '.join(sorted(names, key=get_sort_key))}"
        if len(line) > LONGEST_LINE:
            line = f"from {module} import (\n    {', '.join(sorted(names, key=get_sort_key))},\n)"
        statements.append((module.split(".")[0], 1, line))
    groups: list[list[str]] = [[], []]
    for root, _, line in sorted(statements, key=lambda s: (s[1], s[2])):
        groups[root.split()[0] not in sys.stdlib_module_names].append(line)
    return "\n\n".join("\n".join(group) for group in groups if group) + "\n"


def find_imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The names that import statements bring, as module (of `from`) and text."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                text = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
                yield str(getattr(node, "module", "")), text


def get_sort_key(name: str) -> tuple[bool, bool, str]:
    """Constants first, then classes, then functions."""
    return not name.isupper(), not name[0].isupper(), name


def build_kernel(folder: Path = CORE, modules: tuple[str, ...] = MODULES) -> tuple[str, str]:
    """The texts of main.py and main.ipynb.

    Raises:
        BundleError: the core does not fit into one file.
    """
    found = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    if different := found ^ set(modules):
        raise BundleError(f"{folder}: {sorted(different)[0]}.py is missing, or not in MODULES")
    chapters = [read_chapter(folder, name) for name in modules]
    check_chapters(chapters)
    introduction = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    title, _, text = introduction.partition("\n")
    text += "\n\nMade by `make kernel` from digitkaggle/core; change it there."
    skip = modules.index(FIRST_TO_SKIP) if FIRST_TO_SKIP in modules else len(modules)
    imports = merge_imports(chapters[:skip])
    parts = [write_section(title.strip().rstrip("."), text.strip(), FUTURE + imports)]
    for number, chapter in enumerate(chapters):
        if number == skip:
            more_imports = merge_imports(chapters[skip:], without=imports)
            parts.append(write_section(SKIP_TITLE, SKIP_TEXT, more_imports))
        parts.append(write_section(chapter.title, chapter.text, chapter.code))
    digest = f'SOURCE_DIGEST = "{compute_source_digest(folder)}"\n'
    script = "\n\n".join(parts).replace(DIGEST, digest)
    every_import = FUTURE + merge_imports(chapters)
    return script, build_notebook(title, text, every_import, chapters).replace(
        json.dumps(DIGEST)[1:-1], json.dumps(digest)[1:-1]
    )


def write_section(title: str, text: str, code: str) -> str:
    """A part of the script: its title, its text as comments, its code."""
    lines = [f"# %% {title}", *(f"# {line}".rstrip() for line in text.splitlines())]
    return "\n".join(lines) + "\n" + (f"\n{code}" if code else "")


def build_notebook(title: str, text: str, imports: str, chapters: list[Chapter]) -> str:
    """The chapters as a notebook without outputs, each with the pictures of notebook.py below it.

    Pictures need what draws them, so the first cell has it; whatever may be skipped is one cell.
    """
    early = [c for c in chapters if c.name in EARLY]
    names = [chapter.name for chapter in chapters]
    skipped_from = names.index(FIRST_TO_SKIP) if FIRST_TO_SKIP in names else len(names)
    cells = [("markdown", f"# {title}\n{text}"), ("code", join_code(imports, early))]
    pictures = read_pictures()
    for chapter in chapters[:skipped_from]:
        if chapter not in early:
            cells.append(("markdown", f"# {chapter.title}\n\n{chapter.text}"))
            cells.append(("code", chapter.code))
            cells += pictures.get(chapter.name, [])
    rest = [chapter for chapter in chapters[skipped_from:] if chapter not in early]
    if rest:
        cells.append(("markdown", f"# {SKIP_TITLE}\n\n{SKIP_TEXT}"))
        cells.append(("code", join_code("", rest).partition(GUARD)[0]))
        cells += pictures[rest[-1].name]
    book = {
        "cells": [
            {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
            | (
                {"metadata": FOLDED, "execution_count": None, "outputs": []}
                if kind == "code"
                else {}
            )
            | {"source": source.strip().splitlines(keepends=True)}
            for number, (kind, source) in enumerate(cells, start=1)
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def join_code(imports: str, chapters: list[Chapter]) -> str:
    """The code of several chapters as one cell."""
    sections = [write_section(chapter.title, chapter.text, chapter.code) for chapter in chapters]
    return "\n\n".join([imports, *sections]) if imports else "\n\n".join(sections)


def read_pictures() -> dict[str, list[tuple[str, str]]]:
    """The cells of notebook.py, by the chapter that they stand below."""
    cells: dict[str, list[tuple[str, str]]] = {}
    for cell in (KERNEL / "notebook.py").read_text(encoding="utf-8").split("# %% ")[1:]:
        heading, _, code = cell.partition("\n")
        chapter, _, title = heading.partition(": ")
        cells.setdefault(chapter, []).extend([("markdown", f"## {title}"), ("code", code)])
    return cells


def main(arguments: list[str]) -> int:
    """Write the kernel, or check that it is up to date."""
    try:
        files = dict(zip(("main.py", "main.ipynb"), build_kernel(), strict=True))
    except (BundleError, SyntaxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if "--check" in arguments:
        stale = [n for n, text in files.items() if (KERNEL / n).read_text("utf-8") != text]
        print(f"{' and '.join(stale)} out of date: run make kernel" if stale else "up to date")
        return int(bool(stale))
    for name, text in files.items():
        temporary = KERNEL / f".{name}.part"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, KERNEL / name)
    lines = files["main.py"].splitlines()
    first = lines.index(f"# %% {SKIP_TITLE}")
    print(f"wrote kernel/main.py ({len(lines)} lines, the first {first} to read) and main.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
