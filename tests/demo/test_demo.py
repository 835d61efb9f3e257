from __future__ import annotations

import base64
import io
import socket
import sys

import pytest
from PIL import Image, ImageOps

from digitkaggle.cli import main
from digitkaggle.core.basics import InputError
from digitkaggle.demo.page import make_predictor
from digitkaggle.runs.finished import load_model
from tests.demo.strokes import draw_digit


def make_url(drawing: Image.Image) -> str:
    """A drawing as the page sends it: black on a transparent background."""
    picture, buffer = Image.new("RGBA", drawing.size), io.BytesIO()
    picture.putalpha(ImageOps.invert(drawing))
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def predict(trained):
    return make_predictor(load_model(trained, device="cpu"))


def test_the_page_receives_digit_probabilities_and_the_networks_input_or_that_it_is_empty(predict):
    prediction = predict(make_url(draw_digit(3)))
    assert prediction["digit"] == 3
    assert prediction["problem"] == ""
    assert len(prediction["probabilities"]) == 10
    content = base64.b64decode(prediction["image"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (28, 28)
    empty = predict(make_url(Image.new("L", (280, 280), 255)))
    assert (empty["digit"], empty["image"]) == (None, None)
    assert empty["problem"].startswith("Blank")


def test_a_message_that_is_not_a_drawing_is_refused(predict):
    address = "data:image/png;base64,"
    for drawing in ("", f"{address}????", f"{address}aGVsbG8=", "A" * 2_000_000, None, 3):
        with pytest.raises(InputError, match="drawing"):
            predict(drawing)


def test_without_gradio_the_error_names_the_line_that_installs_it(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", str(trained)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the drawing page needs Gradio")
    assert "pip install -e '.[demo]'" in error
    assert error.count("\n") == 1


def test_an_address_that_cannot_be_listened_on_is_an_error_of_one_line(
    trained, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "gradio", object())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flags in (["--port", port], ["--port", "99999"], ["--host", "no.such.host"]):
            assert main(["demo", str(trained), *flags]) == 2
            error = capsys.readouterr().err
            assert error.startswith("error: ")
            assert flags[1] in error
            assert "cannot be listened on" in error
            assert error.count("\n") == 1
