"""Flattens a package into one readable script, told as a story.

Starting from one entry, the package's own modules are laid one after another, each after what it
needs and otherwise in the order of the chapters. A module's docstring becomes the text above its
code; a chapter's text stands above its modules. Imports within the package fall away, those from
outside are merged into one block at the top.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .flatten_modules import Import, Module, read_module, refuse_clashes, refuse_unknown_names
from .flatten_rules import ALLOWED, BundleError
from .settings import VERSION
from .sources import kernel_modules

DIGEST_LINE = 'SOURCE_DIGEST = ""'
LINE_LENGTH = 100
LONGEST_CLAUSE = 76


@dataclass(frozen=True)
class Chapter:
    """A part of the story: modules that belong together, and what to know before reading them."""

    title: str
    text: str  # Markdown
    modules: tuple[str, ...]  # in the order in which they are told, as far as their needs allow


def flatten(
    package: Path,
    entry: str,
    digest: str,
    *,
    allowed: Sequence[str] = ALLOWED,
    introduction: str = "",
    chapters: Sequence[Chapter] = (),
) -> str:
    """The whole script.

    Args:
        package: the package's folder.
        entry: the module to start from; the only one that may have a main guard.
        digest: of the sources; written into the header and the entry's SOURCE_DIGEST.
        allowed: packages from outside the standard library that may be imported.
        introduction: what the script does and reaches, and how to read it, in Markdown.
        chapters: the story; modules of none come last.

    Raises:
        BundleError: something in the package cannot survive in a single file.
        SourcesError: modules import each other, or what is not there.
    """
    order = [name for chapter in chapters for name in chapter.modules]
    modules = [
        read_module(package, name, entry, allowed)
        for name in kernel_modules(package, entry, order=order)
    ]
    refuse_unknown_names(modules)
    refuse_clashes(modules)
    head = (
        _header(package.name, introduction, modules, chapters, digest)
        + "\n"
        + _import_block(modules)
    )
    sections = "\n\n".join(part.strip("\n") + "\n" for part in _sections(modules, chapters))
    script = f"{head}\n\n{sections}"
    if script.count(DIGEST_LINE) > 1:
        raise BundleError(f"{DIGEST_LINE} stands more than once in {package.name}")
    return script.replace(DIGEST_LINE, f'SOURCE_DIGEST = "{digest}"')


def _sections(modules: Sequence[Module], chapters: Sequence[Chapter]) -> Iterator[str]:
    """A chapter's heading where it begins, and the modules: heading, docstring, code."""
    for number, module in enumerate(modules, start=1):
        if chapter := _chapter_begun(number, modules, chapters):
            yield _markdown(f"# {chapter.title}\n\n{chapter.text.strip()}")
        yield (
            f"# %% [markdown]\n# ## {number}. {module.path}\n\n"
            f"# %% [markdown]\n{module.docstring.strip()}\n\n# %%\n{module.code.lstrip()}"
        )


def _chapter_begun(
    number: int, modules: Sequence[Module], chapters: Sequence[Chapter]
) -> Chapter | None:
    """The chapter that begins with the module of a number, from 1; None within one."""
    homes = {name: chapter for chapter in chapters for name in chapter.modules}
    here = homes.get(modules[number - 1].name)
    before = homes.get(modules[number - 2].name) if number > 1 else None
    return here if here is not before else None


def _markdown(text: str) -> str:
    lines = [f"# {line}".rstrip() for line in text.splitlines()]
    return "\n".join(["# %% [markdown]", *lines])


def _header(
    package: str,
    introduction: str,
    modules: Sequence[Module],
    chapters: Sequence[Chapter],
    digest: str,
) -> str:
    """The title, what made this file, the introduction and the contents."""
    contents: list[str] = []
    for number, module in enumerate(modules, start=1):
        if chapter := _chapter_begun(number, modules, chapters):
            contents += ["", f"**{chapter.title}**", ""]
        contents.append(f"{number}. `{module.name}`: {_first_clause(module.title)}")
    listed = "\n".join(contents).strip()
    text = f"""\
# Handwritten digits for Kaggle's Digit Recognizer

{introduction.strip()}

Made by `make kernel` from {package} {VERSION}; change the library, not this file.
Sources (SHA-256): `{digest}`

## Contents

{listed}"""
    return f'''\
{_markdown(text)}

# %%
"""Trains on Kaggle's Digit Recognizer and writes submission.csv; generated, see above."""
'''


def _first_clause(title: str) -> str:
    """As much of a title as fits a line of the contents, cut where a clause ends."""
    title = title.rstrip(".")
    ends = [match.start() for match in re.finditer(r"[.,:;] ", title)] + [len(title)]
    return title[: max((end for end in ends if end <= LONGEST_CLAUSE), default=LONGEST_CLAUSE)]


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
