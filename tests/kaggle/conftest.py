"""An empty desk, an account, and a server on this machine that stands in for Kaggle."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from digitkaggle.cli import main
from tests.conftest import REPOSITORY
from tests.kaggle_server import KEY, KaggleServer, zip_of

SUBMISSION = "ImageId,Label\n" + "".join(f"{i},{i % 10}\n" for i in range(1, 28_001))
METRICS = {
    "settings": {"preset": "balanced"},
    "validation": {"accuracy": 0.99625},
    "source_digest": "abcdef0123456789",
}
DATA_FILES = ["sample_submission.csv", "test.csv", "train.csv"]


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch):
    """A test that tries to reach another address fails."""
    connect = socket.socket.connect

    def guarded(self, address):
        assert self.family == socket.AF_UNIX or address[0] == "127.0.0.1", address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def files(train_csv, test_csv) -> dict[str, str]:
    return {
        "train.csv": train_csv,
        "test.csv": test_csv,
        "sample_submission.csv": "ImageId,Label\n",
    }


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder to work in, a home without an account, and Kaggle's variables unset."""
    for name in list(os.environ):
        if name.startswith("KAGGLE_"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def kaggle(desk, files, monkeypatch):
    """A server that stands in for Kaggle, and an account there."""
    sizes = {name: len(text.encode()) for name, text in files.items()}
    kaggle = KaggleServer(zip_of(files), sizes, SUBMISSION)
    for name, value in kaggle.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KAGGLE_USERNAME", "anna")
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    yield kaggle
    kaggle.close()


@pytest.fixture
def repository(desk):
    """The desk holds what `push` needs of the repository."""
    (desk / "kernel").mkdir()
    shutil.copy(REPOSITORY / "kernel/bundle.py", desk / "kernel")
    return desk


@pytest.fixture
def run(desk):
    """A finished run whose submission is worth sending."""
    folder = desk / "runs/balanced"
    folder.mkdir(parents=True)
    for name in ("model.pt", "history.csv", "probabilities.npy", "validation.npz"):
        (folder / name).write_bytes(b"")
    (folder / "submission.csv").write_text(SUBMISSION)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder


@pytest.fixture
def pushed(kaggle, repository, capsys):
    assert main(["push"]) == 0
    capsys.readouterr()
    return kaggle


def refused(capsys, code: int, expected: str) -> str:
    """The one error line, which says what is expected and not our key."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert expected in lines[0], lines[0]
    assert KEY not in captured.err + captured.out
    return lines[0]


def record(desk: Path) -> dict:
    return json.loads((desk / "runs/kaggle.json").read_text())
