from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from digitkaggle.core.basics import InputError
from digitkaggle.core.settings import make_settings
from digitkaggle.runs.budget import TimeBudget, cut_in_words, epochs_that_fit, parse_duration
from digitkaggle.runs.files import read_json
from digitkaggle.runs.local import run_in_folder


def test_durations_are_seconds_minutes_or_hours():
    assert [parse_duration(text) for text in ("90s", "45m", "1.5h")] == [90, 2700, 5400]
    for text in ("", "90", "0s", "-3m", "2000h", "1e3s", "nans"):
        with pytest.raises(InputError):
            parse_duration(text)


def test_as_many_epochs_are_planned_as_fit_in_and_weigh_what_their_images_do():
    settings, history = SimpleNamespace(image_sizes=(14, 28)), [{"seconds": 1}] * 5
    training = SimpleNamespace(settings=settings, epoch=5, epochs=10, history=history)
    # The other five, at 28, take four times as long.
    fitting = [epochs_that_fit(training, seconds) for seconds in (20.1, 19, 4.1, 3.9, -9)]
    assert fitting == [10, 9, 6, 5, 5]


def test_the_first_epoch_runs_whatever_the_budget_and_what_was_cut_is_said(tmp_path, few_digits):
    changes = {"widths": (4, 4, 4), "epochs": 30, "members": 3}
    budget = TimeBudget(0.1, started=time.time() - 100)
    run_in_folder(
        make_settings("fast", changes), few_digits, out=tmp_path, budget=budget, threads=1
    )
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics["epochs"] == [1]
    assert metrics["time_budget"]["cut"] == "member 1: 1 of 30 epochs; 1 of 3 members are trained"
    assert (tmp_path / "submission.csv").exists()


def test_patience_is_no_cut():
    settings = make_settings("fast", {"patience": 2})
    member = SimpleNamespace(number=1, history=[{}] * 5, planned_epochs=10, best_epoch=3)
    assert cut_in_words([member], settings) == ""
