"""The command line: `python -m digitkaggle [COMMAND]`, where no command means `run`."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .competition.client import KaggleError
from .competition.download import download
from .competition.kernel import output, push, status
from .competition.submit import submit
from .core.basics import VERSION, InputError
from .core.console import configure_logging
from .core.device import set_threads
from .core.main import OneLineParser, add_run_arguments, in_notebook
from .handlers import (
    handle_compare,
    handle_demo,
    handle_export,
    handle_predict,
    handle_run,
    handle_tune,
    report_run,
)
from .runs.folder import RUNS, find_newest_run

RUN_HELP = "a run's folder; default: the newest finished run"
# How torch and its libraries report that memory is short.
OUT_OF_MEMORY = ("allocate memory", "enough memory", "out of memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 a worker died (or an error of ours, which is raised), 2 wrong use or bad input, 3
    Kaggle or the network failed, 130 interrupted by Ctrl-C, 143 by SIGTERM.
    """
    if arguments is None:
        arguments = [] if in_notebook() else sys.argv[1:]
    arguments = list(arguments)
    parser, commands = make_parser()
    if not arguments or arguments[0] not in {*commands, "-h", "--help", "--version"}:
        arguments.insert(0, "run")
    earlier_handler = signal.signal(signal.SIGTERM, interrupt)
    gc.freeze()  # imported modules stay, so the garbage collector need not visit them again
    try:
        args = parser.parse_args(arguments)
        apply_common_args(args)
        args.handler(args)
    except (Exception, KeyboardInterrupt) as error:
        code, line = explain_error(error, arguments)
        if not code:
            raise
        print(line, file=sys.stderr)
        return code
    finally:
        signal.signal(signal.SIGTERM, earlier_handler)
    return 0


def interrupt(number: int, frame: Any) -> None:
    """Let SIGTERM end a command as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def explain_error(error: BaseException, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code for an error and one line about it; 0 for an error of ours."""
    cause: BaseException | None = error
    while cause:  # a library that is interrupted may raise an exception of its own
        if isinstance(cause, KeyboardInterrupt):
            # With --fresh the same command would delete what was saved.
            again = shlex.join(part for part in arguments if part != "--fresh")
            code = 128 + (signal.SIGTERM if signal.SIGTERM in cause.args else signal.SIGINT)
            return code, f"interrupted; to resume: python -m digitkaggle {again}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, InputError):
        return 2, f"error: {error}"
    if isinstance(error, KaggleError):
        return 3, f"error: {error}"
    if type(error).__name__ == "TerminatedWorkerError":  # joblib's; to import it takes a while
        return 1, "error: a worker died; finished work is saved: run the same command again"
    message = str(error).lower() if isinstance(error, RuntimeError) else ""
    if isinstance(error, MemoryError) or any(part in message for part in OUT_OF_MEMORY):
        return 2, "error: out of memory: lower --piece-size or --batch-size, --jobs or --widths"
    return 0, ""


def apply_common_args(args: argparse.Namespace) -> None:
    """Set the level of the log and torch's threads."""
    if args.quiet:
        os.environ["TQDM_DISABLE"] = "1"
    level = logging.DEBUG if args.verbose else logging.INFO
    configure_logging(logging.WARNING if args.quiet else level)
    jobs = getattr(args, "jobs", None)
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: must be at least 1")
    set_threads(getattr(args, "threads", None))


