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

    def add(name: str, act: Callable[[argparse.Namespace], None], short: str) -> Any:
        parser = commands.add_parser(name, help=short, description=act.__doc__)
        add_verbosity_flags(parser)
        parser.set_defaults(act=act)
        return parser

    parser = add("download", download_command, "the competition's data into data/, checked")
    _add_force(parser)
    parser = add("push", push_command, "the kernel to Kaggle, which runs it")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help="what to run on Kaggle")
    parser.add_argument("--wait", action="store_true", help="follow the run to its end")
    add("status", status_command, "how that run stands")
    add("output", output_command, "what that run made, into runs/")
    parser = add("submit", submit_command, "a checked submission to the competition")
    _add_force(parser)
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="default is the newest run's"
    )
    parser.add_argument("--message", default="", metavar="TEXT", help="stands with the submission")


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="even if it was done before")


def download_command(flags: argparse.Namespace) -> None:
    """Fetch the competition's data into data/, and check them."""
    download(force=flags.force, progress_bar=not flags.quiet)


def push_command(flags: argparse.Namespace) -> None:
    """Flatten the library into the kernel, and push it to Kaggle, which runs it."""
    push(kind=flags.kind, wait=flags.wait)


def status_command(flags: argparse.Namespace) -> None:
    """Say how the run on Kaggle stands; if it failed, why."""
    status()


def output_command(flags: argparse.Namespace) -> None:
    """Fetch what the run on Kaggle made into runs/kaggle-VERSION/, and check it."""
    output(progress_bar=not flags.quiet)


def submit_command(flags: argparse.Namespace) -> None:
    """Check a submission, send it to the competition, and tell its score."""
    submit(flags.file, message=flags.message, force=flags.force)
