"""What tests share: real digits from the sample, small files made of them, and a quick run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from digitkaggle.data import PIXEL_COLUMNS, DataSource, Digits
from digitkaggle.pipeline import run
from digitkaggle.sample import SAMPLE_SOURCE, sample_digits
from digitkaggle.settings import make_settings

# A busy machine is no fault of the code, and our fixtures are the same for every example.
settings.register_profile(
    "ours",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("ours")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def sample() -> Digits:
    return sample_digits()


@pytest.fixture(scope="session")
def few_digits(sample: Digits) -> Digits:
    """300 real digits to learn from and 50 to predict."""
    return Digits(sample.train_images[:300], sample.train_labels[:300], sample.test_images[:50])


@pytest.fixture(scope="session")
def few_source(few_digits: Digits) -> DataSource:
    return DataSource("a few digits", lambda: few_digits)


@pytest.fixture
def quick_settings():
    """Settings of a run that takes about a second."""
    return make_settings("fast", {"widths": (4, 4, 4), "epochs": 2, "batch_size": 64})


QUICK_FLAGS = ["--preset", "fast", "--widths", "4,4,4", "--epochs", "2", "--batch-size", "64"]


@pytest.fixture
def quick_flags() -> list[str]:
    return list(QUICK_FLAGS)


def csv_text(images: torch.Tensor, labels: torch.Tensor | None = None) -> str:
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
    return csv_text(few_digits.train_images, few_digits.train_labels)


@pytest.fixture(scope="session")
def test_csv(few_digits: Digits) -> str:
    return csv_text(few_digits.test_images)


@pytest.fixture
def data_folder(tmp_path: Path, train_csv: str, test_csv: str) -> Path:
    """A folder with train.csv (300 digits) and test.csv (50)."""
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "train.csv").write_text(train_csv)
    (folder / "test.csv").write_text(test_csv)
    return folder


@pytest.fixture
def command(tmp_path: Path):
    """Runs `python -m digitkaggle` as a user does, in an empty folder."""

    def call(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "digitkaggle", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=1800,
        )

    return call


@contextlib.contextmanager
def forked_runs(
    entry: object, python: object = sys.executable
) -> Iterator[Callable[..., SimpleNamespace]]:
    """Real runs of the package or of a script, each in a process of its own; see forked_runs.py."""
    if os.name != "posix":
        pytest.skip("processes cannot be forked here")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [python, Path(__file__).parent / "forked_runs.py", str(entry)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:

        def start(*arguments: object, signals: object = (), **faults: object) -> SimpleNamespace:
            order = {"arguments": [*map(str, arguments)], "signals": signals, "faults": faults}
            parent.stdin.write(json.dumps(order) + "\n")
            parent.stdin.flush()
            pid = int(parent.stdout.readline())
            return SimpleNamespace(pid=pid, wait=lambda: ended(parent.stdout.readline()))

        def ended(line: str) -> SimpleNamespace:
            return SimpleNamespace(**json.loads(line))

        def run(*arguments: object, **options: object) -> SimpleNamespace:
            return start(*arguments, **options).wait()

        run.start = start
        yield run
        parent.stdin.close()


@pytest.fixture(scope="session")
def forked() -> Iterator[Callable[..., SimpleNamespace]]:
    """Runs `python -m digitkaggle` in a forked process: `forked(flags, signals, faults)`."""
    with forked_runs("digitkaggle") as run:
        yield run


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with the kernel, which nobody can write to."""
    folder = tmp_path_factory.mktemp("src")
    environment = {**os.environ, "KAGGLE_USERNAME": "somebody"}
    for name in ("kernel", "digitkaggle"):
        shutil.copytree(REPOSITORY / name, folder / "repository" / name)
    subprocess.run(
        [sys.executable, "kernel/bundle.py"], cwd=folder / "repository", env=environment, check=True
    )
    for name in ("main.py", "main.ipynb", "kernel-metadata.json"):
        shutil.copy(folder / "repository/kernel" / name, folder / name)
        (folder / name).chmod(0o444)
    shutil.rmtree(folder / "repository")
    folder.chmod(0o555)
    return folder


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


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, for showing that nothing changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run on the sample that has learned something, with all its files; about 15 s."""
    settings = make_settings("fast", {"epochs": 7, "validation_fraction": 0.05})
    return run(settings, SAMPLE_SOURCE, out=tmp_path_factory.mktemp("runs") / "trained")


def changed_run(folder: Path, out: Path, **changes: object) -> Path:
    """A copy of a run with other entries in its metrics."""
    shutil.copytree(folder, out)
    metrics = json.loads((out / "metrics.json").read_text()) | changes
    (out / "metrics.json").write_text(json.dumps(metrics))
    return out
