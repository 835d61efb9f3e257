from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from digitkaggle.cli import main
from digitkaggle.core.basics import Digits, InputError
from digitkaggle.core.settings import make_settings
from digitkaggle.core.training import start_training
from digitkaggle.tune import tune

from .conftest import REPOSITORY

BASE = make_settings("fast", {"widths": (4, 4, 4), "epochs": 2, "batch_size": 50})


def load_trials(study: Path) -> list:
    storage = JournalStorage(JournalFileBackend(str(study)))
    return optuna.load_study(study_name="digitkaggle", storage=storage).trials


def search(folder: Path, digits: Digits, trials: int, base=BASE, folds: int = 2) -> Path:
    files = {"study_file": folder / "study.journal", "out": folder / "tuned.json"}
    return tune(base, digits, trials=trials, folds=folds, device="cpu", **files)


def test_a_search_writes_settings_that_a_run_takes(tmp_path, few_digits):
    out = search(tmp_path, few_digits, 3)
    values = json.loads(out.read_text())
    found = make_settings(values.pop("preset"), values)
    trials = load_trials(tmp_path / "study.journal")
    best = min(trials, key=lambda trial: trial.value)
    assert len(trials) == 3
    assert found.learning_rate == best.params["learning_rate"]
    assert found.epochs == 2


def test_a_search_resumes_where_it_stopped_with_the_same_trials(tmp_path, few_digits):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    search(whole, few_digits, 3)
    search(parts, few_digits, 1)
    search(parts, few_digits, 3)
    values = [[t.value for t in load_trials(folder / "study.journal")] for folder in (whole, parts)]
    assert values[0] == values[1]
    assert (whole / "tuned.json").read_bytes() == (parts / "tuned.json").read_bytes()


def test_a_searchs_networks_have_the_seeds_of_a_runs_members(tmp_path, few_digits, monkeypatch):
    members = []

    def record_settings(settings, compute, images):
        members.append(settings)
        return start_training(settings, compute, images)

    monkeypatch.setattr("digitkaggle.tune.start_training", record_settings)
    search(tmp_path, few_digits, 1, BASE, folds=3)
    assert [member.seed for member in members] == [0, 1, 2]


def test_a_study_of_another_search_is_refused_with_the_differences(tmp_path, few_digits):
    search(tmp_path, few_digits, 1)
    before = (tmp_path / "study.journal").read_bytes()
    other = make_settings("fast", {"widths": (4, 4, 4), "epochs": 3, "batch_size": 50})
    with pytest.raises(InputError, match="epochs 2 there, 3 here"):
        search(tmp_path, few_digits, 2, other)
    assert (tmp_path / "study.journal").read_bytes() == before


@pytest.mark.parametrize("content", [b"not a study\n", b"\0\xff", b"{}\n"])
def test_a_file_that_is_not_a_study_is_refused_and_left_alone(tmp_path, few_digits, content):
    (tmp_path / "study.journal").write_bytes(content)
    with pytest.raises(InputError, match=r"is not a study of ours.*name another by --study"):
        search(tmp_path, few_digits, 1)
    assert (tmp_path / "study.journal").read_bytes() == content


def test_a_search_with_no_trials_or_one_fold_is_refused(tmp_path, few_digits):
    with pytest.raises(InputError, match="--trials 0"):
        search(tmp_path, few_digits, 0)
    with pytest.raises(InputError, match="--folds 1"):
        search(tmp_path, few_digits, 1, folds=1)
    assert not list(tmp_path.iterdir())


def test_without_optuna_the_error_names_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "digitkaggle.tune")
    assert main(["tune", "--trials", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: tune needs Optuna: make tune installs it")


@pytest.mark.slow
def test_two_processes_share_a_study_that_survives_interrupts_and_kills(tmp_path):
    study = tmp_path / "study.journal"
    command = [
        *(sys.executable, "-m", "digitkaggle", "tune", "--sample", "--trials", "10", "--quiet"),
        *("--folds", "2", "--epochs", "2", "--widths", "8,8,8", "--threads", "1"),
        *("--study", str(study), "--out", str(tmp_path / "tuned.json")),
    ]
    first = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(2)]
    deadline = time.monotonic() + 120
    while not study.exists() or study.read_text().count('"op_code":4') < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    first[0].send_signal(signal.SIGINT)
    first[1].kill()
    assert first[0].wait() == 130
    first[1].wait()
    started = len(load_trials(study))
    assert 0 < started < 10
    second = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(2)]
    assert [process.wait() for process in second] == [0, 0]
    states = [trial.state.name for trial in load_trials(study)]
    assert states.count("COMPLETE") + states.count("PRUNED") in (10, 11)
    assert json.loads((tmp_path / "tuned.json").read_text())["widths"] != []


def test_a_study_needs_no_symbolic_links_and_a_folder_that_cannot_be_written_is_named(
    tmp_path, few_digits, monkeypatch
):
    def refuse(*arguments: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.symlink", refuse)
    search(tmp_path, few_digits, 1)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/study\.journal cannot be used \((Not a|File)"):
        search(tmp_path / "file", few_digits, 1)
