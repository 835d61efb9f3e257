from __future__ import annotations

import json

import pytest

from digitkaggle.cli import main
from digitkaggle.competition.client import KaggleError
from tests.conftest import QUICK_FLAGS, contents


def refused(capsys, *arguments: object) -> str:
    """The one error line of a command that exits with 2."""
    assert main([str(argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    return lines[0]


def test_a_run_as_a_user_gives_it_leaves_its_files(command, data_folder, tmp_path):
    done = command(*QUICK_FLAGS, "--data", data_folder, "--threads", 1)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/fast"
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {
        *("submission.csv", "model.pt", "history.csv", "metrics.json", "probabilities.npy"),
        *("validation.npz", "result.png", "report.html", "figures"),
    }
    assert "28,000" in done.stdout


def test_a_run_without_data_takes_the_sample_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK_FLAGS, "--epochs", "1", "--threads", "1"]) == 0
    assert "SAMPLE RUN" in capsys.readouterr().err
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
def test_wrong_use_is_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(capsys, *arguments)
    assert contents(tmp_path) == {}


def test_a_settings_file_is_used_and_flags_win(capsys, tmp_path, monkeypatch, data_folder):
    monkeypatch.chdir(tmp_path)
    values = {"preset": "fast", "widths": [4, 4, 4], "epochs": 3, "batch_size": 64}
    (tmp_path / "settings.json").write_text(json.dumps(values))
    flags = ["--settings", "settings.json", "--epochs", "1", "--data", str(data_folder)]
    assert main([*flags, "--out", "run", "--quiet", "--threads", "1"]) == 0
    assert capsys.readouterr().out == ""
    settings = json.loads((tmp_path / "run/metrics.json").read_text())["settings"]
    assert (settings["epochs"], settings["widths"]) == (1, [4, 4, 4])
    (tmp_path / "list.json").write_text("[]")
    assert "list.json" in refused(capsys, "--settings", "list.json")


def test_a_saved_model_predicts_the_submission_again(tmp_path, trained, few_digits, data_folder):
    out = tmp_path / "again.csv"
    assert main(["predict", str(trained), "--data", str(data_folder), "--out", str(out)]) == 0
    labels = (trained / "not-for-kaggle.csv").read_text().splitlines()[:51]
    assert out.read_text().splitlines() == labels


def test_kaggles_faults_are_exit_code_3(capsys, monkeypatch):
    def refuse(**_):
        raise KaggleError("push: refused")

    monkeypatch.setattr("digitkaggle.cli.push", refuse)
    assert main(["push"]) == 3
    assert capsys.readouterr().err == "error: push: refused\n"


def test_too_little_memory_is_said_with_what_to_change(capsys, monkeypatch, data_folder, tmp_path):
    def short(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("digitkaggle.core.training.train_batch", short)
    line = refused(capsys, *QUICK_FLAGS, "--data", data_folder, "--threads", "1")
    assert "--batch-size" in line
