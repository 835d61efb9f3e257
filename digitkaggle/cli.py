"""The command line: `python -m digitkaggle [COMMAND]`, where no command means `run`."""

from __future__ import annotations

import argparse
import gc
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
from .core.basics import VERSION, InputError, logger, show_log
from .core.main import OneLineParser, add_run_flags, settings_from_flags
from .core.prediction import predict_probabilities
from .core.results import write_file
from .core.settings import Settings
from .demo.answers import answer_pictures, formatted, save_seen
from .demo.page import serve
from .report.compare import compare_runs
from .report.page import make_report
from .runs.budget import TimeBudget, parse_duration
from .runs.files import read_json, read_test_images
from .runs.folder import REPORT, RUNS, newest_run
from .runs.local import run_in_folder
from .runs.results import accuracy_in_words, digits_of_run, open_model, read_results
from .sample import available_digits, sample_digits

RUN_HELP = "a run's folder; left out, the newest finished run"
NO_MEMORY = ("allocate memory", "enough memory", "out of memory", "could not create a")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 1 a worker died (or a fault of ours, which is raised), 2 wrong use or bad input, 3
    Kaggle or the network failed, 130 interrupted by Ctrl-C, 143 by SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = make_parser()
    if not arguments or arguments[0] not in {*commands, "-h", "--help", "--version"}:
        arguments.insert(0, "run")
    signal.signal(signal.SIGTERM, interrupt)
    gc.freeze()  # what is imported stays, and need not be looked through again and again
    try:
        flags = parser.parse_args(arguments)
        set_up(flags)
        flags.act(flags)
    except (Exception, KeyboardInterrupt) as error:
        code, line = explained(error, arguments)
        if not code:
            raise
        print(line, file=sys.stderr)
        return code
    return 0


def interrupt(number: int, frame: Any) -> None:
    """Let SIGTERM end a command as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def explained(error: BaseException, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code for what ended a command, and a line about it; 0 for a fault of ours."""
    cause: BaseException | None = error
    while cause:  # a library that is interrupted may make an error of its own of it
        if isinstance(cause, KeyboardInterrupt):
            # Given again, --fresh would throw away what was saved.
            again = shlex.join(part for part in arguments if part != "--fresh")
            code = 128 + (signal.SIGTERM if signal.SIGTERM in cause.args else signal.SIGINT)
            return code, f"interrupted; to go on: python -m digitkaggle {again}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (InputError, KaggleError)):
        return 2 if isinstance(error, InputError) else 3, f"error: {error}"
    if type(error).__name__ == "TerminatedWorkerError":  # joblib's, whose import takes a while
        return 1, "error: a worker died; what is done is saved: give the same command again"
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    if isinstance(error, MemoryError) or any(part in said for part in NO_MEMORY):
        return 2, "error: out of memory: lower --piece-size or --batch-size, --jobs or --widths"
    return 0, ""


