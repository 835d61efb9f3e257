from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from digitkaggle.cli import main
from digitkaggle.core.basics import InputError
from digitkaggle.demo.pictures import (
    BLANK,
    NO_DIGIT,
    SEVERAL,
    find_digit,
    open_picture,
    to_colors,
)
from digitkaggle.demo.predictions import format_predictions, predict_found, predict_pictures
from digitkaggle.runs.finished import load_model
from tests.demo.drawings import KINDS, enlarge, make_picture, put_on_paper
from tests.demo.strokes import draw_digit

OF_EACH_KIND = 25


@pytest.fixture(scope="session")
def model(trained):
    return load_model(trained, device="cpu")


def predict_digits(model, pictures) -> list[int | None]:
    found = [find_digit(to_colors(picture)) for picture in pictures]
    return [prediction.digit for prediction in predict_found(found, model)]


def test_95_of_100_pictures_of_all_kinds_are_predicted_correctly(model, sample):
    digits = sample.test_images.squeeze(1).numpy()
    pictures, labels = [], []
    for number, kind in enumerate(KINDS):
        random = np.random.default_rng(number)
        for place in range(number * OF_EACH_KIND, (number + 1) * OF_EACH_KIND):
            pictures.append(kind(digits[place], random))
            labels.append(int(sample.test_labels[place]))
    predicted = predict_digits(model, pictures)
    correct = sum(digit == label for digit, label in zip(predicted, labels, strict=True))
    assert correct >= 0.95 * len(pictures), f"{correct} of {len(pictures)}"


@pytest.mark.parametrize("width", [5, 24, 40])
def test_digits_of_thin_and_of_thick_pens_are_predicted(model, width):
    predicted = predict_digits(model, [draw_digit(digit, width) for digit in range(10)])
    assert sum(one == digit for digit, one in enumerate(predicted)) >= 9, predicted


def test_a_digit_that_is_in_mnist_form_already_hardly_changes(sample):
    images = sample.test_images[:100].squeeze(1).numpy()
    differences = [
        np.abs(find_digit(to_colors(Image.fromarray(image))).image.astype(int) - image).mean()
        for image in images
    ]
    assert np.mean(differences) < 2  # of 255; moved by a pixel it would be 15


@pytest.mark.parametrize(
    "blank",
    [
        np.ones((200, 200, 3)),
        np.ones((200, 300, 3)) * np.linspace(0.4, 0.9, 300)[None, :, None],
        0.8 + np.random.default_rng(0).normal(0, 0.05, (200, 200, 3)),
    ],
    ids=["white", "shaded", "noise"],
)
def test_a_picture_without_ink_is_blank(blank):
    assert find_digit(to_colors(make_picture(blank))).problem == BLANK


def test_several_digits_in_a_picture_are_reported(sample):
    images = sample.test_images.squeeze(1).numpy()
    for place in range(0, 20, 2):
        beside = np.hstack([enlarge(images[place]), enlarge(images[place + 1])])
        assert find_digit(put_on_paper(beside)).problem == SEVERAL


def test_a_five_with_a_detached_bar_is_one_digit(model):
    picture = draw_digit(5)
    pen = ImageDraw.Draw(picture)
    pen.line([(320 * 0.33, 320 * 0.28), (320 * 0.9, 320 * 0.275)], fill=255, width=14)
    _, marks = ndimage.label(np.asarray(picture) < 128)
    assert marks == 2
    assert predict_digits(model, [picture]) == [5]


def draw_other_marks() -> dict[str, Image.Image]:
    random = np.random.default_rng(0)
    scribble = Image.new("L", (300, 300), 255)
    ImageDraw.Draw(scribble).line([tuple(p) for p in random.uniform(30, 270, (40, 2))], 0, width=8)
    square = Image.new("L", (300, 300), 255)
    ImageDraw.Draw(square).rectangle((110, 110, 190, 190), fill=0)
    dash = Image.new("L", (300, 300), 255)
    ImageDraw.Draw(dash).line((60, 150, 240, 150), fill=0, width=20)
    return {"scribble": scribble, "square": square, "dash": dash}


@pytest.mark.parametrize("name", draw_other_marks())
def test_a_mark_that_is_not_a_digit_gets_no_prediction(model, name):
    picture = draw_other_marks()[name]
    assert predict_digits(model, [picture]) == [None]
    assert name == "scribble" or find_digit(to_colors(picture)).problem == NO_DIGIT


