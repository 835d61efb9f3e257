"""The commands for what training left: `predict`, `report`, `compare` and `demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .answers import FORMATS_OF_ANSWERS, answer_pictures, formatted, save_seen
from .compare import COMPARISON, compare_runs
from .errors import InputError
from .files import write_text
from .locations import RUNS_FOLDER
from .log import logger
from .models import open_model
from .options import add_device_flags, add_verbosity_flags
from .pipeline import predict_run
from .report import make_report
from .results import read_results
from .run_data import digits_of_run
from .run_folder import MODEL, newest_run

PREDICT_DETAILS = """

A picture holds one digit, dark on light or light on dark, of any size and
colour, from a phone or a scanner. Of a blank, of several digits in one picture
and of what is no digit it is said so, rather than guessed."""
PREDICT_EXAMPLES = """\
examples:
  %(prog)s photo.jpg scan.png
  %(prog)s runs/best *.png --format csv --out answers.csv
  %(prog)s runs/best --data data/test.csv --out again.csv
"""
RUN_HELP = "a run's folder; left out, the newest finished run"
LOOPBACK = "127.0.0.1"
DEMO_PORT = 7860


def add_results_commands(commands: Any) -> None:
    """Add `predict`, `report`, `compare` and `demo` to the parser's commands."""
    _add_predict(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_demo(commands)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="own pictures, or a test CSV, with a saved model",
        usage="%(prog)s [RUN] IMAGE... [FLAG...]\n       %(prog)s [RUN] --data PATH [FLAG...]",
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
    parser.set_defaults(act=predict_command)


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


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report", help="a run's report.html again", description=report_command.__doc__
    )
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help=RUN_HELP)
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="the run's data, if they moved since"
    )
    add_verbosity_flags(parser)
    parser.set_defaults(act=report_command)


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


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare", help="runs side by side", description=compare_command.__doc__
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"the picture of all curves (default: {COMPARISON} beside the first run)",
    )
    add_verbosity_flags(parser)
    parser.set_defaults(act=compare_command)


def compare_command(flags: argparse.Namespace) -> None:
    """Set runs side by side: accuracies, settings that differ, and whether by more than chance.

    Each run is compared with the first by McNemar's exact test on the validation images of both.
    """
    out = flags.out or flags.runs[0].resolve().parent / COMPARISON
    print(compare_runs(flags.runs, out))


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo", help="a page to draw digits on", description=demo_command.__doc__
    )
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help=RUN_HELP)
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="ADDRESS",
        help=f"the address to listen on (default {LOOPBACK})",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEMO_PORT,
        metavar="N",
        help=f"the port to listen on (default {DEMO_PORT}; 0: any that is free)",
    )
    add_device_flags(parser)
    add_verbosity_flags(parser)
    parser.set_defaults(act=demo_command)


def demo_command(flags: argparse.Namespace) -> None:
    """Serve a page to draw digits on, for this machine alone unless --host says otherwise."""
    # Imported here: it needs Gradio, an extra, which takes seconds to load.
    from .demo import serve

    folder = flags.run or newest_run(RUNS_FOLDER)
    serve(folder, host=flags.host, port=flags.port, device=flags.device)
