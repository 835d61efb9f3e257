"""The kernel's entry: the flags of `run`, all of them optional, then the full run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .data import files_source
from .device import choose_compute
from .errors import InputError
from .interrupts import report_interrupt, termination_raised
from .locations import find_data, places_of_data
from .log import logger
from .options import (
    OneLineParser,
    add_run_flags,
    budget_from_flags,
    set_up_from_flags,
    settings_from_flags,
    wants_bars,
)
from .pipeline import run
from .ranks import joined_ranks, launch, processes_from_flags, report_error
from .report import FIGURE_NAMES
from .run_folder import FIGURES
from .screen import tell

# `make kernel` writes the digest of the sources here.
SOURCE_DIGEST = ""


def kernel_run(arguments: Sequence[str], script: str = "") -> Path:
    """The full run with these flags; returns its folder.

    Args:
        arguments: the flags.
        script: the file that this is, from which several processes can be started; these end by
            SystemExit.

    Raises:
        InputError: wrong flags, no data, or data that are not what they should be.
    """
    parser = OneLineParser(
        description="Trains on Kaggle's Digit Recognizer and writes submission.csv."
    )
    add_run_flags(parser)
    flags = parser.parse_args(arguments)
    set_up_from_flags(flags)
    location = flags.data or find_data()
    if location is None:
        places = ", ".join(str(place) for place in places_of_data())
        raise InputError(f"no data in {places}: add the competition's data, or name some by --data")
    settings = settings_from_flags(flags, default_preset=kernel_preset(flags.device))
    processes = processes_from_flags(flags.processes, flags.device, settings.members)
    if processes > 1 and script:
        sys.exit(launch(processes, [script, *arguments]))
    if processes > 1:
        logger.warning("A notebook is one process, and uses one device.")
    with joined_ranks() as ranks:
        tell("sources", SOURCE_DIGEST)
        return run(
            settings,
            files_source(location, progress_bar=wants_bars(flags)),
            out=flags.out,
            device=flags.device,
            fresh=flags.fresh,
            progress_bar=wants_bars(flags),
            source_digest=SOURCE_DIGEST,
            time_budget=budget_from_flags(flags, ranks),
            ranks=ranks,
        )


def kernel_preset(device: str) -> str:
    """`best` on a GPU, which has it in minutes; on a CPU `balanced`.

    Raises:
        InputError: the named device does not work here.
    """
    return "balanced" if choose_compute(device).device.type == "cpu" else "best"


def kernel_main(arguments: Sequence[str]) -> int:
    """Run as a script; exit codes are those of `python -m digitkaggle`."""
    try:
        with termination_raised():
            kernel_run(arguments, script=sys.argv[0])
    except InputError as error:
        return report_error(error, 2)
    except KeyboardInterrupt as interrupt:
        return report_interrupt(interrupt, [sys.executable, sys.argv[0], *arguments])
    return 0


def in_notebook() -> bool:
    """Whether this code runs in a notebook's kernel, where `sys.argv` is none of ours."""
    return "ipykernel" in sys.modules


def show_figures(folder: Path) -> None:
    """Show a run's figures in the notebook, below the cell that calls this."""
    from matplotlib import pyplot

    for name in FIGURE_NAMES:
        path = folder / FIGURES / f"{name}.png"
        if not path.exists():
            continue
        picture = pyplot.imread(path)
        height, width = picture.shape[:2]
        figure = pyplot.figure(figsize=(width / 120, height / 120))
        figure.add_axes((0, 0, 1, 1)).imshow(picture)
        figure.axes[0].axis("off")
        pyplot.show()


# %% [markdown]
# ## The run
# Everything above is definitions; this does it.

# %%
if __name__ == "__main__":
    if in_notebook():
        show_figures(kernel_run([]))
    else:
        sys.exit(kernel_main(sys.argv[1:]))
