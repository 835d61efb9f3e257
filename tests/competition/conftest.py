"""Fixtures: an empty working folder, an account, and a server that stands in for Kaggle."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator

import pytest

from digitkaggle.competition.client import Kaggle
from digitkaggle.competition.kernel import push
from digitkaggle.core.basics import logger
from tests.competition.server import KEY, KaggleServer, make_zip

SUBMISSION = "ImageId,Label\n" + "".join(f"{i},{i % 10}\n" for i in range(1, 28_001))
METRICS = {
    "settings": {"preset": "balanced"},
    "validation": {"accuracy": 0.99625},
    "source_digest": "abcdef0123456789",
}
# Writes a kernel as the repository's bundler does, which has its own tests.
BUNDLE = """\
import json
from pathlib import Path
script = 'SOURCE_DIGEST = "' + "d" * 64 + '"\\nprint("epoch 1")\\n'
Path("kernel/main.py").write_text(script)
cell = {"cell_type": "code", "source": script.splitlines(keepends=True)}
Path("kernel/main.ipynb").write_text(json.dumps({"cells": [cell]}))
"""


@pytest.fixture
def files(train_csv, test_csv) -> dict[str, str]:
    header = "ImageId,Label\n"
    return {"train.csv": train_csv, "test.csv": test_csv, "sample_submission.csv": header}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, a home without an account, and no variables of Kaggle's."""
    monkeypatch.setattr(logger, "handlers", [])  # of other tests
    monkeypatch.setattr(logger, "propagate", True)  # to caplog
    for name in list(os.environ):
        if name.startswith("KAGGLE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def kaggle(folder, files, monkeypatch):
    """A server that stands in for Kaggle, an account there, and short pauses."""
    server = KaggleServer(make_zip(files), SUBMISSION.encode())
    environment = {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        **dict.fromkeys(("http_proxy", "https_proxy"), server.address),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
        "KAGGLE_USERNAME": "anna",
        "KAGGLE_KEY": KEY,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Kaggle, "pause", 0.02)
    monkeypatch.setattr(Kaggle, "time_limit", 5)
    yield server
    server.close()


@pytest.fixture
def repository(folder):
    """A working folder with what `push` needs of the repository."""
    (folder / "kernel").mkdir()
    (folder / "kernel/bundle.py").write_text(BUNDLE)
    return folder


@pytest.fixture
def run(folder):
    """A finished run with a valid submission."""
    path = folder / "runs/balanced"
    path.mkdir(parents=True)
    for name in ("model.pt", "history.csv", "probabilities.npy", "validation.npz"):
        (path / name).write_bytes(b"")
    (path / "submission.csv").write_text(SUBMISSION)
    (path / "metrics.json").write_text(json.dumps(METRICS))
    return path


@pytest.fixture
def kaggle_after_push(kaggle, repository, capsys):
    """Kaggle after a push, whose run is complete."""
    push()
    kaggle.states = ["COMPLETE"]
    capsys.readouterr()
    return kaggle


@contextlib.contextmanager
def expect_error(kind: type[Exception], expected: str) -> Iterator[None]:
    """An error of this kind is raised inside: one line that contains this and not our key."""
    with pytest.raises(kind, match=re.escape(expected)) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
