from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from digitkaggle.core.basics import InputError
from digitkaggle.core.settings import make_settings
from digitkaggle.runs.budget import TimeBudget, count_fitting_epochs, describe_cut, parse_duration
from digitkaggle.runs.files import read_json
from digitkaggle.runs.local import run_in_folder


def test_durations_are_seconds_minutes_or_hours():
    assert [parse_duration(text) for text in ("90s", "45m", "1.5h")] == [90, 2700, 5400]
    for text in ("", "90", "0s", "-3m", "2000h", "1e3s", "nans"):
        with pytest.raises(InputError):
            parse_duration(text)


def test_a_budget_counts_on_a_clock_that_nobody_can_set_and_reserves_time_to_write(monkeypatch):
    assert TimeBudget(100).started == pytest.approx(time.monotonic(), abs=10)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 1040.0)
        assert TimeBudget(100, started=1000.0).left() == 100 - 40 - 5


def test_the_plan_is_the_most_epochs_that_fit_where_an_epoch_takes_time_like_its_images_area():
    settings, history = SimpleNamespace(image_sizes=(14, 28)), [{"seconds": 1}] * 5
    training = SimpleNamespace(settings=settings, epoch=5, epochs=10, history=history)
    # The other five, at 28, take four times as long.
    fitting = [count_fitting_epochs(training, seconds) for seconds in (20.1, 19, 4.1, 3.9, -9)]
    assert fitting == [10, 9, 6, 5, 5]


def test_the_first_epoch_runs_whatever_the_budget_and_the_metrics_describe_the_cut(
    tmp_path, few_digits
):
    changes = {"widths": (4, 4, 4), "epochs": 30, "members": 3}
    budget = TimeBudget(0.1, started=time.monotonic() - 100)
    run_in_folder(
        make_settings("fast", changes), few_digits, out=tmp_path, budget=budget, threads=1
    )
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics["epochs"] == [1]
    assert metrics["time_budget"]["cut"] == "member 1: 1 of 30 epochs; 1 of 3 members are trained"
    assert (tmp_path / "submission.csv").exists()


def test_an_early_stop_by_patience_is_not_a_cut():
    settings = make_settings("fast", {"patience": 2})
    member = SimpleNamespace(number=1, history=[{}] * 5, planned_epochs=10, best_epoch=3)
    assert describe_cut([member], settings) == ""
