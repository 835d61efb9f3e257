"""A corpus of broken input for every way in: one `error:` line, exit code 2, and nothing changed.

What the readers say of single cells, tables and archives is in test_data.py; here whole commands
meet what is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from digitkaggle.cli import main
from digitkaggle.networks import build_network
from digitkaggle.settings import make_settings
from tests.conftest import contents

RUN = ["--preset", "fast", "--widths", "4,4,4", "--epochs", "1", "--data", "digits", "--out", "out"]


def write(name: str, content: str | bytes) -> Callable[[], None]:
    """What puts a file into the folder."""

    def put() -> None:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return put


def model(**changes: object) -> dict[str, object]:
    """A small good model, with some of its content changed."""
    settings = make_settings("fast", {"widths": (4, 4, 4)})
    network = build_network(settings, torch.Generator())
    return {"settings": settings.as_dict(), "members": [network.state_dict()], **changes}


@pytest.fixture
def desk(tmp_path, data_folder, monkeypatch) -> Path:
    """A folder to work in, with good data in digits/."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(capsys, desk: Path, flags: list[str], expected: str) -> None:
    """The command ends with one line, exit code 2, and every file as it was."""
    before = contents(desk)
    folders = sorted(path for path in desk.rglob("*") if path.is_dir())
    assert main(flags) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: "), said
    assert said.count("\n") == 1, said
    assert expected in said
    assert len(said) < 600, said
    assert contents(desk) == before
    assert sorted(path for path in desk.rglob("*") if path.is_dir()) == folders