def set_up(flags: argparse.Namespace) -> None:
    """Give the log its level, and torch its threads."""
    if flags.quiet:
        os.environ["TQDM_DISABLE"] = "1"
    show_log(logging.WARNING if flags.quiet else logging.DEBUG if flags.verbose else logging.INFO)
    given = vars(flags)
    for name in ("threads", "jobs"):
        if given.get(name) is not None and given[name] < 1:
            raise InputError(f"--{name} {given[name]}: at least 1 is needed")
    torch.set_num_threads(given.get("threads") or torch.get_num_threads())


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
    search = command(tune_command, "tune")
    for training in (run, search):
        training.add_argument("--sample", action="store_true", help="the sample, even with data")
        training.add_argument("--settings", type=Path, metavar="FILE", help="JSON; flags win")
        add_run_flags(training)
    run.add_argument("--fresh", action="store_true", help="start anew where this run was begun")
    run.add_argument("--time-budget", metavar="TIME", help="end within 90s, 45m or 2h")
    run.add_argument("--jobs", type=int, metavar="N", help="members at once; default: one a GPU")
    run.add_argument("--cluster", default="", metavar="ADDRESS", help="a Dask scheduler")
    search.add_argument("--trials", type=int, required=True, metavar="N", help="in the study")
    search.add_argument("--folds", type=int, default=3, metavar="N", help="of the validation")
    search.add_argument("--study", type=Path, metavar="FILE", help="where the trials are kept")

    predict = command(predict_command, "predict")
    predict.add_argument("paths", nargs="*", type=Path, metavar="RUN, IMAGE", help=RUN_HELP)
    predict.add_argument("--format", choices=("text", "csv", "json"), default="text")
    seen = {"nargs": "?", "const": Path("seen"), "help": "save what it saw"}
    predict.add_argument("--show", type=Path, metavar="DIR", **seen)
    predict.add_argument("--data", type=Path, metavar="PATH", help="test.csv in place of pictures")
    predict.add_argument("--out", type=Path, metavar="FILE", help="where the answers go")
    again = "a finished run's report.html and its figures again"
    report = command(lambda flags: report_run(flags.run or newest_run()), "report", again)
    beside = "runs side by side: accuracies, settings, and whether they differ by more than chance"
    compare = command(lambda flags: print(compare_runs(flags.runs, flags.out)), "compare", beside)
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    compare.add_argument("--out", type=Path, metavar="FILE", help="the picture of all curves")
    compare.set_defaults(out=RUNS / "compare.png")
    demo = command(demo_command, "demo")
    demo.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on")
    demo.add_argument("--port", type=int, default=7860, metavar="N", help="0: any that is free")
    for looking in (report, demo):
        looking.add_argument("run", nargs="?", type=Path, metavar="RUN", help=RUN_HELP)
    for predicting in (predict, demo):
        predicting.add_argument("--device", default="auto", metavar="NAME")
        predicting.add_argument("--threads", type=int, metavar="N")

    portable = command(export_command, "export")
    portable.add_argument("run", nargs="?", type=Path, metavar="RUN", help=RUN_HELP)
    portable.add_argument("--out", type=Path, default=Path("digits.onnx"), metavar="FILE")

    fetch = command(lambda flags: download(force=flags.force), "download", "data into data/")
    send = command(lambda flags: push(kind=flags.kind, wait=flags.wait), "push", "the kernel")
    send.add_argument("--kind", choices=("script", "notebook"), default="script")
    send.add_argument("--wait", action="store_true", help="follow the run to its end")
    command(lambda flags: status(), "status", "how the run on Kaggle stands; if it failed, why")
    command(lambda flags: report_run(output()), "output", "what that run made, and its report")
    sent = "a submission, checked, to the competition; its score"
    enter = command(lambda flags: submit(flags.file, flags.message, flags.force), "submit", sent)
    enter.add_argument("file", nargs="?", type=Path, help="default: the newest run's")
    enter.add_argument("--message", default="", metavar="TEXT", help="goes with the submission")
    for sending in (fetch, enter):
        sending.add_argument("--force", action="store_true", help="even if it was done before")
    return parser, list(commands.choices)


def asked_settings(flags: argparse.Namespace, preset: str) -> Settings:
    """The preset, changed by the settings file, changed by the flags."""
    changes = read_json(flags.settings) if flags.settings else {}
    return settings_from_flags(flags, preset, changes)


def run_command(flags: argparse.Namespace) -> None:
    """Load, split, augment, train with early stopping, predict, and write submission.csv."""
    settings, budget = asked_settings(flags, "balanced"), None
    if flags.time_budget:
        started = time.time() - time.process_time()  # about: imports do not wait for much
        budget = TimeBudget(parse_duration(flags.time_budget), started)
    digits = available_digits(flags.data, sample=flags.sample)
    how = {name: getattr(flags, name) for name in ("out", "device", "fresh", "threads", "cluster")}
    folder = run_in_folder(settings, digits, jobs=flags.jobs or 0, budget=budget, **how)
    if not (folder / REPORT).exists():
        make_report(folder, digits)
    logger.info("%s", "\n".join(accuracy_in_words(read_results(folder).metrics)))
    logger.info("%s holds the submission, the model and %s", folder, REPORT)
    logger.info("next: make submit (to Kaggle), make demo (a page to draw digits on)")


def tune_command(flags: argparse.Namespace) -> None:
    """Search for better settings by cross-validation on the training images."""
    from .tune import STUDY_FILE, TUNED_FILE, tune  # which needs an extra, Optuna

    how = {name: getattr(flags, name) for name in ("trials", "folds", "device")}
    how |= {"study_file": flags.study or STUDY_FILE, "out": flags.out or TUNED_FILE}
    tune(asked_settings(flags, "fast"), available_digits(flags.data, sample=flags.sample), **how)


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
    answers = answer_pictures(pictures, networks, compute, settings.views)
    if flags.show:
        save_seen(flags.show, pictures, answers)
    text = formatted(pictures, answers, flags.format)
    write_file(flags.out, f"{text}\n".encode()) if flags.out else print(text)


def report_run(folder: Path) -> None:
    """Make the report of a run that is done, with its images if its data are here."""
    digits = digits_of_run(read_results(folder).metrics, sample_digits)
    logger.info("%s", make_report(folder, digits))


def export_command(flags: argparse.Namespace) -> None:
    """Write a run's model as an ONNX file, views and members inside, and try it."""
    from .export import export  # which needs an extra

    logger.info("%s", export(flags.run or newest_run(), flags.out))


def demo_command(flags: argparse.Namespace) -> None:
    """Serve a page to draw digits on, for this machine alone unless --host says otherwise."""
    serve(flags.run or newest_run(), host=flags.host, port=flags.port, device=flags.device)
