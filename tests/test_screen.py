from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from digitkaggle.screen import (
    augmentation_in_words,
    emphasised,
    epoch_header,
    epoch_row,
    last_screen,
    tell,
)
from digitkaggle.settings import make_settings

ROW = {
    "epoch": 7,
    "train_loss": 0.52348,
    "train_accuracy": 0.98765,
    "val_loss": 0.51,
    "val_accuracy": 0.9912,
    "learning_rate": 0.05,
    "seconds": 12.34,
}
METRICS = {
    "validation": {"accuracy": 0.995, "standard_error": 0.0035, "images": 400},
    "seconds": {"load": 1.0, "total": 45.67},
}


@pytest.fixture
def lines(monkeypatch, caplog):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("digitkaggle.log.logger.propagate", True)
    caplog.set_level(logging.INFO, "digitkaggle")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def test_an_epochs_row_stands_below_its_titles(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    header, row = epoch_header(), epoch_row(ROW, 27, best=True)
    assert header.split("  ")[-1].strip() == "seconds"
    for title, value in (("train loss", "0.5235"), ("val acc", "99.12%"), ("seconds", "12.3")):
        assert header.index(title) + len(title) == row.index(value) + len(value)
    assert row.endswith("  best")
    assert epoch_row(ROW, 27, best=False) == row.removesuffix("  best")
    assert len(row) <= 80


@pytest.mark.parametrize("columns", [30, 45, 60, 70, 80, 200])
def test_rows_drop_columns_rather_than_wrap(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    header, row = epoch_header(), epoch_row(ROW, 27, best=True)
    assert "val loss" in header
    assert "val acc" in header
    assert len(header) <= max(columns, 35)
    assert len(row) <= max(columns, 35)
    assert ("rate" in header) == (columns >= 80)


def test_an_epoch_without_validation_leaves_blanks():
    row = epoch_row(ROW | {"val_loss": float("nan"), "val_accuracy": float("nan")}, 27, best=False)
    assert "nan" not in row
    assert len(row) == len(epoch_header())


def test_the_last_screen_says_accuracy_files_and_what_to_do_next(lines, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    (tmp_path / "report.html").touch()
    last_screen(METRICS, tmp_path, "submission.csv")
    said = lines()
    assert "accuracy 99.50% (standard error 0.35; 2 of 400 images wrong)" in said
    assert "of Kaggle's 28,000 test images expect about 140 wrong" in said
    assert f"{tmp_path}: submission.csv" in said
    assert "report.html" in said
    assert f"make submit FILE={tmp_path}/submission.csv" in said
    assert f"make demo RUN={tmp_path}" in said


def test_after_a_sample_run_nothing_is_to_be_submitted(lines):
    last_screen(METRICS, Path("runs/fast-sample"), "not-for-kaggle.csv")
    assert "submit" not in lines()
    assert "make demo: a page" in lines()


def test_on_kaggle_there_is_no_next_command(lines, monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    last_screen(METRICS, tmp_path, "submission.csv")
    assert "make" not in lines()


def test_words_fold_where_the_terminal_ends(lines, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    tell("augment", "every image anew each epoch: turned by up to 10 degrees, shifted 2.8 pixels")
    folded = lines().splitlines()
    assert len(folded) == 2
    assert all(len(line) <= 60 for line in folded)
    assert folded[1].startswith(" " * 11)


def test_augmentation_is_told_with_the_sizes_that_images_grow_through():
    told = augmentation_in_words(make_settings("fast", {"shear": 7.0}), 100)
    assert "sheared 7 degrees; at 16, then 20, then 28 pixels a side" in told
    told = augmentation_in_words(make_settings("balanced", {}), 100)
    assert told.endswith("; at 20, then 28 pixels a side")
    whole = make_settings("balanced", {"image_sizes": (28, 28)})
    assert "pixels a side" not in augmentation_in_words(whole, 100)
    assert augmentation_in_words(make_settings("classic", {}), 2100) == (
        "the classic set, 7 versions of each: 2,100 images"
    )
    assert augmentation_in_words(make_settings("classic", {"augmentation": "none"}), 1) == "none"


def test_colour_is_for_terminals_and_for_who_wants_it():
    assert emphasised("piped") == "piped"  # pytest's output is no terminal
    code = """
import os
from digitkaggle.screen import emphasised
print(emphasised("wanted"))
os.environ["NO_COLOR"] = "1"
print(emphasised("unwanted"))
os.environ |= {"NO_COLOR": "", "TERM": "dumb"}
print(emphasised("impossible"))
"""
    reader, terminal = pty.openpty()
    environment = os.environ | {"NO_COLOR": "", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stdout=terminal, env=environment, check=True)
    os.close(terminal)
    said = os.read(reader, 100_000).decode().split()
    os.close(reader)
    assert said == ["\033[1;32mwanted\033[0m", "unwanted", "impossible"]
