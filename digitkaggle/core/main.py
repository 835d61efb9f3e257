"""The program.

Every setting is a flag, and no flag is needed. On Kaggle's two GPUs a process each trains every
other member, which changes only the time."""

from __future__ import annotations

import argparse
import builtins
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from .basics import Compute, InputError, logger
from .console import configure_logging
from .data import read_digits
from .device import choose_compute, set_threads
from .kaggle import get_kaggle_folder, on_kaggle, require_data
from .results import collect_metrics, prepare_folder, write_results
from .run import Member, run
from .settings import PRESETS, Settings, make_settings

SOURCE_DIGEST = ""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, so that they are printed like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise the error, with the command that prints help."""
        raise InputError(f"{message}: see {self.prog} --help")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a run to a parser: how to run, then one for each field of Settings."""
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder with both CSVs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    for field in dataclasses.fields(Settings):
        options: dict[str, Any] = {"type": type(field.default), "metavar": "N"}
        if isinstance(field.default, bool):
            options = {"action": argparse.BooleanOptionalAction}
        elif isinstance(field.default, tuple):
            options = {"type": integers, "metavar": "N,N"}
        elif isinstance(field.default, str):
            options = {"choices": field.metadata["choices"] or list(PRESETS)}
        text = f"{field.metadata['meaning']} ({describe_presets(field.name)})".replace("%", "%%")
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, dest=field.name, default=None, help=text, **options)


def integers(text: str) -> tuple[int, ...]:
    """The value of a flag such as `--widths 8,8,8`."""
    return tuple(map(int, text.split(",")))


def describe_presets(name: str) -> str:
    """A setting's default, then the presets with another value: `14; 3 fast, 150 classic`."""
    values = {preset: getattr(settings, name) for preset, settings in PRESETS.items()}
    shown = {
        preset: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for preset, value in values.items()
    }
    default = shown["balanced"]
    others = [f"{value} {preset}" for preset, value in shown.items() if value != default]
    return "; ".join([default, ", ".join(others)] if others and name != "preset" else [default])


def settings_from_args(
    args: argparse.Namespace, default_preset: str, changes: Mapping[str, Any] | None = None
) -> Settings:
    """The preset with changes, over which the flags win."""
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)}
    values = dict(changes or {}) | {name: v for name, v in given.items() if v is not None}
    return make_settings(values.pop("preset", default_preset), values)


def map_on_gpus(
    compute: Compute, train_one: Callable[..., Member], numbers: Sequence[int]
) -> Iterator[Member]:
    """Members trained by a process for each GPU, as they finish; without several GPUs, here."""
    finished = set()
    gpus = torch.cuda.device_count() if compute.device == torch.device("cuda") else 1
    if min(gpus, len(numbers)) > 1:
        from joblib import Parallel, delayed  # a tenth of a second, only where it is needed

        jobs = (
            delayed(train_on_gpu)(train_one, compute, number, number % gpus) for number in numbers
        )
        # Only failures of a device or of its process: any other error would come again.
        failures = (BrokenExecutor, torch.OutOfMemoryError)
        failures += (getattr(torch, "AcceleratorError", BrokenExecutor),)  # from torch 2.8 on
        try:
            for member in Parallel(n_jobs=gpus, return_as="generator_unordered")(jobs):
                finished.add(member.number)
                yield member
        except failures as error:
            reason = str(error).strip().partition("\n")[0]
            logger.warning("A GPU failed (%s): one GPU trains the remaining members.", reason)
    yield from map(train_one, [number for number in numbers if number not in finished])


def train_on_gpu(
    train_one: Callable[..., Member], compute: Compute, number: int, gpu: int
) -> Member:
    """A member trained on one of several GPUs, in this process."""
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return train_one(number, compute=dataclasses.replace(compute, device=device))


def run_kernel(arguments: Sequence[str]) -> Path:
    """The full run with these flags; returns the folder with the results."""
    parser = OneLineParser(description="Trains on Kaggle's Digit Recognizer: submission.csv.")
    add_run_arguments(parser)
    args = parser.parse_args(arguments)
    configure_logging()
    set_threads(args.threads)
    started = time.perf_counter()
    settings = settings_from_args(args, "best")  # minutes on a GPU
    compute = choose_compute(settings, args.device)
    if compute.device.type == "cpu":
        settings = settings_from_args(args, "balanced")
    digits = read_digits(require_data(args.data))
    loaded = time.perf_counter()
    folder = args.out or (get_kaggle_folder("working") if on_kaggle() else Path("runs") / "kernel")
    prepare_folder(folder)
    logger.info("preset %s, %s: %s", settings.preset, compute.dtype, compute.reason)
    warn_without_gpu(compute)
    result = run(settings, digits, compute, map_members=partial(map_on_gpus, compute))
    seconds = {"load": loaded - started, "total": time.perf_counter() - started}
    metrics = collect_metrics(result, digits, SOURCE_DIGEST, seconds)
    write_results(folder, result, digits, metrics)
    logger.info("validation %s\nfiles in %s", metrics["validation"], folder)
    warn_without_gpu(compute)
    return folder


def warn_without_gpu(compute: Compute) -> None:
    """Warn, impossible to miss, that a GPU that should be there is not used."""
    if compute.warning:
        logger.warning("%s\nNO GPU IS USED. %s\n%s", "*" * 80, compute.warning, "*" * 80)


def main(arguments: Sequence[str]) -> int:
    """Run the kernel and return its exit code, 2 after an error that the user can fix."""
    try:
        run_kernel(arguments)
    except (InputError, torch.OutOfMemoryError) as error:
        advice = "" if isinstance(error, InputError) else ": lower --piece-size or --batch-size"
        print(f"error: {error}".partition("\n")[0] + advice, file=sys.stderr)
        return 2
    return 0


def in_notebook() -> bool:
    """Whether this runs in a notebook's cell, where `sys.argv` belongs to the notebook."""
    return hasattr(builtins, "get_ipython")


if __name__ == "__main__":
    if in_notebook():
        main([])  # sys.exit would look like an error there
    else:
        sys.exit(main(sys.argv[1:]))
