"""The commands that train: `run` and `tune`, their flags and what they do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .data import DataSource, files_source
from .errors import InputError
from .locations import find_data
from .options import (
    add_run_flags,
    add_settings_flags,
    add_source_flags,
    budget_from_flags,
    settings_from_flags,
    wants_bars,
)
from .pipeline import run
from .ranks import joined_ranks, launch, processes_from_flags
from .sample import SAMPLE_SOURCE
from .settings import Settings
from .sources import source_digest
from .tune import STUDY_FILE, TUNED_FILE, tune


def add_training_commands(commands: Any) -> None:
    """Add `run` and `tune` to the parser's commands."""
    run_parser = commands.add_parser(
        "run",
        help="the full run, from train.csv to submission.csv",
        usage="python -m digitkaggle [run] [FLAG...]",
        description=run_command.__doc__,
    )
    add_run_flags(run_parser)
    run_parser.set_defaults(act=run_command)
    tune_parser = commands.add_parser(
        "tune",
        help="search for better settings by cross-validation",
        usage="%(prog)s --trials N [FLAG...]",
        description=tune_command.__doc__,
    )
    _add_tune_flags(tune_parser)
    tune_parser.set_defaults(act=tune_command)
    for parser in (run_parser, tune_parser):
        parser.add_argument(
            "--sample", action="store_true", help="use the sample even if there is data"
        )


def _add_tune_flags(parser: argparse.ArgumentParser) -> None:
    how = add_source_flags(parser)
    how.add_argument(
        "--trials", type=int, required=True, metavar="N", help="in the study, earlier ones included"
    )
    how.add_argument(
        "--folds", type=int, default=3, metavar="N", help="of the cross-validation (default 3)"
    )
    how.add_argument(
        "--study",
        type=Path,
        default=STUDY_FILE,
        metavar="FILE",
        help=f"where the trials are kept (default {STUDY_FILE})",
    )
    how.add_argument(
        "--out",
        type=Path,
        default=TUNED_FILE,
        metavar="FILE",
        help=f"where the best settings go (default {TUNED_FILE})",
    )
    add_settings_flags(parser)


def run_command(flags: argparse.Namespace) -> int:
    """Load, split, augment, train with early stopping, predict, and write submission.csv."""
    settings = settings_from_flags(flags, default_preset=Settings().preset)
    source = _source(flags)
    processes = processes_from_flags(flags.processes, flags.device, settings.members)
    if processes > 1:
        return launch(processes, ["-m", "digitkaggle", *flags.arguments])
    with joined_ranks() as ranks:
        run(
            settings,
            source,
            out=flags.out,
            device=flags.device,
            fresh=flags.fresh,
            progress_bar=wants_bars(flags),
            source_digest=source_digest(),
            time_budget=budget_from_flags(flags, ranks),
            ranks=ranks,
        )
    return 0


def tune_command(flags: argparse.Namespace) -> None:
    """Search learning rates, weight decay, augmentation, label smoothing, dropout and width.

    What is set by flags is where the search starts from; what it does not search stays so. The same
    command goes on with a study that was cut off, and may run in several processes at once.
    """
    tune(
        settings_from_flags(flags, default_preset="fast"),
        _source(flags),
        trials=flags.trials,
        folds=flags.folds,
        study_file=flags.study,
        out=flags.out,
        device=flags.device,
        progress_bar=not flags.quiet,
    )


def _source(flags: argparse.Namespace) -> DataSource:
    if flags.sample and flags.data:
        raise InputError("--sample and --data exclude each other: give one of them")
    location = None if flags.sample else flags.data or find_data()
    if location is None:
        return SAMPLE_SOURCE
    return files_source(location, progress_bar=wants_bars(flags))
