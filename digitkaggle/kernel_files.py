"""The kernel's three files: the script, the same as a notebook, and the metadata for Kaggle."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import InputError
from .files import write_text
from .flatten import flatten
from .flatten_rules import BundleError
from .kernel_metadata import kept_metadata
from .kernel_story import CHAPTERS, INTRODUCTION
from .sources import KERNEL_ENTRY, PACKAGE, SourcesError, source_digest

SCRIPT = "main.py"
NOTEBOOK = "main.ipynb"
METADATA = "kernel-metadata.json"


def kernel_files(folder: Path, kind: str) -> tuple[dict[str, str], str]:
    """The texts of the kernel's files by name, and the digest of the sources that they carry.

    Args:
        folder: where they belong; what somebody changed in the metadata there stays.
        kind: `script` or `notebook`: what the metadata tell Kaggle to run.

    Raises:
        InputError: the library cannot be flattened, or the metadata that are there are none.
    """
    try:
        digest = source_digest()
        script = flatten(
            PACKAGE,
            KERNEL_ENTRY,
            digest,
            introduction=INTRODUCTION,
            chapters=CHAPTERS,
        )
    except (BundleError, SourcesError, SyntaxError) as error:
        raise InputError(str(error)) from error
    metadata = kept_metadata(folder / METADATA, kind)
    files = {
        SCRIPT: script,
        NOTEBOOK: notebook(script),
        METADATA: json.dumps(metadata, indent=2) + "\n",
    }
    return files, digest


def write_kernel(folder: Path, files: dict[str, str]) -> None:
    """Put the kernel's files into a folder; raises InputError where one cannot be written."""
    for name, text in files.items():
        write_text(folder / name, text)


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
