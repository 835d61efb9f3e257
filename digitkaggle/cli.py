"""The command line: `python -m digitkaggle [COMMAND]`, where no command means `run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .competition import download, submit
from .data import files_source
from .errors import InputError, KaggleError
from .interrupts import report_interrupt, termination_raised
from .kernel_metadata import KINDS
from .kernel_runs import output, push, status
from .locations import RUNS_FOLDER, find_data
from .log import logger
from .options import (
    OneLineParser,
    add_device_flags,
    add_run_flags,
    add_verbosity_flags,
    budget_from_flags,
    set_up_from_flags,
    settings_from_flags,
)
from .pipeline import predict_run, run
from .run_folder import newest_run
from .sample import SAMPLE_SOURCE
from .settings import PRESETS, VERSION, Settings
from .sources import source_digest

PROGRAM = "python -m digitkaggle"
DESCRIPTION = "Classifies handwritten digits for Kaggle's Digit Recognizer."
EXAMPLES = f"""\
examples:
  {PROGRAM}                       the full run: on data/ if there, else on a sample
  {PROGRAM} --preset fast         the quickest preset of {", ".join(PRESETS)}
  {PROGRAM} run --help            all flags of a run
  {PROGRAM} predict RUN --data PATH
                                              a saved model on a test CSV
"""
KAGGLE_HELP = {
    "download": "the competition's data into data/, checked",
    "push": "the kernel to Kaggle, which runs it",
    "status": "how that run stands",
    "output": "what that run made, into runs/",
    "submit": "a checked submission to the competition",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 2 wrong use or bad input, 3 Kaggle or the network failed, 130 interrupted by Ctrl-C, 143
    by SIGTERM; a fault of ours is an exception, which Python ends with 1.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = make_parser()
    if not arguments or arguments[0] not in {*commands, "-h", "--help", "--version"}:
        arguments.insert(0, "run")
    try:
        flags = parser.parse_args(arguments)
        set_up_from_flags(flags)
        with termination_raised():
            commands[flags.command](flags)
    except (InputError, KaggleError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, KaggleError) else 2
    except KeyboardInterrupt as interrupt:
        return report_interrupt(interrupt, [sys.executable, "-m", "digitkaggle", *arguments])
    return 0


def make_parser() -> tuple[OneLineParser, dict[str, Callable[[argparse.Namespace], None]]]:
    """The parser, and the function behind each command."""
    parser = OneLineParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"digitkaggle {VERSION}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    run_parser = subparsers.add_parser(
        "run",
        help="the full run, from train.csv to submission.csv",
        description=run_command.__doc__,
    )
    run_parser.add_argument(
        "--sample", action="store_true", help="use the sample even if there is data"
    )
    add_run_flags(run_parser)

    predict_parser = subparsers.add_parser(
        "predict", help="a saved model on a test CSV", description=predict_command.__doc__
    )
    predict_parser.add_argument(
        "run",
        nargs="?",
        type=Path,
        metavar="RUN",
        help="the run's folder; default is the newest run",
    )
    predict_parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="test.csv, or a folder or zip with it",
    )
    predict_parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default is predicted.csv in the run's folder"
    )
    add_device_flags(predict_parser)
    add_verbosity_flags(predict_parser)

    kaggle = {name: subparsers.add_parser(name, help=text) for name, text in KAGGLE_HELP.items()}
    for parser_of in kaggle.values():
        add_verbosity_flags(parser_of)
    for name in ("download", "submit"):
        kaggle[name].add_argument("--force", action="store_true", help="even if it was done before")
    kaggle["push"].add_argument(
        "--kind", choices=KINDS, default=KINDS[0], help="what to run on Kaggle"
    )
    kaggle["push"].add_argument("--wait", action="store_true", help="follow the run to its end")
    kaggle["submit"].add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="default is the newest run's"
    )
    kaggle["submit"].add_argument(
        "--message", default="", metavar="TEXT", help="stands with the submission"
    )
    return parser, {
        "run": run_command,
        "predict": predict_command,
        "download": lambda flags: download(force=flags.force, progress_bar=not flags.quiet),
        "push": lambda flags: push(kind=flags.kind, wait=flags.wait),
        "status": lambda flags: status(),
        "output": lambda flags: output(progress_bar=not flags.quiet),
        "submit": lambda flags: submit(flags.file, message=flags.message, force=flags.force),
    }


def run_command(flags: argparse.Namespace) -> None:
    """Load, split, augment, train with early stopping, predict, and write submission.csv."""
    if flags.sample and flags.data:
        raise InputError("--sample and --data exclude each other: give one of them")
    location = None if flags.sample else flags.data or find_data()
    run(
        settings_from_flags(flags, default_preset=Settings().preset),
        SAMPLE_SOURCE if location is None else files_source(location),
        out=flags.out,
        device=flags.device,
        fresh=flags.fresh,
        progress_bar=not flags.quiet,
        source_digest=source_digest(),
        time_budget=budget_from_flags(flags),
    )


def predict_command(flags: argparse.Namespace) -> None:
    """Predict the images of a test CSV with a saved model, and write a submission."""
    folder = flags.run or newest_run(RUNS_FOLDER)
    out = flags.out or (folder if folder.is_dir() else folder.parent) / "predicted.csv"
    predict_run(folder, flags.data, out, device=flags.device)
    logger.info("Predictions of %s are in %s.", folder, out)
