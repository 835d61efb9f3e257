"""The commands that talk to Kaggle: `download`, `push`, `status`, `output` and `submit`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .competition import submit
from .competition_data import download
from .kernel_metadata import KINDS
from .kernel_push import push
from .kernel_runs import output, status
from .options import add_verbosity_flags


def add_kaggle_commands(commands: Any) -> None:
    """Add the way round with Kaggle to the parser's commands."""

    def add(
        name: str, short: str, long: str, act: Callable[[argparse.Namespace], object]
    ) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=short, description=long)
        add_verbosity_flags(parser)
        parser.set_defaults(act=act)
        return parser

    parser = add(
        "download",
        "the competition's data into data/, checked",
        "Fetch the competition's data into data/, and check them.",
        lambda flags: download(force=flags.force, progress_bar=not flags.quiet),
    )
    _add_force(parser)
    parser = add(
        "push",
        "the kernel to Kaggle, which runs it",
        "Flatten the library into the kernel, and push it to Kaggle, which runs it.",
        lambda flags: push(kind=flags.kind, wait=flags.wait),
    )
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help="what to run on Kaggle")
    parser.add_argument("--wait", action="store_true", help="follow the run to its end")
    add(
        "status",
        "how that run stands",
        "Say how the run on Kaggle stands; if it failed, why.",
        lambda flags: status(),
    )
    add(
        "output",
        "what that run made, into runs/",
        "Fetch what the run on Kaggle made into runs/kaggle-VERSION/, and check it.",
        lambda flags: output(progress_bar=not flags.quiet),
    )
    parser = add(
        "submit",
        "a checked submission to the competition",
        "Check a submission, send it to the competition, and tell its score.",
        lambda flags: submit(flags.file, message=flags.message, force=flags.force),
    )
    _add_force(parser)
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="default is the newest run's"
    )
    parser.add_argument("--message", default="", metavar="TEXT", help="stands with the submission")


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="even if it was done before")
