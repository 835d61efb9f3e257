"""The presets on the competition's own data, and on the whole sample; minutes each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PLACES = (
    REPOSITORY / "data/digit-recognizer.zip",
    REPOSITORY / "data",
    REPOSITORY.parent / "shared/data/digit-recognizer.zip",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def competition() -> Path:
    for place in PLACES:
        if place.is_file() or (place / "train.csv").is_file():
            return place
    pytest.skip("the competition's data are not in data/")


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_the_sample_run_reaches_985_per_mille_on_its_test_images(command, tmp_path):
    done = command("--sample", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "run")["test"]["accuracy"] >= 0.985


@pytest.mark.parametrize(("preset", "least"), [("fast", 0.993), ("balanced", 0.995)])
def test_a_preset_reaches_its_accuracy_on_held_out_digits(
    command, tmp_path, competition, preset, least
):
    done = command("--preset", preset, "--data", competition, "--out", "run")
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "run")
    assert metrics["validation"]["images"] == 4200
    assert metrics["validation"]["accuracy"] >= least
    assert len((tmp_path / "run/submission.csv").read_text().splitlines()) == 28_001


def test_an_epoch_of_the_classic_recipe_learns_from_220500_images(command, tmp_path, competition):
    done = command("--preset", "classic", "--epochs", 1, "--data", competition, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"classic set.* 220,500 images", done.stdout)
    metrics = metrics_of(tmp_path / "run")
    assert metrics["validation"]["images"] == 10_500
    assert metrics["validation"]["loss"] < 2.1
