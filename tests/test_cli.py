from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from digitkaggle.cli import main
from digitkaggle.settings import Settings
from tests.conftest import contents


def test_a_run_from_the_command_line_teaches_and_leaves_a_submission(
    command, data_folder, quick_flags, tmp_path
):
    narrow = {"COLUMNS": "60"}
    done = command("--data", data_folder, "--out", "result", *quick_flags, env=narrow)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\033" not in done.stdout
    assert "\r" not in done.stdout
    table = [line for line in done.stdout.splitlines() if re.match(r"\s+(epoch|\d/2) ", line)]
    assert len(table) == 3
    assert all(len(line) <= 60 for line in table)
    for part in ("300 images to learn from", "held out", "device", "1/2", "2/2", "Keeping the"):
        assert part in done.stdout
    assert "standard error" in done.stdout
    assert (tmp_path / "result/submission.csv").read_text().count("\n") == 51

    twice = command("run", "--data", data_folder, "--out", "result", *quick_flags)
    assert twice.returncode == 0
    assert "finished" in twice.stdout

    predicted = command("predict", "result", "--data", data_folder, "--out", "again.csv")
    assert predicted.returncode == 0, predicted.stderr
    again = (tmp_path / "again.csv").read_bytes()
    assert again == (tmp_path / "result/submission.csv").read_bytes()


def test_without_data_the_sample_is_used_and_cannot_be_missed(command, quick_flags, tmp_path):
    done = command(*quick_flags, "--widths", "2,2,2", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "SAMPLE RUN" in done.stderr
    assert "test " in done.stdout
    assert (tmp_path / "runs/fast-sample/not-for-kaggle.csv").exists()


def test_data_in_the_data_folder_is_found_and_half_of_it_is_no_reason_for_the_sample(
    command, data_folder, quick_flags, tmp_path
):
    data_folder.rename(tmp_path / "data")
    assert command(*quick_flags).returncode == 0
    assert (tmp_path / "runs/fast/submission.csv").exists()
    (tmp_path / "data/test.csv").unlink()
    half = command(*quick_flags)
    assert half.returncode == 2
    assert half.stderr.startswith("error: data holds no test.csv")


def test_quiet_says_nothing(command, data_folder, quick_flags):
    done = command("--data", data_folder, "--quiet", *quick_flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verbose_tells_every_setting(data_folder, quick_flags, tmp_path, capsys):
    flags = ["--data", str(data_folder), "--out", str(tmp_path / "out"), "--verbose"]
    assert main([*flags, *quick_flags]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {field.name} " in out for field in dataclasses.fields(Settings))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--epochs", "0"], "epochs 0 is outside"),
        (["--epochs", "x"], "--epochs: invalid int value: 'x'"),
        (["--validation-fraction", "1.5"], "validation_fraction 1.5"),
        (["--batch-size", "-1"], "batch_size -1"),
        (["--learning-rate", "nan"], "learning_rate nan"),
        (["--preset", "quick"], "invalid choice: 'quick'"),
        (["--widths", "1,x"], "--widths"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--threads", "0"], "--threads 0"),
        (["--unknown"], "--unknown"),
        (["fly"], "fly"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--sample", "--data", "."], "exclude each other"),
        (["--settings", "none.json"], "none.json cannot be read"),
        (["predict", "--data", "."], "runs holds no finished run"),
        (["predict", "nowhere", "--data", "."], "nowhere"),
        (["predict", "."], "holds no model.pt"),
        (["predict"], "name pictures, or a test.csv by --data"),
        (["predict", "x.png"], "runs holds no finished run"),
        (["predict", "x.png", "--data", "."], "exclude each other"),
        (["predict", "x.png", "--format", "xml"], "--format"),
        (["demo"], "runs holds no finished run"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(flags, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(flags) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err
    assert contents(tmp_path) == {}


def test_bad_data_is_one_line_and_leaves_the_folder_as_it_was(
    data_folder, quick_flags, tmp_path, capsys
):
    path = data_folder / "train.csv"
    path.write_text(path.read_text().replace(",0,0,", ",0,x,", 1))
    before = contents(tmp_path)
    assert main(["--data", str(data_folder), "--out", str(tmp_path / "out"), *quick_flags]) == 2
    assert "row 1 (line 2), column pixel1: 'x' is no number" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[1, 2]", "no JSON object"),
        ('{"epochs": 3', "line 1, column 13: not JSON"),
        ('{"epohcs": 3}', "there is no setting 'epohcs'"),
        ('{"epochs": "3"}', "epochs is a whole number"),
        ('{"preset": 3}', "preset is a word"),
        ("[" * 100_000, "settings.json"),
    ],
)
def test_a_bad_settings_file_is_one_line(content, expected, tmp_path, capsys):
    (tmp_path / "settings.json").write_text(content)
    assert main(["--settings", str(tmp_path / "settings.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert expected in error


def test_settings_come_from_preset_file_and_flags_the_last_one_winning(
    command, data_folder, tmp_path
):
    settings = {"preset": "fast", "epochs": 1, "widths": [2, 2, 2], "batch_size": 64, "seed": 4}
    (tmp_path / "mine.json").write_text(json.dumps(settings))
    done = command("--data", data_folder, "--settings", "mine.json", "--seed", 5, "--out", "run")
    assert done.returncode == 0, done.stderr
    used = json.loads((tmp_path / "run/metrics.json").read_text())["settings"]
    assert {name: used[name] for name in settings} == settings | {"seed": 5}


def test_every_setting_is_a_flag(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(Settings):
        assert "--" + field.name.replace("_", "-") in text


COMMANDS = (
    "run", "predict", "report", "compare", "demo", "download", "push", "status", "output", "submit",
)  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    usage, description, *_ = capsys.readouterr().out.split("\n\n")
    assert re.match(rf"usage: python -m digitkaggle \[?{name}\b", usage)
    assert description.strip()[0].isupper()


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n    {name}" in text for name in COMMANDS)


def test_importing_the_library_does_not_import_what_only_some_commands_need():
    code = "import digitkaggle, sys; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"kaggle", "matplotlib", "sklearn", "mlxtend", "PIL", "gradio"} & set(modules)