def test_exif_rotation_is_undone(tmp_path, sample):
    digit = Image.fromarray(255 - sample.test_images[3, 0].numpy()).resize((120, 120))
    upright, rotated = tmp_path / "upright.png", tmp_path / "rotated.png"
    digit.save(upright)
    exif = Image.Exif()
    exif[274] = 6  # to be rotated by 90 degrees clockwise
    digit.rotate(90, expand=True).save(rotated, exif=exif)
    np.testing.assert_array_equal(open_picture(rotated), open_picture(upright))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_pixels_of_every_usual_format_are_read(tmp_path, model, mode):
    picture = draw_digit(3)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    picture = picture if picture.mode == mode else picture.convert(mode)
    path = tmp_path / ("digit.tiff" if mode in ("I;16", "CMYK") else "digit.png")
    picture.save(path)
    assert [prediction.digit for prediction in predict_pictures([path], model)] == [3]


def test_a_file_that_is_missing_too_large_or_not_a_picture_is_refused_by_name(tmp_path):
    path = tmp_path / "mine.png"
    with pytest.raises(InputError, match=r"mine\.png .*No such file"):
        open_picture(path)
    Image.new("1", (9500, 9500)).save(path)
    with pytest.raises(InputError, match=r"mine\.png .*exceeds limit of 89478485 pixels"):
        open_picture(path)
    draw_digit(3).save(path)
    for content in (b"", b"hello", path.read_bytes()[:900]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"mine\.png is not a readable picture"):
            open_picture(path)


@pytest.fixture
def two_pictures(tmp_path):
    draw_digit(7).save(tmp_path / "seven.png")
    Image.new("L", (90, 90), 255).save(tmp_path / "blank.png")
    return [tmp_path / "seven.png", tmp_path / "blank.png"]


def test_predictions_are_printed_as_json_and_csv_for_programs(trained, two_pictures, capsys):
    flags = ["predict", str(trained), *map(str, two_pictures)]
    assert main([*flags, "--format", "json"]) == 0
    seven, blank = json.loads(capsys.readouterr().out)
    assert set(seven) == {"file", "digit", "probabilities"}
    assert (seven["file"], seven["digit"]) == (str(two_pictures[0]), 7)
    assert sum(seven["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert blank == {
        "file": str(two_pictures[1]), "digit": None, "probabilities": None, "problem": BLANK,
    }  # fmt: skip

    assert main([*flags, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["digit"] for row in rows] == ["7", ""]
    assert float(rows[0]["p7"]) == pytest.approx(seven["probabilities"][7])
    assert rows[1]["problem"] == BLANK


def test_predictions_are_printed_as_text_and_show_saves_each_input_under_its_own_name(
    trained, two_pictures, tmp_path, capsys
):
    files = [*two_pictures, two_pictures[0]]
    flags = ["predict", str(trained / "model.pt"), *map(str, files)]
    assert main([*flags, "--show", str(tmp_path / "seen")]) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{two_pictures[0]}  ")
    assert f"{two_pictures[1]}  -  {BLANK}" in second
    names = {path.name for path in (tmp_path / "seen").iterdir()}
    assert names == {"seven-seen.png", "seven-seen-2.png"}
    with Image.open(tmp_path / "seen/seven-seen.png") as seen:
        assert seen.size == (280, 280)


def test_an_unknown_format_is_an_error_and_not_text(model, two_pictures):
    predictions = predict_pictures(two_pictures, model)
    with pytest.raises(ValueError, match="'xml'"):
        format_predictions(two_pictures, predictions, "xml")


def test_show_never_writes_over_a_picture_that_was_given(trained, tmp_path, capsys):
    draw_digit(7).save(tmp_path / "seven.png")
    before = (tmp_path / "seven.png").read_bytes()
    command = ["predict", str(trained), str(tmp_path / "seven.png")]
    assert main([*command, "--show", str(tmp_path)]) == 0
    assert (tmp_path / "seven.png").read_bytes() == before
    seen = (tmp_path / "seven-seen.png").read_bytes()
    assert main([*command, str(tmp_path / "seven-seen.png"), "--show", str(tmp_path)]) == 2
    assert "seven-seen.png: name another folder" in capsys.readouterr().err
    assert (tmp_path / "seven-seen.png").read_bytes() == seen


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
