"""The kernel as Kaggle runs it: where the package is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from digitkaggle.runs.data import read_data
from digitkaggle.runs.local import run_in_folder
from tests.conftest import QUICK_FLAGS, REPOSITORY

FILES = {
    *("submission.csv", "model.pt", "history.csv", "metrics.json", "probabilities.npy"),
    *("validation.npz", "result.png"),
}
QUICK = 'settings = make_settings("fast", {"widths": (4, 4, 4), "epochs": 2, "batch_size": 64})'


def run_on_kaggle(
    python: object, kaggle: Path, *arguments: object, **variables: str
) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DIGITKAGGLE_KAGGLE_ROOT": str(kaggle), "OMP_NUM_THREADS": "1"}
    environment |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "PYTHONPATH": "", **variables}
    return subprocess.run(
        [python, *map(str, arguments)],
        cwd=kaggle / "working" if (kaggle / "working").exists() else kaggle,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_as_a_script_it_leaves_its_files_and_the_librarys_probabilities_and_digest(
    kernel_python, kaggle, tmp_path, quick_settings
):
    script = shutil.copy(REPOSITORY / "kernel/main.py", tmp_path / "script.py")
    done = run_on_kaggle(kernel_python, kaggle, "-W", "error", script, *QUICK_FLAGS, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (kaggle / "working").iterdir()} == FILES
    digits = read_data(kaggle / "input/competitions/digit-recognizer")
    folder = run_in_folder(quick_settings, digits, out=tmp_path / "library", threads=1)
    digests = [
        json.loads((run / "metrics.json").read_text())["source_digest"]
        for run in (kaggle / "working", folder)
    ]
    assert digests[0] == digests[1]
    assert digests[0] in Path(script).read_text()
    if "KERNEL_PYTHON" not in os.environ:  # another version of torch may give other bytes
        probabilities = (kaggle / "working/probabilities.npy").read_bytes()
        assert probabilities == (folder / "probabilities.npy").read_bytes()


def run_notebook(python: Path, kaggle: Path, tmp_path: Path) -> list[dict]:
    """Run the notebook with quick settings by nbconvert, in this Python; return its outputs."""
    book = json.loads((REPOSITORY / "kernel/main.ipynb").read_text())
    assert not any(cell.get("outputs") for cell in book["cells"])
    for cell in book["cells"]:
        cell["source"] = [
            QUICK + "\n" if line.startswith("settings = PRESETS") else line
            for line in cell["source"]
        ]
    (tmp_path / "main.ipynb").write_text(json.dumps(book))
    kernels = tmp_path / "share/jupyter/kernels/kaggle"
    kernels.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "kaggle", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(spec))
    flags = ["--to=notebook", "--output=done", "--ExecutePreprocessor.kernel_name=kaggle"]
    command = [sys.executable, kaggle, "-m", "nbconvert", "--execute", *flags]
    jupyter = str(tmp_path / "share/jupyter")
    done = run_on_kaggle(*command, tmp_path / "main.ipynb", JUPYTER_PATH=jupyter)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "done.ipynb").read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_as_a_notebook_it_shows_pictures_below_its_cells(kernel_python, kaggle, tmp_path):
    outputs = run_notebook(kernel_python, kaggle, tmp_path)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 9
    assert {path.name for path in (kaggle / "working").iterdir()} == FILES


def test_without_data_its_error_names_the_place_that_it_searched(kernel_python, tmp_path):
    script = shutil.copy(REPOSITORY / "kernel/main.py", tmp_path / "script.py")
    done = run_on_kaggle(kernel_python, tmp_path, script)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no data in")
    assert str(tmp_path / "input") in done.stderr


def test_the_notebook_without_data_raises_the_scripts_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    book = json.loads((REPOSITORY / "kernel/main.ipynb").read_text())
    code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    until = next(number for number, text in enumerate(code) if "read_digits(require_data" in text)
    names: dict[str, Any] = {"__name__": "notebook"}
    monkeypatch.setitem(sys.modules, "notebook", ModuleType("notebook"))  # for its dataclasses
    with pytest.raises(Exception, match="no data in data: add the competition's") as error:
        exec(compile("\n".join(code[: until + 1]), "cells", "exec"), names)
    assert error.type is names["InputError"]
