"""Real runs, really interrupted: the same command resumes and ends with the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from digitkaggle.core.settings import make_settings
from digitkaggle.runs import jobs
from digitkaggle.runs.checkpoint import get_checkpoint_file, load_state, save_member
from digitkaggle.runs.local import run_in_folder

FLAGS = ["--preset", "fast", "--widths", "4,4,4", "--epochs", "40", "--batch-size", "16"]
SAME = ("probabilities.npy", "model.pt", "submission.csv")


def start_process(out: Path, data_folder: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", "-m", "digitkaggle", *FLAGS, "--threads", "1"]
    command += ["--data", str(data_folder), "--out", str(out), *flags]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background process ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(path: Path) -> None:
    for _ in range(2400):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def read_results(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in SAME]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path, data_folder, number, code):
    process = start_process(tmp_path / "cut", data_folder)
    wait_for(get_checkpoint_file(tmp_path / "cut", "training", 1))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    if code > 0:
        assert errors.strip().startswith("interrupted; to resume: python -m digitkaggle")
        assert "Traceback" not in errors
    again = start_process(tmp_path / "cut", data_folder)
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert "Resuming after epoch" in output
    whole = start_process(tmp_path / "whole", data_folder)
    assert whole.communicate(timeout=300)
    assert read_results(tmp_path / "cut") == read_results(tmp_path / "whole")


def test_finished_members_are_not_trained_again(tmp_path, few_digits, monkeypatch):
    settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1, "members": 4})
    trained = []

    def save(folder, member):
        save_member(folder, member)
        trained.append(member.number)
        if trained == [1, 2, 3]:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "save_member", save)
    with pytest.raises(KeyboardInterrupt):
        run_in_folder(settings, few_digits, out=tmp_path / "cut", threads=1)
    run_in_folder(settings, few_digits, out=tmp_path / "cut", threads=1)
    assert trained == [1, 2, 3, 4]
    run_in_folder(settings, few_digits, out=tmp_path / "whole", threads=1)
    assert read_results(tmp_path / "cut") == read_results(tmp_path / "whole")


def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, caplog):
    path = tmp_path / "state.pt"
    assert load_state(path) is None
    torch.save({"epoch": 3}, path)
    assert load_state(path) == {"epoch": 3}
    assert not caplog.messages
    path.write_bytes(path.read_bytes()[:200])
    assert load_state(path) is None
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")  # a pickle that would run a program
    assert load_state(path) is None
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        f"{path} cannot be read"
    ] * 2
