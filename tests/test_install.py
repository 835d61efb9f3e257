"""The README's three commands for a machine without make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import QUICK_FLAGS, REPOSITORY


@pytest.mark.slow
def test_the_commands_without_make_install_and_run_in_a_fresh_environment(tmp_path):
    # The tested versions: the newest torch would download its CUDA build.
    environment = {**os.environ, "PIP_CONSTRAINT": str(REPOSITORY / "constraints.txt")}
    folder = "Scripts" if sys.platform == "win32" else "bin"
    python = Path(".venv", folder, "python")
    for command in (
        [sys.executable, "-m", "venv", ".venv"],
        [python, "-m", "pip", "install", "--quiet", REPOSITORY],
        [python, "-m", "digitkaggle", *QUICK_FLAGS],
        [python, "-m", "digitkaggle", "report"],
    ):
        subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "runs/fast-sample/report.html").exists()
    assert (tmp_path / "runs/fast-sample/not-for-kaggle.csv").exists()
