"""Flattens the library into one readable script, `kernel/main.py`, for Kaggle.

    python kernel/bundle.py            writes main.py, main.ipynb and kernel-metadata.json
    python kernel/bundle.py --check F  says whether F is what the sources make today

How that is done is in the library: `digitkaggle/flatten.py` lays the modules one after another, the
story that it tells is in `digitkaggle/kernel_story.py`, and what cannot survive in a single file is
refused by `digitkaggle/flatten_rules.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from digitkaggle.errors import InputError
from digitkaggle.kernel_files import METADATA, NOTEBOOK, SCRIPT, kernel_files, write_kernel
from digitkaggle.kernel_metadata import KINDS, OWNER_MISSING

KERNEL_FOLDER = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the kernel, or check a file against what the sources make."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--kind", choices=KINDS, default="script", help="what the metadata tell Kaggle to run"
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="is FILE, either kind, current?")
    flags = parser.parse_args(arguments)
    try:
        files, _ = kernel_files(KERNEL_FOLDER, flags.kind)
        if flags.check:
            return _check(flags.check, files)
        write_kernel(KERNEL_FOLDER, files)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"made {', '.join(files)} in {KERNEL_FOLDER.name}/ (a {flags.kind} for Kaggle)")
    if json.loads(files[METADATA])["id"].startswith(OWNER_MISSING):
        print(
            f"The owner is missing: put your Kaggle user name in the place of {OWNER_MISSING} in "
            f"{METADATA}, or set KAGGLE_USERNAME and make it again."
        )
    return 0


def _check(path: Path, files: dict[str, str]) -> int:
    made = files[NOTEBOOK if path.suffix == ".ipynb" else SCRIPT]
    current = path.is_file() and path.read_bytes() == made.encode()
    print(f"{path} is {'current' if current else 'not current: run make kernel'}")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
