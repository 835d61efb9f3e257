"""All commands in a row, and on a folder that cannot be written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from digitkaggle.cli import main
from tests.conftest import contents
from tests.kaggle.conftest import SUBMISSION


def test_the_whole_way_round_in_a_row(kaggle, repository, capsys):
    for command in ("download", "push", "status", "output", "submit"):
        assert main([command]) == 0, command
    assert kaggle.uploads["blob-0"].decode() == SUBMISSION
    assert capsys.readouterr().out.endswith("score 0.99400\n")


@pytest.mark.parametrize("command", [["download"], ["push"], ["output"], ["submit"]])
def test_a_folder_that_cannot_be_written_is_said_so_and_stays_as_it_was(
    pushed, repository, run, command
):
    """In a process without root's rights, with a home that cannot be written either."""
    pushed.states = ["COMPLETE"]
    before = contents(repository)
    folders = [path for path in repository.rglob("*") if path.is_dir()]
    for folder in [repository, *folders, Path.home()]:
        folder.chmod(0o555)
    script = (
        "import os, sys, jupytext, nbformat, requests, slugify, kagglesdk;"
        "import kagglesdk.kaggle_creds, sklearn.model_selection;"
        "from digitkaggle.cli import main;"
        "os.getuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534));"
        "sys.exit(main(sys.argv[1:]))"
    )
    for folder in repository.parents:
        if folder != Path("/") and os.access(folder, os.W_OK) and "pytest" in str(folder):
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=120
    )
    for folder in [repository, *folders, Path.home()]:
        folder.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(repository) == before
