from __future__ import annotations

import json
import os

import pytest
import torch

from digitkaggle.cli import main, make_parser
from digitkaggle.competition.client import KaggleError
from digitkaggle.core.basics import InputError
from digitkaggle.core.device import count_default_threads
from digitkaggle.core.settings import make_settings
from digitkaggle.handlers import load_settings
from tests.conftest import QUICK_FLAGS, read_folder


def run_refused(capsys, *arguments: object) -> str:
    """Run a command that exits with 2; return its one error line."""
    assert main([str(argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    return lines[0]


def test_a_run_as_a_user_starts_it_leaves_its_files(run_command, data_folder, tmp_path):
    done = run_command(*QUICK_FLAGS, "--data", data_folder, "--threads", 1)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/fast"
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {
        *("submission.csv", "model.pt", "history.csv", "metrics.json", "probabilities.npy"),
        *("validation.npz", "strangeness.npz", "result.png", "report.html", "figures"),
    }
    assert "28,000" in done.stdout
    assert "next: make submit" in done.stdout


def test_a_run_without_data_takes_the_sample_with_a_notice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK_FLAGS, "--epochs", "1", "--threads", "1"]) == 0
    printed = capsys.readouterr()
    assert "SAMPLE RUN" in printed.err
    assert "next: make download" in printed.out
    folder = tmp_path / "runs/fast-sample"
    assert (folder / "not-for-kaggle.csv").exists()
    assert not (folder / "submission.csv").exists()
    assert json.loads((folder / "metrics.json").read_text())["test"]["images"] == 1000


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--no-such-flag"], "no-such-flag"),
        (["--epochs", "0"], "epochs"),
        (["--widths", "4,x"], "widths"),
        (["--preset", "slow"], "slow"),
        (["--threads", "0"], "threads"),
        (["--jobs", "0"], "jobs"),
        (["--time-budget", "soon"], "soon"),
        (["--sample", "--data", "x"], "exclude"),
        (["--data", "nowhere"], "nowhere"),
        (["--settings", "nowhere.json"], "nowhere.json"),
        (["--sample", "--device", "toaster"], "toaster"),
        (["predict"], "pictures"),
        (["predict", "nowhere.png", "--data", "x.csv"], "one of them"),
        (["report", "nowhere"], "nowhere"),
        (["compare", "nowhere"], "one run"),
        (["tune"], "trials"),
        (["submit", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_wrong_use_is_an_error_of_one_line_and_exit_code_2(
    capsys, tmp_path, monkeypatch, arguments, expected
):
    monkeypatch.chdir(tmp_path)
    assert expected in run_refused(capsys, *arguments)
    assert read_folder(tmp_path) == {}


def test_a_settings_file_is_used_and_flags_win_over_it(capsys, tmp_path, monkeypatch, data_folder):
    monkeypatch.chdir(tmp_path)
    values = {"preset": "fast", "widths": [4, 4, 4], "epochs": 3, "batch_size": 64}
    (tmp_path / "settings.json").write_text(json.dumps(values))
    flags = ["--settings", "settings.json", "--epochs", "1", "--data", str(data_folder)]
    assert main([*flags, "--out", "run", "--quiet", "--threads", "1"]) == 0
    assert capsys.readouterr().out == ""
    settings = json.loads((tmp_path / "run/metrics.json").read_text())["settings"]
    assert (settings["epochs"], settings["widths"]) == (1, [4, 4, 4])
    (tmp_path / "list.json").write_text("[]")
    assert "list.json" in run_refused(capsys, "--settings", "list.json")


def test_a_settings_file_of_0_3_0_is_read_unless_it_uses_what_is_gone(tmp_path, capsys):
    args = make_parser()[0].parse_args(["run", "--settings", str(tmp_path / "old.json")])
    old = {"preset": "fast", "epochs": 4, "learn_from_test": False, "erasing": [0]}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert load_settings(args, "balanced") == make_settings("fast", {"epochs": 4})
    (tmp_path / "old.json").write_text(json.dumps(old | {"erasing": [0, 7]}))
    with pytest.raises(InputError, match="there is no setting 'erasing'"):
        load_settings(args, "balanced")


def test_a_saved_model_predicts_the_submission_again(tmp_path, trained_run, data_folder):
    out = tmp_path / "again.csv"
    assert main(["predict", str(trained_run), "--data", str(data_folder), "--out", str(out)]) == 0
    labels = (trained_run / "not-for-kaggle.csv").read_text().splitlines()[:51]
    assert out.read_text().splitlines() == labels


def test_an_error_of_kaggles_is_exit_code_3(capsys, monkeypatch):
    def refuse(**_):
        raise KaggleError("push: refused")

    monkeypatch.setattr("digitkaggle.cli.push", refuse)
    assert main(["push"]) == 3
    assert capsys.readouterr().err == "error: push: refused\n"


def test_out_of_memory_is_an_error_with_the_flags_to_change(
    capsys, monkeypatch, data_folder, tmp_path
):
    def run_out_of_memory(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("digitkaggle.core.device.train_batch", run_out_of_memory)
    line = run_refused(capsys, *QUICK_FLAGS, "--data", data_folder, "--threads", "1")
    assert "--batch-size" in line


@pytest.mark.parametrize(
    "error", [TypeError("our mistake"), RuntimeError("could not create a primitive")]
)
def test_an_error_of_ours_is_raised_and_not_explained_as_the_users(
    monkeypatch, data_folder, tmp_path, error
):
    def fail(*arguments):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("digitkaggle.core.device.train_batch", fail)
    with pytest.raises(type(error), match=str(error)):
        main([*QUICK_FLAGS, "--data", str(data_folder), "--threads", "1"])


def test_help_shows_each_presets_value_where_it_differs(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(14; 3 fast, 10 best, 30 record, 150 classic)" in text
    assert "(32,64,128; 16,32,64 fast, 48,96,192 record)" in text
    assert "{'" not in text


def test_the_default_threads_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)  # by affinity and quota
    assert count_default_threads() == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # by OMP_NUM_THREADS
    assert count_default_threads() == 1


def test_far_more_threads_than_cores_are_refused(capsys):
    cores = os.cpu_count()
    line = run_refused(capsys, "--sample", "--threads", 4 * cores + 1)
    assert f"this machine has {cores} cores" in line
