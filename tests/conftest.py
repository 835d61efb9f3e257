"""What tests share: real digits from the sample, small files made of them, and a quick run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck

from digitkaggle.core.basics import Digits
from digitkaggle.core.data import PIXEL_COLUMNS
from digitkaggle.core.settings import make_settings
from digitkaggle.runs.local import run_in_folder
from digitkaggle.sample import load_sample

# A busy machine is not an error in the code, and our fixtures are the same for every example.
hypothesis.settings.register_profile(
    "ours",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("ours")

REPOSITORY = Path(__file__).parent.parent
QUICK_FLAGS = ["--preset", "fast", "--widths", "4,4,4", "--epochs", "2", "--batch-size", "64"]


@pytest.fixture(scope="session")
def sample() -> Digits:
    return load_sample()


@pytest.fixture(scope="session")
def few_digits(sample: Digits) -> Digits:
    """300 real digits to train on and 50 to predict."""
    images, labels = sample.train_images[:300], sample.train_labels[:300]
    return Digits(images, labels, sample.test_images[:50], origin="a few digits")


@pytest.fixture
def quick_settings():
    """Settings of a run that takes about a second."""
    return make_settings("fast", {"widths": (4, 4, 4), "epochs": 2, "batch_size": 64})


def format_csv(images: torch.Tensor, labels: torch.Tensor | None = None) -> str:
    """Images as the competition's CSV."""
    table = images.flatten(1).numpy().astype(int)
    header = list(PIXEL_COLUMNS)
    if labels is not None:
        table = np.column_stack([labels.numpy(), table])
        header = ["label", *header]
    rows = [",".join(map(str, row)) for row in table.tolist()]
    return "\n".join([",".join(header), *rows]) + "\n"


@pytest.fixture(scope="session")
def train_csv(few_digits: Digits) -> str:
    return format_csv(few_digits.train_images, few_digits.train_labels)


@pytest.fixture(scope="session")
def test_csv(few_digits: Digits) -> str:
    return format_csv(few_digits.test_images)


@pytest.fixture
def data_folder(tmp_path: Path, train_csv: str, test_csv: str) -> Path:
    """A folder with train.csv (300 digits) and test.csv (50)."""
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "train.csv").write_text(train_csv)
    (folder / "test.csv").write_text(test_csv)
    return folder


@pytest.fixture
def run_command(tmp_path: Path):
    """A function that runs `python -m digitkaggle` as a user does, in an empty folder."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "digitkaggle", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=1800,
        )

    return run


def read_folder(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, to show that nothing changed."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """An accurate run on the sample, with all its files except the report; 10 s."""
    settings = make_settings("fast", {"epochs": 7, "validation_fraction": 0.05})
    return run_in_folder(settings, load_sample(), out=tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture(scope="session")
def trained(trained_run) -> Path:
    """The old name of `trained_run`."""
    return trained_run


def copy_run(folder: Path, out: Path, **changes: object) -> Path:
    """Copy a run, with other entries in its metrics."""
    shutil.copytree(folder, out)
    metrics = json.loads((out / "metrics.json").read_text()) | changes
    (out / "metrics.json").write_text(json.dumps(metrics))
    return out


@pytest.fixture(scope="session")
def kernel_python(tmp_path_factory) -> Path:
    """A Python with the libraries and without the package, or the one in KERNEL_PYTHON."""
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
def kaggle(tmp_path, data_folder) -> Path:
    """A folder that stands in for `/kaggle`, with the competition's data in its input."""
    shutil.copytree(data_folder, tmp_path / "kaggle/input/competitions/digit-recognizer")
    (tmp_path / "kaggle/working").mkdir()
    return tmp_path / "kaggle"
