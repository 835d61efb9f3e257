"""The program.

Every setting is a flag, and none is needed. On Kaggle's two GPUs members are dealt out to a process
each; a member depends on its number alone, so that changes nothing but the time."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from .basics import Compute, InputError, logger, show_log
from .data import find_data, kaggle_folder, on_kaggle, read_digits
from .device import choose_compute
from .results import run_metrics, write_results
from .run import Member, run
from .settings import PRESETS, Settings, make_settings

SOURCE_DIGEST = ""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are InputErrors, so that they come out like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint, with where help is."""
        raise InputError(f"{message}: see {self.prog} --help")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags of a run: how to run, then one for each field of Settings."""
    parser.add_argument("--data", type=Path, metavar="PATH", help="where both CSVs are")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    for field in dataclasses.fields(Settings):
        values = {name: getattr(settings, field.name) for name, settings in PRESETS.items()}
        shown = values if len(set(values.values())) > 1 else field.default
        options: dict[str, Any] = {"type": type(field.default), "metavar": "N"}
        if isinstance(field.default, bool):
            options = {"action": argparse.BooleanOptionalAction}
        elif isinstance(field.default, tuple):
            options = {"type": lambda text: tuple(map(int, text.split(","))), "metavar": "N,N"}
        elif isinstance(field.default, str):
            options = {"choices": field.metadata["choices"] or list(PRESETS)}
        meaning = f"{field.metadata['meaning']} ({shown})".replace("%", "%%")
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, dest=field.name, default=None, help=meaning, **options)


def settings_from_flags(
    flags: argparse.Namespace, preset: str, changes: Mapping[str, Any] | None = None
) -> Settings:
    """The preset, unless another is named, with changes, and what the flags say on top."""
    given = {field.name: getattr(flags, field.name) for field in dataclasses.fields(Settings)}
    changed = dict(changes or {}) | {name: v for name, v in given.items() if v is not None}
    return make_settings(changed.pop("preset", preset), changed)


def on_every_gpu(learn: Callable[..., Member], numbers: Sequence[int]) -> Iterable[Member]:
    """Members dealt out to a process a GPU, in whatever order they are done; else one by one."""
    compute, done = learn.keywords["compute"], set()
    gpus = torch.cuda.device_count() if compute.device == torch.device("cuda") else 1
    if min(gpus, len(numbers)) > 1:
        from joblib import Parallel, delayed  # a tenth of a second that others need not wait

        jobs = (delayed(on_gpu)(learn, number, number % gpus) for number in numbers)
        try:
            for member in Parallel(n_jobs=gpus, return_as="generator_unordered")(jobs):
                done.add(member.number)
                yield member
        except InputError:
            raise
        except Exception as error:  # whatever a GPU or its process dies of
            fault = str(error).strip().partition("\n")[0]
            logger.warning("not all of the %d GPUs work (%s): one does the rest", gpus, fault)
    yield from map(learn, [number for number in numbers if number not in done])


def on_gpu(learn: Callable[..., Member], number: int, gpu: int) -> Member:
    """A member trained on one of several GPUs, in a process that has it for its own."""
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return learn(number, compute=dataclasses.replace(learn.keywords["compute"], device=device))


def kernel_run(arguments: Sequence[str]) -> Path:
    """The full run with these flags; returns its folder."""
    parser = OneLineParser(description="Trains on Kaggle's Digit Recognizer: submission.csv.")
    add_run_flags(parser)
    flags = parser.parse_args(arguments)
    show_log()
    torch.set_num_threads(flags.threads or torch.get_num_threads())
    started = time.perf_counter()
    settings = settings_from_flags(flags, "best")  # which a GPU has in minutes
    compute = choose_compute(settings, flags.device)
    if compute.device.type == "cpu":
        settings = settings_from_flags(flags, "balanced")
    location = flags.data or find_data()
    if location is None:
        place = kaggle_folder("input") if on_kaggle() else "data"
        raise InputError(f"no data in {place}: add the competition's, or name some by --data")
    digits = read_digits(location)
    loaded = time.perf_counter()
    logger.info("preset %s, %s: %s", settings.preset, compute.dtype, compute.reason)
    warn(compute)
    result = run(settings, digits, compute, each=on_every_gpu)
    seconds = {"load": loaded - started, "total": time.perf_counter() - started}
    metrics = run_metrics(result, digits, SOURCE_DIGEST, seconds)
    folder = flags.out or (kaggle_folder("working") if on_kaggle() else Path("runs") / "kernel")
    write_results(folder, result, digits, metrics)
    logger.info("validation %s\nfiles in %s", metrics["validation"], folder)
    warn(compute)
    return folder


def warn(compute: Compute) -> None:
    """Say, so that it cannot be missed, that a GPU that should be there is not used."""
    if compute.warning:
        logger.warning("%s\nNO GPU IS USED. %s\n%s", "*" * 80, compute.warning, "*" * 80)


if __name__ == "__main__":
    try:
        kernel_run(sys.argv[1:])
    except (InputError, torch.OutOfMemoryError) as error:
        advice = "" if isinstance(error, InputError) else ": lower --piece-size or --batch-size"
        print(f"error: {error}".partition("\n")[0] + advice, file=sys.stderr)
        sys.exit(2)