def make_parser() -> tuple[OneLineParser, Sequence[str]]:
    """The parser, which sets `handler` to the function that does the work, and the commands."""
    parser = OneLineParser(prog="python -m digitkaggle", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"digitkaggle {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def add_command(handler: Callable, name: str, text: str = "") -> argparse.ArgumentParser:
        text = text or str(handler.__doc__)
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("--quiet", action="store_true", help="only warnings and errors")
        added.add_argument("--verbose", action="store_true", help="also every setting")
        added.set_defaults(handler=handler)
        return added

    run = add_command(handle_run, "run")
    search = add_command(handle_tune, "tune")
    for command in (run, search):
        command.add_argument("--sample", action="store_true", help="the sample, even with data")
        command.add_argument("--settings", type=Path, metavar="FILE", help="JSON; flags win")
        add_run_arguments(command)
    run.add_argument("--fresh", action="store_true", help="start again, even if begun or finished")
    run.add_argument("--time-budget", metavar="TIME", help="finish within 90s, 45m or 2h")
    run.add_argument("--jobs", type=int, metavar="N", help="members at once; default: one per GPU")
    run.add_argument("--cluster", default="", metavar="ADDRESS", help="a Dask scheduler")
    search.add_argument("--trials", type=int, required=True, metavar="N", help="in the study")
    search.add_argument("--folds", type=int, default=3, metavar="N", help="of the validation")
    search.add_argument("--study", type=Path, metavar="FILE", help="where the trials are saved")

    predict = add_command(handle_predict, "predict")
    predict.add_argument("paths", nargs="*", type=Path, metavar="RUN, IMAGE", help=RUN_HELP)
    predict.add_argument("--format", choices=("text", "csv", "json"), default="text")
    predict.add_argument(
        "--show",
        type=Path,
        nargs="?",
        const=Path("seen"),
        metavar="DIR",
        help="save a sheet of each picture: boxes, ink, the network's inputs",
    )
    predict.add_argument("--single", action="store_true", help="refuse pictures of several digits")
    predict.add_argument("--data", type=Path, metavar="PATH", help="test.csv in place of pictures")
    predict.add_argument("--out", type=Path, metavar="FILE", help="file for the predictions")
    again = "write a finished run's report.html and its figures again"
    report = add_command(lambda args: report_run(args.run or find_newest_run()), "report", again)
    compare = add_command(handle_compare, "compare")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    compare.add_argument("--out", type=Path, metavar="FILE", help="the picture of all curves")
    compare.set_defaults(out=RUNS / "compare.png")
    demo = add_command(handle_demo, "demo")
    demo.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on")
    demo.add_argument("--port", type=int, default=7860, metavar="N", help="0: any free port")
    for command in (report, demo):
        command.add_argument("run", nargs="?", type=Path, metavar="RUN", help=RUN_HELP)
    predict.add_argument("--device", default="auto", metavar="NAME")
    predict.add_argument("--threads", type=int, metavar="N")
    for flag in ("--device", "--threads"):  # taken for a version: the browser computes
        demo.add_argument(flag, help=argparse.SUPPRESS)

    export = add_command(handle_export, "export")
    export.add_argument("run", nargs="?", type=Path, metavar="RUN", help=RUN_HELP)
    export.add_argument(
        "--out",
        type=Path,
        default=Path("digits.onnx"),
        metavar="FILE",
        help="FILE.onnx for other programs, or FILE.html: a page to draw on, with the model in it",
    )

    fetch = add_command(
        lambda args: download(force=args.force), "download", "download the data into data/"
    )
    send = add_command(
        lambda args: push(kind=args.kind, wait=args.wait), "push", "run the kernel on Kaggle"
    )
    send.add_argument("--kind", choices=("script", "notebook"), default="script")
    send.add_argument("--wait", action="store_true", help="follow the run until it ends")
    add_command(lambda args: status(), "status", "show the state of the run on Kaggle")
    add_command(
        lambda args: report_run(output()), "output", "fetch the results of the run on Kaggle"
    )
    enter = add_command(
        lambda args: submit(args.file, args.message, args.force),
        "submit",
        "check a submission, submit it, and print its score",
    )
    enter.add_argument("file", nargs="?", type=Path, help="default: the newest run's")
    enter.add_argument("--message", default="", metavar="TEXT", help="goes with the submission")
    for command in (fetch, enter):
        command.add_argument("--force", action="store_true", help="even if it was done before")
    return parser, list(commands.choices)
