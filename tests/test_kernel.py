"""kernel/main.py and main.ipynb, run where the package is neither installed nor importable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from digitkaggle.report import FIGURE_NAMES
from digitkaggle.sources import source_digest
from tests.conftest import QUICK_FLAGS, csv_text


def bare_environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **more}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory, sample) -> Path:
    """120 real digits to learn from, 30 to predict."""
    folder = tmp_path_factory.mktemp("data")
    images, labels = sample.train_images[:120], sample.train_labels[:120]
    (folder / "train.csv").write_text(csv_text(images, labels))
    (folder / "test.csv").write_text(csv_text(sample.test_images[:30]))
    return folder


def kaggle_tree(root: Path, data: Path, mount: str) -> dict[str, str]:
    """Kaggle's folders below `root`, with the data at `mount`; the environment that says so."""
    shutil.copytree(data, root / "input" / mount)
    (root / "working").mkdir()
    return bare_environment(DIGITKAGGLE_KAGGLE_ROOT=str(root), KAGGLE_KERNEL_RUN_TYPE="Batch")


def run_script(python: Path, made: Path, *arguments: object, cwd: Path, env: dict[str, str]):
    return subprocess.run(
        [python, "-I", made / "main.py", *map(str, arguments)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def kaggle_run(tmp_path_factory, made, kernel_python, small_data):
    """What the script does on Kaggle without any argument; its process and its working folder."""
    root = tmp_path_factory.mktemp("kaggle")
    env = kaggle_tree(root, small_data, "competitions/digit-recognizer")
    done = run_script(kernel_python, made, cwd=root / "working", env=env)
    return done, root / "working"


def test_the_script_gives_the_same_bytes_as_the_package(
    made, kernel_python, small_data, tmp_path, command
):
    ours = command("--data", small_data, "--out", tmp_path / "ours", *QUICK_FLAGS)
    assert ours.returncode == 0, ours.stderr
    flags = [*QUICK_FLAGS, "--data", small_data, "--out", tmp_path / "kernel"]
    theirs = run_script(kernel_python, made, *flags, cwd=tmp_path, env=bare_environment())
    assert theirs.returncode == 0, theirs.stderr
    submissions = [(tmp_path / run / "submission.csv").read_bytes() for run in ("ours", "kernel")]
    assert submissions[0] == submissions[1]
    metrics = [
        json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("ours", "kernel")
    ]
    assert metrics[0]["source_digest"] == metrics[1]["source_digest"] == source_digest()


def test_on_kaggle_the_script_needs_no_argument(kaggle_run):
    done, working = kaggle_run
    assert done.returncode == 0, done.stderr
    lines = (working / "submission.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["ImageId", *map(str, range(1, 31))]
    assert (working / "metrics.json").exists()
    assert (working / "figures/confusion.png").exists()
    assert "<svg" in (working / "report.html").read_text()


def test_its_log_is_worth_reading(kaggle_run):
    done, _ = kaggle_run
    for part in (
        f"sources    {source_digest()}",
        "competitions/digit-recognizer: 120 images to learn from",
        "device   ",
        "train loss",
        "Keeping the weights of epoch",
        "accuracy",
        "load ",
    ):
        assert part in done.stdout
    assert "\r" not in done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("mount", ["digit-recognizer", "somebody/elsewhere"])
def test_the_data_are_found_in_the_old_mount_and_anywhere_below_the_input(
    made, kernel_python, small_data, tmp_path, mount
):
    env = kaggle_tree(tmp_path, small_data, mount)
    done = run_script(kernel_python, made, *QUICK_FLAGS, cwd=tmp_path / "working", env=env)
    assert done.returncode == 0, done.stderr
    assert f"input/{mount}: 120 images" in done.stdout
    assert (tmp_path / "working/submission.csv").exists()


def test_another_run_in_the_working_folder_is_replaced(made, kernel_python, small_data, tmp_path):
    env = kaggle_tree(tmp_path, small_data, "digit-recognizer")
    for seed in ("1", "2"):
        flags = [*QUICK_FLAGS, "--seed", seed]
        done = run_script(kernel_python, made, *flags, cwd=tmp_path / "working", env=env)
        assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "working/metrics.json").read_text())
    assert metrics["settings"]["seed"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "working"]


def test_without_data_the_script_ends_with_2_and_lists_the_places(made, kernel_python, tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "working").mkdir()
    env = bare_environment(DIGITKAGGLE_KAGGLE_ROOT=str(tmp_path), KAGGLE_KERNEL_RUN_TYPE="Batch")
    done = run_script(kernel_python, made, cwd=tmp_path / "working", env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for place in ("input/competitions/digit-recognizer", "input/digit-recognizer", "input:"):
        assert str(tmp_path / place) in done.stderr


def test_wrong_flags_end_with_2(made, kernel_python, tmp_path):
    flags = ["--epochs", "0", "--data", "."]
    done = run_script(kernel_python, made, *flags, cwd=tmp_path, env=bare_environment())
    assert done.returncode == 2
    assert done.stderr.startswith("error: epochs 0 is outside")


def test_the_notebook_runs_shows_its_figures_and_submits_the_same(
    made, kaggle_run, small_data, tmp_path
):
    env = kaggle_tree(tmp_path / "kaggle", small_data, "competitions/digit-recognizer")
    env |= {"HOME": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1"}
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--log-level=ERROR",
         "--output-dir", tmp_path, "--ExecutePreprocessor.cwd", tmp_path / "kaggle/working",
         made / "main.ipynb"],
        env=env | {"DIGITKAGGLE_KAGGLE_ROOT": str(tmp_path / "kaggle")},
        cwd=tmp_path / "kaggle/working",
        check=True,
        timeout=600,
    )  # fmt: skip
    book = json.loads((tmp_path / "main.ipynb").read_text())
    outputs = book["cells"][-1]["outputs"]
    pictures = [part for part in outputs if "image/png" in part.get("data", {})]
    drawn = {path.stem for path in (tmp_path / "kaggle/working/figures").iterdir()}
    # Without a mistake there are none to show.
    assert drawn | {"mistakes"} == set(FIGURE_NAMES)
    assert len(pictures) == len(drawn)
    assert not [part for part in outputs if part["output_type"] == "error"]
    if "KERNEL_PYTHON" not in os.environ:  # another Python's libraries may round differently
        submission = (tmp_path / "kaggle/working/submission.csv").read_bytes()
        assert submission == (kaggle_run[1] / "submission.csv").read_bytes()


def test_the_notebook_tells_the_story_in_markdown_and_a_module_a_cell(made):
    book = json.loads((made / "main.ipynb").read_text())
    assert book["nbformat"] == 4
    assert all(not cell.get("outputs") for cell in book["cells"])
    headings = [
        "".join(cell["source"]).partition("\n")[0]
        for cell in book["cells"]
        if cell["cell_type"] == "markdown"
    ]
    assert headings[0] == "# Handwritten digits for Kaggle's Digit Recognizer"
    assert any("pipeline.py" in heading for heading in headings)
    assert headings[-1] == "## The run"
    last = "".join(book["cells"][-1]["source"])
    assert last.startswith('if __name__ == "__main__":')


def test_the_metadata_name_the_owner_from_the_environment(made):
    metadata = json.loads((made / "kernel-metadata.json").read_text())
    assert metadata["id"] == "somebody/digitkaggle-digit-recognizer"
