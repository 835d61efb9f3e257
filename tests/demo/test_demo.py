from __future__ import annotations

import base64
import io
import socket
import sys

import pytest
from PIL import Image, ImageOps

from digitkaggle.cli import main
from digitkaggle.core.basics import InputError
from digitkaggle.demo.page import answerer
from digitkaggle.runs.results import open_model
from tests.demo.strokes import drawn


def sent(drawing: Image.Image) -> str:
    """A drawing as the page sends it: black on nothing."""
    picture, buffer = Image.new("RGBA", drawing.size), io.BytesIO()
    picture.putalpha(ImageOps.invert(drawing))
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def answer(trained):
    return answerer(*open_model(trained, device="cpu"))


def test_the_page_is_told_digit_probabilities_and_what_the_network_saw_or_that_it_is_empty(answer):
    said = answer(sent(drawn(3)))
    assert said["digit"] == 3
    assert said["problem"] == ""
    assert len(said["probabilities"]) == 10
    content = base64.b64decode(said["seen"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as seen:
        assert seen.size == (28, 28)
    empty = answer(sent(Image.new("L", (280, 280), 255)))
    assert (empty["digit"], empty["seen"]) == (None, None)
    assert empty["problem"].startswith("Blank")


def test_what_is_no_drawing_is_refused(answer):
    address = "data:image/png;base64,"
    for drawing in ("", f"{address}????", f"{address}aGVsbG8=", "A" * 2_000_000, None, 3):
        with pytest.raises(InputError, match="drawing"):
            answer(drawing)


def test_without_gradio_the_line_that_installs_it_is_told(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", str(trained)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the drawing page needs Gradio")
    assert "pip install -e '.[demo]'" in error
    assert error.count("\n") == 1


def test_a_place_that_cannot_be_listened_on_is_one_line(trained, monkeypatch, capsys):
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
