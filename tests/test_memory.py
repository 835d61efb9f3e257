"""Ten times the competition's data."""

from __future__ import annotations

import json

import pytest

from tests.conftest import csv_text

ROWS = 420_000


@pytest.mark.slow
def test_420000_images_are_read_and_trained_on_within_6_gigabytes(forked, sample, tmp_path):
    text = csv_text(sample.train_images, sample.train_labels)
    header, newline, rows = text.encode().partition(b"\n")
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data/train.csv", "wb") as file:
        file.write(header + newline)
        for _ in range(ROWS // len(sample.train_labels)):
            file.write(rows)
    (tmp_path / "data/test.csv").write_text(csv_text(sample.test_images))
    flags = ["--data", tmp_path / "data", "--preset", "fast", "--epochs", 1, "--views", 1]
    done = forked(*flags, "--out", tmp_path / "run")
    (tmp_path / "data/train.csv").unlink()
    assert done.code == 0, done.errors
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["data"]["training_images"] == ROWS
    print(f"{ROWS:,} rows: peak of {done.peak_bytes / 1e9:.2f} GB, {done.seconds:.0f} s")
    assert done.peak_bytes < 6e9
