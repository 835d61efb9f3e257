"""The command line: `python -m digitkaggle [COMMAND]`, where no command means `run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .answers import FORMATS_OF_ANSWERS, answer_pictures, formatted, save_seen
from .compare import COMPARISON, compare_runs
from .competition import download, submit
from .data import DataSource, files_source
from .errors import InputError, KaggleError
from .files import write_text
from .interrupts import report_interrupt, termination_raised
from .kernel_metadata import KINDS
from .kernel_runs import output, push, status
from .locations import RUNS_FOLDER, find_data
from .log import logger
from .models import open_model
from .options import (
    OneLineParser,
    add_device_flags,
    add_run_flags,
    add_settings_flags,
    add_source_flags,
    add_verbosity_flags,
    budget_from_flags,
    set_up_from_flags,
    settings_from_flags,
    wants_bars,
)
from .pipeline import predict_run, run
from .ranks import joined_ranks, launch, processes_from_flags, report_error
from .report import make_report
from .results import read_results
from .run_data import digits_of_run
from .run_folder import MODEL, newest_run
from .sample import SAMPLE_SOURCE
from .settings import VERSION, Settings
from .sources import source_digest
from .tune import STUDY_FILE, TUNED_FILE, tune

PROGRAM = "python -m digitkaggle"
DESCRIPTION = "Classifies handwritten digits for Kaggle's Digit Recognizer."
EXAMPLES = f"""\
examples:
  {PROGRAM}                    the full run, on data/ or a sample
  {PROGRAM} --preset fast      the same in a hurry
  {PROGRAM} run --help         all flags of a run
  {PROGRAM} predict photo.jpg  what the newest run says of it
  {PROGRAM} demo               a page to draw digits on
  {PROGRAM} COMMAND --help     what a command does, and its flags
"""
PREDICT_DETAILS = """

A picture holds one digit, dark on light or light on dark, of any size and
colour, from a phone or a scanner. Of a blank, of several digits in one picture
and of what is no digit it is said so, rather than guessed."""
PREDICT_EXAMPLES = f"""\
examples:
  {PROGRAM} predict photo.jpg scan.png
  {PROGRAM} predict runs/best *.png --format csv --out answers.csv
  {PROGRAM} predict runs/best --data data/test.csv --out again.csv
