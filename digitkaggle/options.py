"""The flags of `run`, derived from Settings; the command line and the kernel share them."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from pathlib import Path
from typing import Any, NoReturn

import torch

from .budget import TimeBudget, parse_duration, process_age
from .errors import InputError
from .files import read_json
from .log import show_log
from .ranks import Ranks, launched
from .settings import PRESETS, Settings, make_settings


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are InputErrors, so that they come out like all others."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise the complaint, with where help is."""
        raise InputError(f"{message}: see {self.prog} --help")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags of a run: how to run, then one for each field of Settings."""
    how = add_source_flags(parser)
    how.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")
    how.add_argument(
        "--fresh", action="store_true", help="start anew where this run is begun or finished"
    )
    how.add_argument(
        "--time-budget",
        type=_seconds_of,
        metavar="TIME",
        help="end, with a submission, within 90s, 45m or 2h",
    )
    how.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="share the run out among so many processes; default is one, or one for each of "
        "several GPUs",
    )
    add_settings_flags(parser)


def add_source_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """`--data`, `--settings`, device and verbosity, in a group for how to run that is returned."""
    how = parser.add_argument_group("how to run")
    how.add_argument(
        "--data", type=Path, metavar="PATH", help="folder or zip with train.csv and test.csv"
    )
    how.add_argument(
        "--settings", type=Path, metavar="FILE", help="JSON file of settings; flags win"
    )
    add_device_flags(how)
    add_verbosity_flags(how)
    return how


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each field of Settings."""
    what = parser.add_argument_group("what to do (defaults are those of the preset)")
    for field in dataclasses.fields(Settings):
        what.add_argument(_flag(field.name), dest=field.name, default=None, **_argument(field))


def add_device_flags(group: argparse._ActionsContainer) -> None:
    """`--device` and `--threads`."""
    group.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads; default is all cores")


def add_verbosity_flags(group: argparse._ActionsContainer) -> None:
    """`--quiet` and `--verbose`."""
    group.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    group.add_argument("--verbose", action="store_true", help="say more: every setting and version")


def settings_from_flags(flags: argparse.Namespace, default_preset: str) -> Settings:
    """The preset, changed by the settings file, changed by the flags.

    Raises:
        InputError: a value that is not allowed, or a settings file that is none.
    """
    names = [field.name for field in dataclasses.fields(Settings)]
    changes: dict[str, Any] = {}
    if flags.settings is not None:
        changes = read_json(flags.settings)
        if not isinstance(changes, dict):
            raise InputError(f"{flags.settings} is no JSON object of settings by name")
    changes |= {name: value for name in names if (value := getattr(flags, name)) is not None}
    preset = changes.pop("preset", default_preset)
    if not isinstance(preset, str):
        raise InputError(f"preset is a word, not {preset!r}")
    return make_settings(preset, changes)


def budget_from_flags(flags: argparse.Namespace, ranks: Ranks | None = None) -> TimeBudget | None:
    """The time budget, which the imports before this moment count for too.

    Of several processes, it counts from the start of the command that launched them.
    """
    if flags.time_budget is None:
        return None
    age = time.time() - ranks.started if ranks else process_age()
    return TimeBudget(flags.time_budget, started=time.monotonic() - age)


def wants_bars(flags: argparse.Namespace) -> bool:
    """Whether progress bars may show: bars of several processes would garble each other."""
    return not flags.quiet and not launched()


def set_up_from_flags(flags: argparse.Namespace) -> None:
    """Give the log its voice, and torch its threads.

    Raises:
        InputError: --threads below 1.
    """
    quiet, verbose = flags.quiet, getattr(flags, "verbose", False)
    show_log(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    threads = getattr(flags, "threads", None)
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads}: at least 1 is needed")
        torch.set_num_threads(threads)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _argument(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """The keywords of add_argument for a field: its type, its meaning, what presets give it."""
    if field.name == "preset":
        return {"choices": list(PRESETS), "help": field.metadata["meaning"]}
    defaults = {name: getattr(settings, field.name) for name, settings in PRESETS.items()}
    shown = {name: _in_words(value) for name, value in defaults.items()}
    if len(set(shown.values())) == 1:
        told = next(iter(shown.values()))
    else:
        told = ", ".join(f"{name} {value}" for name, value in shown.items())
    help_text = f"{field.metadata['meaning']} ({told})".replace("%", "%%")
    if isinstance(field.default, bool):
        return {"action": argparse.BooleanOptionalAction, "help": help_text}
    if field.metadata["choices"]:
        return {"choices": field.metadata["choices"], "help": help_text}
    if isinstance(field.default, tuple):
        return {"type": _whole_numbers, "metavar": "N,N,N", "help": help_text}
    kind = type(field.default)
    return {"type": kind, "metavar": "N" if kind is int else "X", "help": help_text}


def _seconds_of(text: str) -> float:
    try:
        return parse_duration(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        told = f"whole numbers with commas between them, not {text!r}"
        raise argparse.ArgumentTypeError(told) from error


def _in_words(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
