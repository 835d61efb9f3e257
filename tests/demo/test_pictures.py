from __future__ import annotations

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from digitkaggle.core.basics import InputError
from digitkaggle.demo.digits import BLANK, NO_DIGIT, find_digits
from digitkaggle.demo.pictures import Picture, open_picture, to_picture
from digitkaggle.demo.predictions import predict_found, predict_pictures
from digitkaggle.runs.finished import load_model, load_statistics
from tests.demo.drawings import KINDS, enlarge, make_picture, put_on_paper
from tests.demo.strokes import draw_digit

OF_EACH_KIND = 15


@pytest.fixture(scope="session")
def model(trained):
    """A model and the statistics of its run."""
    return load_model(trained, device="cpu"), load_statistics(trained)


@pytest.fixture(scope="module")
def few(sample):
    """Five images, N x 28 x 28, and their labels."""
    return sample.test_images[:5].squeeze(1).numpy(), sample.test_labels[:5].tolist()


def count_correct(model, pictures, labels) -> int:
    predicted = predict_digits(model, pictures)
    return sum(digit == label for digit, label in zip(predicted, labels, strict=True))


def predict_digits(model, pictures) -> list[int | None]:
    found = [find_digits(to_picture(picture)) for picture in pictures]
    return [prediction.digit for prediction in predict_found(found, *model)]


def test_95_of_100_pictures_of_all_kinds_are_predicted_correctly(model, sample):
    digits = sample.test_images.squeeze(1).numpy()
    pictures, labels = [], []
    for number, kind in enumerate(KINDS):
        random = np.random.default_rng(number)
        for place in range(number * OF_EACH_KIND, (number + 1) * OF_EACH_KIND):
            pictures.append(kind(digits[place], random))
            labels.append(int(sample.test_labels[place]))
    correct = count_correct(model, pictures, labels)
    assert correct >= 0.95 * len(pictures), f"{correct} of {len(pictures)}"


@pytest.mark.parametrize("width", [5, 24, 40])
def test_digits_of_thin_and_of_thick_pens_are_predicted(model, width):
    predicted = predict_digits(model, [draw_digit(digit, width) for digit in range(10)])
    assert sum(one == digit for digit, one in enumerate(predicted)) >= 9, predicted


def test_a_digit_that_is_in_mnist_form_already_hardly_changes(sample):
    images = sample.test_images[:100].squeeze(1).numpy()
    differences = [
        np.abs(
            find_digits(to_picture(Image.fromarray(image))).digits[0].image.astype(int) - image
        ).mean()
        for image in images
    ]
    # Of 255; moved by a pixel, as the center of mass may round, it would be 15.
    assert np.quantile(differences, 0.9) < 5


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
    assert find_digits(to_picture(make_picture(blank))).problem == BLANK


def test_several_digits_are_found_in_reading_order_each_in_its_box(sample):
    images = sample.test_images.squeeze(1).numpy()
    for place in range(0, 20, 4):
        page = np.vstack([
            np.hstack([enlarge(images[place]), enlarge(images[place + 1])]),
            np.hstack([enlarge(images[place + 2]), enlarge(images[place + 3])]),
        ])  # fmt: skip
        found = find_digits(Picture(put_on_paper(page).astype(np.float32), scale=3)).digits
        assert len(found) == 4
        for number, digit in enumerate(found):
            down, right = divmod(number, 2)
            rows, columns = np.nonzero(enlarge(images[place + number]) > 0.4)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            expected = 3 * (np.array(expected) + 200 * np.array([right, down, right, down]))
            np.testing.assert_allclose(digit.box, expected, atol=3 * 16)
            assert not digit.cut_off


