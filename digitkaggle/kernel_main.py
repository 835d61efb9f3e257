"""The kernel's entry: the flags of `run`, all of them optional, then the full run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .data import files_source
from .errors import InputError
from .locations import find_data, places_of_data
from .options import OneLineParser, add_run_flags, set_up_from_flags, settings_from_flags
from .pipeline import run

# `make kernel` writes the digest of the sources here.
SOURCE_DIGEST = ""


def kernel_main(arguments: Sequence[str] | None = None) -> int:
    """Run with the given flags; exit codes are those of `python -m digitkaggle`."""
    parser = OneLineParser(
        description="Trains on Kaggle's Digit Recognizer and writes submission.csv"
    )
    add_run_flags(parser)
    try:
        flags = parser.parse_args(arguments)
        set_up_from_flags(flags)
        location = flags.data or find_data()
        if location is None:
            places = ", ".join(str(place) for place in places_of_data())
            raise InputError(
                f"no data found in {places}: add the competition's data, or use --data"
            )
        run(
            settings_from_flags(flags, default_preset="balanced"),
            files_source(location),
            out=flags.out,
            device=flags.device,
            fresh=flags.fresh,
            source_digest=SOURCE_DIGEST,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(kernel_main())