"""
RUN_HELP = "a run's folder; left out, the newest finished run"
LOOPBACK = "127.0.0.1"
DEMO_PORT = 7860
KAGGLE_HELP = {
    "download": (
        "the competition's data into data/, checked",
        "Fetch the competition's data into data/, and check them.",
    ),
    "push": (
        "the kernel to Kaggle, which runs it",
        "Flatten the library into the kernel, and push it to Kaggle, which runs it.",
    ),
    "status": ("how that run stands", "Say how the run on Kaggle stands; if it failed, why."),
    "output": (
        "what that run made, into runs/",
        "Fetch what the run on Kaggle made into runs/kaggle-VERSION/, and check it.",
    ),
    "submit": (
        "a checked submission to the competition",
        "Check a submission, send it to the competition, and tell its score.",
    ),
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
        flags.arguments = arguments
        with termination_raised():
            return commands[flags.command](flags) or 0
    except (InputError, KaggleError) as error:
        return report_error(error, 3 if isinstance(error, KaggleError) else 2)
    except KeyboardInterrupt as interrupt:
        return report_interrupt(interrupt, [sys.executable, "-m", "digitkaggle", *arguments])


def make_parser() -> tuple[OneLineParser, dict[str, Callable[[argparse.Namespace], int | None]]]:
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
        usage=f"{PROGRAM} [run] [FLAG...]",
        description=run_command.__doc__,
    )
    add_run_flags(run_parser)
    tune_parser = _add_tune_parser(subparsers)
    for parser_of in (run_parser, tune_parser):
        parser_of.add_argument(
            "--sample", action="store_true", help="use the sample even if there is data"
        )

    _add_predict_parser(subparsers)
    _add_looking_parsers(subparsers)

    kaggle = {
        name: subparsers.add_parser(name, help=short, description=long)
        for name, (short, long) in KAGGLE_HELP.items()
    }
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
        "tune": tune_command,
        "predict": predict_command,
        "report": report_command,
        "compare": compare_command,
        "demo": demo_command,
        "download": lambda flags: download(force=flags.force, progress_bar=not flags.quiet),
        "push": lambda flags: push(kind=flags.kind, wait=flags.wait),
        "status": lambda flags: status(),
        "output": lambda flags: output(progress_bar=not flags.quiet),
        "submit": lambda flags: submit(flags.file, message=flags.message, force=flags.force),
    }


def _add_tune_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "tune",
        help="search for better settings by cross-validation",
        usage=f"{PROGRAM} tune --trials N [FLAG...]",
        description=tune_command.__doc__,
    )
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
    return parser


def _add_predict_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "predict",
        help="own pictures, or a test CSV, with a saved model",
        usage=f"{PROGRAM} predict [RUN] IMAGE... [FLAG...]\n"
        f"       {PROGRAM} predict [RUN] --data PATH [FLAG...]",
        description=predict_command.__doc__.partition("\n")[0] + PREDICT_DETAILS,
        epilog=PREDICT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="RUN, IMAGE",
        help=f"{RUN_HELP}; then pictures: PNG, JPEG, WebP, BMP, GIF, TIFF",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS_OF_ANSWERS,
        default=FORMATS_OF_ANSWERS[0],
        help="of the answers to pictures (default text)",
    )
    parser.add_argument(
        "--show",
        nargs="?",
        type=Path,
        const=Path("seen"),
        metavar="DIR",
        help="save what the network saw of each picture (default folder: seen)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="no pictures but test.csv, or a folder or zip with it",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where the answers go (default: the screen; of --data: predicted.csv in RUN)",
    )
    add_device_flags(parser)
    add_verbosity_flags(parser)


def _add_looking_parsers(subparsers: Any) -> None:
    """The commands with which one looks at finished runs."""
    report = subparsers.add_parser(
        "report", help="a run's report.html again", description=report_command.__doc__
    )
    report.add_argument(
        "--data", type=Path, metavar="PATH", help="the run's data, if they moved since"
    )
    compare = subparsers.add_parser(
        "compare", help="runs side by side", description=compare_command.__doc__
    )
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    compare.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"the picture of all curves (default: {COMPARISON} beside the first run)",
    )
    demo = subparsers.add_parser(
        "demo", help="a page to draw digits on", description=demo_command.__doc__
    )
    demo.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="ADDRESS",
        help=f"the address to listen on (default {LOOPBACK})",
    )
    demo.add_argument(
        "--port",
        type=int,
        default=DEMO_PORT,
        metavar="N",
        help=f"the port to listen on (default {DEMO_PORT}; 0: any that is free)",
    )
    add_device_flags(demo)
    for parser in (report, demo):
        parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help=RUN_HELP)
    for parser in (report, compare, demo):
        add_verbosity_flags(parser)


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


def _source(flags: argparse.Namespace) -> DataSource:
    if flags.sample and flags.data:
        raise InputError("--sample and --data exclude each other: give one of them")
    location = None if flags.sample else flags.data or find_data()
    if location is None:
        return SAMPLE_SOURCE
    return files_source(location, progress_bar=wants_bars(flags))


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


def predict_command(flags: argparse.Namespace) -> None:
    """Name the digits in pictures, or predict a test CSV again, with a saved model.

    Of a blank, of several digits and of what is no digit it is said so.
    """
    run_folder, pictures = _run_and_pictures(flags.paths)
    if flags.data is not None:
        if pictures:
            raise InputError(f"--data and {pictures[0]} exclude each other: give one of them")
        folder = run_folder or newest_run(RUNS_FOLDER)
        out = flags.out or (folder if folder.is_dir() else folder.parent) / "predicted.csv"
        predict_run(folder, flags.data, out, device=flags.device, progress_bar=not flags.quiet)
        logger.info("Predictions of %s are in %s.", folder, out)
        return
    if not pictures:
        raise InputError("nothing to predict: name pictures, or a test.csv by --data")
    if flags.show is not None and flags.show.exists() and not flags.show.is_dir():
        raise InputError(f"--show {flags.show}: that is a file; write --show last, or --show=DIR")
    folder = run_folder or newest_run(RUNS_FOLDER)
    networks, settings, compute = open_model(folder, device=flags.device)
    answers = answer_pictures(
        pictures, networks, compute, settings.views, progress_bar=not flags.quiet
    )
    if flags.show is not None:
        for path in save_seen(flags.show, pictures, answers):
            logger.debug("seen     %s", path)
    text = formatted(pictures, answers, flags.format)
    if flags.out is None:
        print(text)
    else:
        write_text(flags.out, text + "\n")


def _run_and_pictures(paths: Sequence[Path]) -> tuple[Path | None, Sequence[Path]]:
    """A run's folder (or its model.pt) if one is named first, and the pictures after it."""
    if not paths:
        return None, paths
    first, *others = paths
    if first.suffix == ".pt" or (first / MODEL).exists():
        return first, others
    if first.is_dir() or (not first.suffix and not first.exists()):
        raise InputError(f"{first} is no run's folder: it holds no {MODEL}")
    return None, paths


def report_command(flags: argparse.Namespace) -> None:
    """Make a finished run's report.html and its figures again, from the run's folder.

    Images are shown if the run's data are where the run found them, or where --data says.
    """
    folder = flags.run or newest_run(RUNS_FOLDER)
    metrics = read_results(folder).metrics
    digits, missing = digits_of_run(metrics, flags.data, progress_bar=not flags.quiet)
    if missing:
        logger.warning("%s", missing)
    logger.info("%s", make_report(folder, digits))


def compare_command(flags: argparse.Namespace) -> None:
    """Set runs side by side: accuracies, settings that differ, and whether by more than chance.

    Each run is compared with the first by McNemar's exact test on the validation images of both.
    """
    out = flags.out or flags.runs[0].resolve().parent / COMPARISON
    print(compare_runs(flags.runs, out))


def demo_command(flags: argparse.Namespace) -> None:
    """Serve a page to draw digits on, for this machine alone unless --host says otherwise."""
    # Imported here: it needs Gradio, an extra, which takes seconds to load.
    from .demo import serve

    folder = flags.run or newest_run(RUNS_FOLDER)
    serve(folder, host=flags.host, port=flags.port, device=flags.device)
