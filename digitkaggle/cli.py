"""The command line: `python -m digitkaggle [COMMAND]`, where no command means `run`.

What a command takes and does is in the three rooms of commands, side by side; here they meet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence

from .commands_kaggle import add_kaggle_commands
from .commands_results import add_results_commands
from .commands_training import add_training_commands
from .errors import InputError, KaggleError
from .interrupts import report_interrupt, termination_raised
from .options import OneLineParser, set_up_from_flags
from .ranks import report_error
from .settings import VERSION

EXAMPLES = """\
examples:
  %(prog)s                    the full run, on data/ or a sample
  %(prog)s --preset fast      the same in a hurry
  %(prog)s run --help         all flags of a run
  %(prog)s predict photo.jpg  what the newest run says of it
  %(prog)s demo               a page to draw digits on
  %(prog)s COMMAND --help     what a command does, and its flags
"""


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
            return flags.act(flags) or 0
    except (InputError, KaggleError) as error:
        return report_error(error, 3 if isinstance(error, KaggleError) else 2)
    except KeyboardInterrupt as interrupt:
        return report_interrupt(interrupt, [sys.executable, "-m", "digitkaggle", *arguments])


def make_parser() -> tuple[OneLineParser, Collection[str]]:
    """The parser, whose flags say in `act` which function does the work, and the commands."""
    parser = OneLineParser(
        prog="python -m digitkaggle",
        description="Classifies handwritten digits for Kaggle's Digit Recognizer.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"digitkaggle {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    add_training_commands(commands)
    add_results_commands(commands)
    add_kaggle_commands(commands)
    return parser, commands.choices
