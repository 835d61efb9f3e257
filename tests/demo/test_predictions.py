from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from digitkaggle.cli import main
from digitkaggle.demo.digits import BLANK, find_digits
from digitkaggle.demo.pictures import to_picture
from digitkaggle.demo.predictions import (
    CUT_OFF,
    SEVERAL,
    STRANGE,
    format_predictions,
    predict_found,
    predict_pictures,
)
from digitkaggle.runs.finished import load_model, load_statistics
from tests.demo.strokes import draw_digit


@pytest.fixture(scope="module")
def model(trained):
    """A model and the statistics of its run."""
    return load_model(trained, device="cpu"), load_statistics(trained)


def draw_row(digits, side=320) -> Image.Image:
    return Image.fromarray(np.hstack([np.asarray(draw_digit(d, side=side)) for d in digits]))


@pytest.fixture
def two_pictures(tmp_path):
    draw_digit(7).save(tmp_path / "seven.png")
    Image.new("L", (90, 90), 255).save(tmp_path / "blank.png")
    return [tmp_path / "seven.png", tmp_path / "blank.png"]


def test_predictions_are_printed_as_json_and_csv_for_programs(trained, two_pictures, capsys):
    flags = ["predict", str(trained), *map(str, two_pictures)]
    assert main([*flags, "--format", "json"]) == 0
    seven, blank = json.loads(capsys.readouterr().out)
    assert set(seven) == {"file", "digit", "probabilities", "digits"}
    assert (seven["file"], seven["digit"]) == (str(two_pictures[0]), 7)
    assert sum(seven["probabilities"]) == pytest.approx(1, abs=1e-4)
    [one] = seven["digits"]
    assert (one["digit"], one["confidence"]) == (7, max(seven["probabilities"]))
    left, top, right, bottom = one["box"]
    assert 0 <= left < right <= 320
    assert 0 <= top < bottom <= 320
    assert blank == {
        "file": str(two_pictures[1]),
        "digit": None,
        "probabilities": None,
        "digits": [],
        "problem": BLANK,
    }

    assert main([*flags, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["digit"] for row in rows] == ["7", ""]
    assert float(rows[0]["p7"]) == pytest.approx(seven["probabilities"][7])
    assert rows[1]["problem"] == BLANK


def test_predictions_are_printed_as_text_and_show_saves_a_sheet_of_each_picture(
    trained, two_pictures, tmp_path, capsys
):
    files = [*two_pictures, two_pictures[0]]
    flags = ["predict", str(trained / "model.pt"), *map(str, files)]
    assert main([*flags, "--show", str(tmp_path / "seen")]) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{two_pictures[0]}  ")
    assert f"{two_pictures[1]}  -  {BLANK}" in second
    names = {path.name for path in (tmp_path / "seen").iterdir()}
    assert names == {"seven-seen.png", "seven-seen-2.png", "blank-seen.png"}
    with Image.open(tmp_path / "seen/seven-seen.png") as seen:
        assert seen.width > 2 * 320


def test_an_unknown_format_is_an_error_and_not_text(model, two_pictures):
    predictions = predict_pictures(two_pictures, *model)
    with pytest.raises(ValueError, match="'xml'"):
        format_predictions(two_pictures, predictions, "xml")


def test_several_digits_are_predicted_line_by_line_with_their_boxes(trained, tmp_path, capsys):
    page = np.vstack([np.asarray(draw_row(digits)) for digits in ((2, 8, 6), (4, 0, 7))])
    Image.fromarray(page).save(tmp_path / "page.png")
    command = ["predict", str(trained), str(tmp_path / "page.png")]
    assert main(command) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[1] == "286"
    assert (second.strip(), second.index("4")) == ("407", first.index("286"))

    assert main([*command, "--format", "json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["digit"], row["probabilities"]) == (None, None)
    assert [one["digit"] for one in row["digits"]] == [2, 8, 6, 4, 0, 7]
    assert f"{min(one['confidence'] for one in row['digits']):.1%}" == first.split()[2]
    left, top, right, bottom = row["digits"][4]["box"]
    assert 320 < left < right < 640
    assert 320 < top < bottom < 640

    assert main([*command, "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0][-4:] == ["left", "top", "right", "bottom"]
    assert [row[1] for row in rows[1:]] == ["2", "8", "6", "4", "0", "7"]
    assert [int(side) for side in rows[5][-4:]] == [left, top, right, bottom]

    assert main([*command, "--single", "--format", "json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["digit"], row["digits"], row["problem"]) == (None, [], SEVERAL)


def test_a_digit_that_the_edge_cuts_off_is_reported(model):
    cut = Image.fromarray(np.asarray(draw_digit(8))[:250])
    [prediction] = predict_found([find_digits(to_picture(cut))], *model)
    assert CUT_OFF in prediction.problem or prediction.digit is None


def test_what_is_unlike_the_training_digits_is_not_a_digit(model):
    network, statistics = model
    found = [find_digits(to_picture(draw_digit(3)))]
    assert [one.digit for one in predict_found(found, network, statistics)] == [3]
    strict = statistics | {"threshold": np.array(-1e9)}
    [refused] = predict_found(found, network, strict)
    assert (refused.digit, refused.problem) == (None, STRANGE)
    assert [one.digit for one in predict_found(found, network, {})] == [3]


def test_inputs_are_never_written_over(trained, tmp_path, capsys):
    seven, seen = tmp_path / "seven.png", tmp_path / "seven-seen.png"
    draw_digit(7).save(seven)
    before = seven.read_bytes()
    command = ["predict", str(trained), str(seven)]
    assert main([*command, "--show", str(tmp_path)]) == 0
    written = seen.read_bytes()
    commands = [
        [*command, str(seen), "--show", str(tmp_path)],
        [*command, "--out", str(tmp_path / "." / "seven.png")],
        [*command, "--out", str(trained / "model.pt")],
        ["export", str(trained), "--out", str(trained / "model.pt")],
        ["compare", str(trained), str(trained), "--out", str(trained / "metrics.json")],
    ]
    (tmp_path / "link.png").hardlink_to(seven)
    commands.append([*command, "--out", str(tmp_path / "link.png")])
    for one in commands:
        capsys.readouterr()
        assert main(one) == 2
        assert "is an input, which would be overwritten" in capsys.readouterr().err
    assert (seven.read_bytes(), seen.read_bytes()) == (before, written)


def test_without_a_run_the_newest_one_predicts(
    trained, two_pictures, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(trained.parent)
    assert main(["predict", "seven.png", "--out", "predictions.txt"]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "predictions.txt").read_text().startswith("seven.png  7  ")


def test_pictures_that_cannot_be_read_are_named_and_the_others_are_predicted(
    trained_run, two_pictures, tmp_path, capsys
):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    for paths in ([tmp_path], [two_pictures[0], tmp_path / "broken.png", two_pictures[1]]):
        flags = ["--format", "json"]
        assert main(["predict", str(trained_run), *map(str, paths), *flags]) == 2
        captured = capsys.readouterr()
        rows = {row["file"]: row for row in json.loads(captured.out)}
        assert rows[str(two_pictures[0])]["digit"] == 7
        assert "cannot be read" in rows[str(tmp_path / "broken.png")]["problem"]
        error = captured.err.strip().splitlines()[-1]
        assert error == f"error: 1 of 3 pictures cannot be read: {tmp_path / 'broken.png'}"
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(trained_run), str(tmp_path / "empty")]) == 2
    assert "has no pictures" in capsys.readouterr().err
