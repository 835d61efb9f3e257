from __future__ import annotations

import base64
import io
import socket
import sys

import pytest
from PIL import Image, ImageDraw

from digitkaggle.cli import main
from digitkaggle.core.basics import InputError
from digitkaggle.demo.page import answerer
from digitkaggle.runs.results import open_model
from tests.demo.strokes import STROKES


def drawing_of(digit: int | None, side: int = 280) -> str:
    """A drawing as the page sends it: black on nothing."""
    picture = Image.new("RGBA", (side, side))
    for stroke in STROKES[digit] if digit is not None else ():
        points = [(side * x, side * y) for x, y in stroke]
        ImageDraw.Draw(picture).line(points, fill=(0, 0, 0, 255), width=20, joint="curve")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def answer(trained):
    return answerer(*open_model(trained, device="cpu"))


def test_the_page_is_told_digit_probabilities_and_what_the_network_saw(answer):
    said = answer(drawing_of(3))
    assert said["digit"] == 3
    assert said["problem"] == ""
    assert len(said["probabilities"]) == 10
    content = base64.b64decode(said["seen"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as seen:
        assert seen.size == (28, 28)


def test_an_empty_page_is_told_so(answer):
    said = answer(drawing_of(None))
    assert said["digit"] is None
    assert said["problem"].startswith("Blank")
    assert said["seen"] is None


@pytest.mark.parametrize(
    "drawing",
    ["", "data:image/png;base64,????", "data:image/png;base64,aGVsbG8=", "A" * 2_000_000, None, 3],
    ids=["empty", "no base64", "no picture", "too long", "none", "number"],
)  # fmt: skip
def test_what_is_no_drawing_is_refused(answer, drawing):
    with pytest.raises(InputError, match="drawing"):
        answer(drawing)


def test_without_gradio_the_line_that_installs_it_is_told(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", str(trained)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the drawing page needs Gradio")
    assert "pip install -e '.[demo]'" in error
    assert error.count("\n") == 1


def test_a_port_in_use_is_one_line(trained, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", object())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", str(trained), "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"127.0.0.1, port {port} cannot be listened on" in error
    assert "--port" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(["--port", "99999"], "port 99999"), (["--host", "no.such.host"], "no.such.host")],
)
def test_a_place_that_cannot_be_listened_on_is_one_line(
    trained, flags, expected, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "gradio", object())
    assert main(["demo", str(trained), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert expected in error
