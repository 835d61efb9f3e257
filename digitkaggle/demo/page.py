"""The page to draw on: a canvas, the prediction while you draw, and the network's input.

Built on Gradio, an extra. Nothing on the page comes from elsewhere: no fonts, no statistics.
"""

from __future__ import annotations

import base64
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from ..core.basics import InputError, logger
from ..core.prediction import Model
from ..runs.finished import load_model
from .pictures import find_digit, open_picture
from .predictions import predict_found

PNG_URL = "data:image/png;base64,"


def serve_page(
    run: Path, *, host: str = "127.0.0.1", port: int = 7860, device: str = "auto"
) -> None:
    """Serve the page for a run's model until interrupted; InputError without Gradio or a port."""
    # Read when Gradio is imported: no usage statistics, no check for newer versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        advice = "`make demo` installs it, or pip install -e '.[demo]'"
        raise InputError(f"the drawing page needs Gradio: {advice}") from error
    predict = make_predictor(load_model(run, device=device))
    port = find_port(host, port)
    names = ("page.html", "page.css", "page.js")
    html, css, script = (Path(__file__).with_name(name).read_text("utf-8") for name in names)
    with gradio.Blocks(title="Draw a digit") as page:
        gradio.HTML(
            str(run),
            server_functions=[predict],
            html_template=html,
            css_template=css,
            js_on_load=script,
        )
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )
    logger.info("Draw on http://%s:%d/ with the model of %s; Ctrl-C ends it.", host, port, run)
    page.block_thread()


def make_predictor(model: Model) -> Callable[[str], dict[str, Any]]:
    """A function from a drawing, a PNG's data URL, to a prediction for the page's script."""

    def predict(drawing: str) -> dict[str, Any]:
        try:
            content = base64.b64decode(drawing.removeprefix(PNG_URL), validate=True)
            colors = open_picture(io.BytesIO(content))
        except (AttributeError, ValueError, InputError) as error:
            raise InputError("that is not a drawing of this page") from error
        prediction = predict_found([find_digit(colors)], model)[0]
        url = None
        if prediction.image is not None:
            buffer = io.BytesIO()
            Image.fromarray(prediction.image).save(buffer, format="PNG")
            url = PNG_URL + base64.b64encode(buffer.getvalue()).decode()
        return {
            "digit": prediction.digit,
            "problem": prediction.problem.capitalize(),
            "probabilities": prediction.probabilities,
            "image": url,
        }

    return predict


def find_port(host: str, port: int) -> int:
    """The port, if it can be listened on; any free one for 0."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return trial.getsockname()[1]
    except (OSError, OverflowError) as error:
        place = f"{host}, port {port} cannot be listened on ({error})"
        raise InputError(f"{place}: choose another by --port") from error
