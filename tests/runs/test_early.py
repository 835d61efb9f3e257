from __future__ import annotations

import numpy as np
import pytest

from digitkaggle.core.data import TEST_FILE, TRAIN_FILE
from digitkaggle.runs.data import read_data
from digitkaggle.runs.early import start_reading, started, take_rows


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"  # where a run in its parent looks
    folder.mkdir()
    names = [f"pixel{number}" for number in range(784)]
    pixels = np.arange(3 * 784).reshape(3, 784) % 256
    for name, header, rows in (
        (TRAIN_FILE, ["label", *names], np.column_stack([[5, 0, 4], pixels])),
        (TEST_FILE, names, pixels[:2]),
    ):
        lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
        (folder / name).write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    yield folder
    for file in list(started):
        take_rows(file)


@pytest.mark.parametrize("arguments", [["--data"], ["run", "--quiet", "--data"]])
def test_a_run_reads_its_data_early_and_finds_the_same_digits(folder, arguments):
    later = read_data(folder)
    start_reading([*arguments, str(folder)])
    assert len(started) == 2
    early = read_data(folder)
    assert not started, "rows are handed out once"
    for one, other in (
        (early.train_images, later.train_images),
        (early.test_images, later.test_images),
    ):
        assert one.equal(other)
    assert early.train_labels.tolist() == [5, 0, 4]
    assert early.test_images.flatten()[:3].tolist() == [0, 1, 2]


def test_what_cannot_be_read_early_is_read_again_and_refused(folder, capfd):
    with (folder / TEST_FILE).open("a") as file:
        file.write("1,2,3,banana\n")
    start_reading(["--data", str(folder)])
    assert take_rows(folder / TEST_FILE) is None
    assert take_rows(folder / TRAIN_FILE).shape == (3, 785)
    assert capfd.readouterr() == ("", ""), "the later reader says what is wrong"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sample"],
        ["--help"],
        ["run", "--help"],
        ["--version"],
        ["demo"],
        ["tune"],
        ["--data"],
        ["--data", "no"],
    ],
)
def test_other_commands_and_other_data_start_nothing(folder, monkeypatch, arguments):
    monkeypatch.chdir(folder.parent)
    start_reading(arguments)
    assert not started
