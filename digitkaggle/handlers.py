"""What each command does: functions of its parsed arguments."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .core.basics import InputError, logger
from .core.main import settings_from_args
from .core.results import MODEL, write_file
from .core.settings import Settings
from .demo.page import write_page
from .demo.server import serve_page
from .export import export, find_digits
from .report.compare import compare_runs
from .report.page import make_report
from .runs.budget import TimeBudget, parse_duration
from .runs.data import list_data_files, read_test_images
from .runs.files import read_json, refuse_overwriting
from .runs.finished import describe_accuracy, load_model, load_statistics, read_run
from .runs.folder import PAGE, REPORT, find_newest_run, list_run_files
from .runs.local import run_in_folder
from .sample import load_digits

# Settings of 0.3.0, which `tune` wrote into every file: with these values they did nothing.
GONE = {"learn_from_test": False, "erasing": [0]}


def load_settings(args: argparse.Namespace, default_preset: str) -> Settings:
    """The preset, changed by the settings file, changed by the flags."""
    changes = read_json(args.settings) if args.settings else {}
    used = {name: v for name, v in changes.items() if name not in GONE or v != GONE[name]}
    return settings_from_args(args, default_preset, used)


def handle_run(args: argparse.Namespace) -> None:
    """Load, split, augment, train with early stopping, predict, and write submission.csv."""
    settings, budget = load_settings(args, "balanced"), None
    if args.time_budget:
        # About the start of the process: so far it hardly waited.
        started = time.monotonic() - time.process_time()
        budget = TimeBudget(parse_duration(args.time_budget), started)
    digits = load_digits(args.data, sample=args.sample)
    folder = run_in_folder(
        settings,
        digits,
        out=args.out,
        device=args.device,
        fresh=args.fresh,
        jobs=args.jobs or 0,
        threads=args.threads,
        cluster=args.cluster,
        budget=budget,
    )
    if not (folder / REPORT).exists():
        make_report(folder, digits)
    metrics = read_run(folder).metrics
    logger.info("%s", "\n".join(describe_accuracy(metrics)))
    logger.info("%s holds the predictions, the model and %s", folder, REPORT)
    # Only the sample has labels of its test images, and its predictions are not for Kaggle.
    step = "make download (Kaggle's data)" if metrics.get("test") else "make submit (to Kaggle)"
    logger.info("next: %s, make demo (a page to draw digits on)", step)


def handle_tune(args: argparse.Namespace) -> None:
    """Search for better settings by cross-validation on the training images."""
    from .tune import STUDY_FILE, TUNED_FILE, tune  # which needs an extra, Optuna

    tune(
        load_settings(args, "fast"),
        load_digits(args.data, sample=args.sample),
        trials=args.trials,
        folds=args.folds,
        study_file=args.study or STUDY_FILE,
        out=args.out or TUNED_FILE,
        device=args.device,
    )


def handle_predict(args: argparse.Namespace) -> None:
    """Classify digits in pictures, or predict a test CSV again, with a saved model."""
    folder, *pictures = args.paths or [None]
    is_model = folder and (folder.suffix == ".pt" or (folder / MODEL).exists())
    if folder and not is_model and not (args.data and folder.is_dir()):
        folder, pictures = None, args.paths
    if bool(pictures) == bool(args.data):
        raise InputError("name pictures, or a test.csv by --data: one of them")
    folder = folder or find_newest_run()
    if args.data:
        out = args.out or (folder if folder.is_dir() else folder.parent) / "predicted.csv"
        refuse_overwriting([out], [*list_run_files(folder), *list_data_files(args.data)])
        model = load_model(folder, device=args.device)
        digits = model.predict(read_test_images(args.data)).argmax(dim=1).tolist()
        text = "".join(f"{number},{digit}\n" for number, digit in enumerate(digits, start=1))
        write_file(out, f"ImageId,Label\n{text}".encode())
        logger.info("The predictions of %s are in %s.", folder, out)
        return
    # They need OpenCV and scipy, for which other commands need not wait.
    from .demo.predictions import format_predictions, list_pictures, predict_pictures
    from .demo.sheets import list_sheets

    pictures = list_pictures(pictures)
    sheets = list_sheets(args.show, pictures) if args.show else []
    outputs = [*sheets, args.out] if args.out else sheets
    refuse_overwriting(outputs, [*list_run_files(folder), *pictures])
    model, statistics = load_model(folder, device=args.device), load_statistics(folder)
    predictions = predict_pictures(pictures, model, statistics, single=args.single, sheets=sheets)
    text = format_predictions(pictures, predictions, args.format)
    if args.out:
        write_file(args.out, f"{text}\n".encode(errors="surrogateescape"))
    else:
        print(text)
    if unreadable := [
        str(p) for p, one in zip(pictures, predictions, strict=True) if one.unreadable
    ]:
        count = f"{len(unreadable)} of {len(pictures)} pictures cannot be read"
        raise InputError(f"{count}: {', '.join(unreadable)[:300]}")


def report_run(folder: Path) -> None:
    """Write the report of a finished run, with images if its data are here."""
    logger.info("%s", make_report(folder, find_digits(folder)))


def handle_export(args: argparse.Namespace) -> None:
    """Write a run's model, views and members included, as an ONNX file or as a page."""
    run = args.run or find_newest_run()
    refuse_overwriting([args.out], list_run_files(run))
    logger.info("%s", export(run, args.out))


def handle_compare(args: argparse.Namespace) -> None:
    """Compare runs: accuracies, settings, and whether they differ by more than chance."""
    refuse_overwriting([args.out], [file for run in args.runs for file in list_run_files(run)])
    print(compare_runs(args.runs, args.out))


def handle_demo(args: argparse.Namespace) -> None:
    """Serve a page to draw digits on, only for this machine unless --host says otherwise."""
    run = args.run or find_newest_run()
    page = (run if run.is_dir() else run.parent) / PAGE
    logger.info("%s", write_page(run, page, find_digits(run)))
    serve_page(page, host=args.host, port=args.port)
