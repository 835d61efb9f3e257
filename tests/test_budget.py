from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import time

import pytest

from digitkaggle import budget, members, resumable
from digitkaggle.budget import TimeBudget, parse_duration, share_spent
from digitkaggle.errors import InputError
from digitkaggle.pipeline import run
from digitkaggle.settings import make_settings
from tests.conftest import contents
from tests.test_pipeline import history_of
from tests.test_resume import same_results


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1.5h", 5400), ("0.5s", 0.5)]
)
def test_durations_have_a_unit(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "s", "-5m", "1e3s", "2d", "1h30m", " 5s", "0s", "٣s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InputError, match=r"duration|no time to train in"):
        parse_duration(text)


def test_what_is_left_of_a_budget_runs_out():
    assert 0 < TimeBudget(100).left() <= 100
    assert TimeBudget(100, started=time.monotonic() - 130).left() < -29


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process started")
def test_the_imports_of_a_process_count_for_its_budget():
    code = "import time; time.sleep(0.3); from digitkaggle.budget import process_age as age; "
    code += "print(age() - 0.3)"
    started = time.monotonic()
    imports = float(subprocess.check_output([sys.executable, "-c", code]))
    assert 0 < imports < time.monotonic() - started


def test_the_share_spent_looks_ahead_by_a_step_as_long_as_the_last(monkeypatch):
    clock = iter([0.0, 10.0, 15.0, 50.0, 90.0])
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(clock))
    share = share_spent(100.0)
    assert [share() for _ in range(4)] == pytest.approx([0.2, 0.2, 0.85, 1.3])
    monkeypatch.undo()
    assert share_spent(0.0)() == 1


def test_a_run_with_time_enough_gives_the_same_bytes_as_one_without_a_budget(
    tmp_path, few_source, quick_settings
):
    free = run(quick_settings, few_source, out=tmp_path / "free")
    timed = run(quick_settings, few_source, out=tmp_path / "timed", time_budget=TimeBudget(36000))
    same_results(timed, free)
    metrics = json.loads((timed / "metrics.json").read_text())
    assert metrics["time_budget"] == {"seconds": 36000, "cut": ""}


def test_a_run_out_of_time_ends_in_time_with_a_submission_and_its_schedule_done(
    forked, data_folder, tmp_path
):
    flags = ["--data", data_folder, "--out", tmp_path / "run", "--preset", "fast"]
    flags += ["--widths", "4,4,4", "--epochs", "100000", "--batch-size", "32"]
    done = forked(*flags, "--time-budget", "15s")
    assert done.code == 0, done.errors
    assert done.seconds < 15
    assert "Out of time: training stopped within or after epoch" in done.errors
    assert (tmp_path / "run/submission.csv").exists()
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["time_budget"]["seconds"] == 15
    assert "of 100000" in metrics["time_budget"]["cut"]
    rows = history_of(tmp_path / "run")
    assert len(rows) > 2
    rates = [float(row["learning_rate"]) for row in rows]
    assert max(rates) > 0.05
    assert rates[-1] < 0.5 * max(rates)

    before = contents(tmp_path)
    again = forked(*flags)
    assert again.code == 0
    assert "early by its time budget" in again.errors
    assert contents(tmp_path) == before


def test_rather_fewer_members_than_none(tmp_path, few_source, quick_settings, monkeypatch):
    monkeypatch.setattr(members, "WRITING_SECONDS", 0.0)
    settings = dataclasses.replace(quick_settings, members=1000, epochs=1)
    folder = run(settings, few_source, out=tmp_path / "run", time_budget=TimeBudget(4))
    metrics = json.loads((folder / "metrics.json").read_text())
    trained = len(metrics["members"])
    assert 1 <= trained < 1000
    assert metrics["time_budget"]["cut"] == f"{trained} of 1000 members are trained"
    assert [row["epoch"] for row in history_of(folder)] == ["1"] * trained, "none is shortened"


def test_the_first_member_is_shortened_where_not_even_one_fits(
    tmp_path, few_source, quick_settings, monkeypatch
):
    ticks = itertools.count()
    monkeypatch.setattr(resumable, "share_spent", lambda available: lambda: next(ticks) / 6)
    monkeypatch.setattr(members, "time_for_another", lambda done: 1e9)
    settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 9, "batch_size": 64})
    settings = dataclasses.replace(settings, members=2, validation_fraction=0.5)
    folder = run(settings, few_source, out=tmp_path / "run", time_budget=TimeBudget(3600))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["time_budget"]["cut"] == (
        "member 1: training stopped within or after epoch 2 of 9; 1 of 2 members are trained"
    )
    assert len(history_of(folder)) == 2
