"""An empty folder to work in, an account, and a server that stands in for Kaggle."""

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
from tests.competition.server import KEY, KaggleServer, zip_of

SUBMISSION = "ImageId,Label\n" + "".join(f"{i},{i % 10}\n" for i in range(1, 28_001))
METRICS = {
    "settings": {"preset": "balanced"},
    "validation": {"accuracy": 0.99625},
    "source_digest": "abcdef0123456789",
}
# Writes a kernel as the repository's own does, whose tests are elsewhere.
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
    """An empty folder to work in, a home without an account, and Kaggle's variables unset."""
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
    """A server that stands in for Kaggle, an account there, and a quick pace."""
    kaggle = KaggleServer(zip_of(files), SUBMISSION.encode())
    environment = {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        **dict.fromkeys(("http_proxy", "https_proxy"), kaggle.address),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
        "KAGGLE_USERNAME": "anna",
        "KAGGLE_KEY": KEY,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Kaggle, "pause", 0.02)
    monkeypatch.setattr(Kaggle, "time_limit", 5)
    yield kaggle
    kaggle.close()


@pytest.fixture
def repository(folder):
    """It holds what `push` needs of the repository."""
    (folder / "kernel").mkdir()
    (folder / "kernel/bundle.py").write_text(BUNDLE)
    return folder


@pytest.fixture
def run(folder):
    """A finished run whose submission is worth sending."""
    run = folder / "runs/balanced"
    run.mkdir(parents=True)
    for name in ("model.pt", "history.csv", "probabilities.npy", "validation.npz"):
        (run / name).write_bytes(b"")
    (run / "submission.csv").write_text(SUBMISSION)
    (run / "metrics.json").write_text(json.dumps(METRICS))
    return run


@pytest.fixture
def pushed(kaggle, repository, capsys):
    """A kernel was pushed; Kaggle has run it."""
    push()
    kaggle.states = ["COMPLETE"]
    capsys.readouterr()
    return kaggle


@contextlib.contextmanager
def refused(kind: type[Exception], expected: str) -> Iterator[None]:
    """Inside, an error of that kind is raised: one line that says this and not our key."""
    with pytest.raises(kind, match=re.escape(expected)) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
