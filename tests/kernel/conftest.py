from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def kernel_python(tmp_path_factory) -> Path:
    """A Python with the libraries and without the package; KERNEL_PYTHON names another."""
    if "KERNEL_PYTHON" in os.environ:
        python = Path(os.environ["KERNEL_PYTHON"])
    else:
        folder = tmp_path_factory.mktemp("venv")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        python = folder / "bin/python"
        site = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        # A path file lends the libraries, but not their own path files: no editable install.
        (Path(site.strip()) / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    found = subprocess.run([python, "-I", "-c", "import digitkaggle"], capture_output=True)
    assert b"No module named 'digitkaggle'" in found.stderr
    return python


@pytest.fixture
def kaggle(tmp_path, train_csv, test_csv) -> Path:
    """A folder like Kaggle's, with the competition's data mounted."""
    data = tmp_path / "kaggle/input/competitions/digit-recognizer"
    data.mkdir(parents=True)
    (data / "train.csv").write_text(train_csv)
    (data / "test.csv").write_text(test_csv)
    (tmp_path / "kaggle/working").mkdir()
    return tmp_path / "kaggle"
