"""The faults that a user can mend, told apart from faults of ours."""

from __future__ import annotations


class InputError(Exception):
    """Wrong use or bad input: one line that says what is wrong, where, and what to do next.

    The command line prints it after `error: ` and exits with code 2, without a traceback.
    """


class TrainingError(InputError):
    """Training cannot go on (its loss is no number any more); what was good so far is kept."""


class KaggleError(Exception):
    """Kaggle or the network refused or failed; printed likewise, with exit code 3."""