def page_of(digit: np.ndarray, draw=None, paper=0.9, high=600, wide=480) -> Image.Image:
    """A photo of a digit in the middle of a sheet, and of what `draw` draws."""
    ink = np.zeros((high, wide))
    ink[high // 2 - 110 : high // 2 + 110, wide // 2 - 110 : wide // 2 + 110] = enlarge(digit, 220)
    light = np.full((high, wide, 3), paper) + np.random.default_rng(0).normal(
        0, 0.01, (high, wide, 3)
    )
    picture = make_picture(put_on_paper(ink.clip(0, 1), light, (0.3, 0.3, 0.35)))
    if draw is not None:
        draw(ImageDraw.Draw(picture))
    return picture


def rules(pen: ImageDraw.ImageDraw) -> None:
    for y in range(20, 600, 60):
        pen.line((0, y, 480, y + 14), fill=(140, 140, 160), width=3)


def squares(pen: ImageDraw.ImageDraw) -> None:
    for place in range(10, 600, 35):
        pen.line((0, place, 480, place + 6), fill=(150, 150, 170), width=2)
        pen.line((place, 0, place - 6, 600), fill=(150, 150, 170), width=2)


def box(pen: ImageDraw.ImageDraw) -> None:
    pen.rectangle((70, 130, 410, 480), outline=(60, 60, 60), width=4)


def underline(pen: ImageDraw.ImageDraw) -> None:
    pen.line((70, 470, 420, 462), fill=(60, 60, 60), width=5)


def thumb(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((-120, 430, 130, 720), fill=(120, 70, 50))


def on_a_table(picture: Image.Image) -> Image.Image:
    turned = picture.convert("RGBA").rotate(5, expand=True)
    table = Image.new("RGBA", (turned.width + 90, turned.height + 90), (70, 45, 30, 255))
    table.alpha_composite(turned, (60, 30))
    return table.convert("RGB")


@pytest.mark.parametrize("draw", [rules, squares, box, underline, thumb])
def test_what_is_printed_or_lies_on_the_sheet_is_not_ink(model, few, draw):
    images, labels = few
    assert count_correct(model, [page_of(image, draw) for image in images], labels) >= 4


def test_a_sheet_on_a_table_and_a_dark_panel_are_found(model, few):
    images, labels = few
    sheets = [on_a_table(page_of(image)) for image in images]
    panels = []
    for image in images:
        page = np.ones((480, 640))
        page[60:420, 120:480] = np.pad(enlarge(image, 300), 30)
        panels.append(make_picture(np.repeat(page[..., None], 3, axis=2)))
    for pictures in (sheets, panels):
        assert count_correct(model, pictures, labels) >= 4


@pytest.mark.parametrize("light_ink", [False, True])
def test_ink_that_fills_the_picture_is_told_from_its_paper(model, sample, light_ink):
    images, labels = sample.test_images[:20].squeeze(1).numpy(), sample.test_labels[:20].tolist()
    pictures = []
    for image in images:
        ink = ndimage.grey_dilation(enlarge(image, 112), 7).clip(0, 1)
        ink = ink[ndimage.find_objects((ink > 0.5).astype(int))[0]]
        pictures.append(
            make_picture(np.repeat((ink if light_ink else 1 - ink)[..., None], 3, axis=2))
        )
    assert count_correct(model, pictures, labels) >= 17


def test_faint_ink_counts_if_it_is_clean(model, few):
    images, labels = few
    faint = [
        make_picture(1 - 0.05 * enlarge(image).clip(0, 1)[..., None].repeat(3, 2))
        for image in images
    ]
    assert count_correct(model, faint, labels) >= 4


def test_a_digit_that_the_edge_cuts_is_marked():
    picture = np.asarray(draw_digit(8).convert("RGB"))
    [whole] = find_digits(to_picture(Image.fromarray(picture))).digits
    [cut] = find_digits(to_picture(Image.fromarray(picture[:200]))).digits
    assert (whole.cut_off, cut.cut_off) == (False, True)


def test_digits_that_touch_are_offered_as_parts(sample):
    picture = np.hstack([np.asarray(draw_digit(0))[:, :224], np.asarray(draw_digit(0))[:, 96:]])
    assert ndimage.label(picture < 128)[1] in (1, 2)
    joined = np.hstack([np.asarray(draw_digit(0))[:, :236], np.asarray(draw_digit(0))[:, 84:]])
    assert ndimage.label(joined < 128)[1] == 1
    [digit] = find_digits(to_picture(Image.fromarray(joined))).digits
    assert len(digit.parts) == 2
    assert digit.parts[0].box[2] == pytest.approx(digit.parts[1].box[0], abs=2)


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
    assert name == "scribble" or find_digits(to_picture(picture)).problem == NO_DIGIT


def test_exif_rotation_is_undone(tmp_path, sample):
    digit = Image.fromarray(255 - sample.test_images[3, 0].numpy()).resize((120, 120))
    upright, rotated = tmp_path / "upright.png", tmp_path / "rotated.png"
    digit.save(upright)
    exif = Image.Exif()
    exif[274] = 6  # to be rotated by 90 degrees clockwise
    digit.rotate(90, expand=True).save(rotated, exif=exif)
    np.testing.assert_array_equal(open_picture(rotated).colors, open_picture(upright).colors)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_pixels_of_every_usual_format_are_read(tmp_path, model, mode):
    picture = draw_digit(3)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    picture = picture if picture.mode == mode else picture.convert(mode)
    path = tmp_path / ("digit.tiff" if mode in ("I;16", "CMYK") else "digit.png")
    picture.save(path)
    assert [prediction.digit for prediction in predict_pictures([path], *model)] == [3]


def test_a_file_that_is_missing_too_large_or_not_a_picture_is_refused_by_name(tmp_path):
    path = tmp_path / "mine.png"
    with pytest.raises(InputError, match=r"mine\.png .*No such file"):
        open_picture(path)
    Image.new("1", (15000, 15000)).save(path)
    with pytest.raises(InputError, match=r"mine\.png .*exceeds limit of 200000000 pixels"):
        open_picture(path)
    draw_digit(3).save(path)
    for content in (b"", b"hello", path.read_bytes()[:900]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"mine\.png is not a readable picture"):
            open_picture(path)


def test_a_photo_of_108_megapixels_is_read(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("L", (12000, 9000), 255).save(path)
    picture = open_picture(path)
    assert picture.colors.shape == (540, 720, 3)
    assert picture.scale == pytest.approx(12000 / 720)


@pytest.mark.parametrize("part", [0.9, 0.3])
def test_a_truncated_jpeg_is_used_if_most_is_there(tmp_path, part):
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 60, (320, 320))
    Image.fromarray((np.asarray(draw_digit(3)) * 0.7 + noise).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    if part > 0.6:
        assert 250 < open_picture(path).colors.shape[0] < 320
    else:
        with pytest.raises(InputError, match="truncated"):
            open_picture(path)


def test_the_first_frame_that_shows_anything_is_read(tmp_path):
    path = tmp_path / "drawing.gif"
    Image.new("L", (320, 320), 255).save(path, save_all=True, append_images=[draw_digit(3)])
    np.testing.assert_allclose(
        open_picture(path).colors[..., 0], np.asarray(draw_digit(3)) / 255, atol=0.05
    )


@pytest.mark.parametrize("name", ["photo.heic", "photo.avif"])
def test_photos_of_phones_are_read(tmp_path, name):
    pillow_heif.register_heif_opener()
    draw_digit(3).convert("RGB").save(tmp_path / name, quality=90)
    colors = open_picture(tmp_path / name).colors
    assert np.abs(colors[..., 0] - np.asarray(draw_digit(3)) / 255).mean() < 0.02
