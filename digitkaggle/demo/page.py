"""The page to draw on: a canvas, the answer while one draws, and the image that the network saw.

Built on Gradio, an extra. Nothing on the page comes from elsewhere: no fonts, no counters.
"""

from __future__ import annotations

import base64
import io
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from ..core.basics import Compute, InputError, logger
from ..core.settings import Settings
from ..runs.results import open_model
from .answers import answer_digits
from .pictures import find_digit, open_picture

PNG_URL = "data:image/png;base64,"


def serve(run: Path, *, host: str = "127.0.0.1", port: int = 7860, device: str = "auto") -> None:
    """Serve the page for a run's model until interrupted; InputError without Gradio or a port."""
    # Read when Gradio is imported: no counting of visits, no asking for newer versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        advice = "`make demo` installs it, or pip install -e '.[demo]'"
        raise InputError(f"the drawing page needs Gradio: {advice}") from error
    answer = answerer(*open_model(run, device=device))
    port = free_port(host, port)
    names = ("page.html", "page.css", "page.js")
    html, css, script = (Path(__file__).with_name(name).read_text("utf-8") for name in names)
    parts = {"html_template": html, "css_template": css, "js_on_load": script}
    with gradio.Blocks(title="Draw a digit") as page:
        gradio.HTML(str(run), server_functions=[answer], **parts)
    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    where = {"server_name": host, "server_port": port, "share": False}
    page.launch(**where, theme=theme, footer_links=[], quiet=True, prevent_thread_lock=True)
    logger.info("Draw on http://%s:%d/ with the model of %s; Ctrl-C ends it.", host, port, run)
    page.block_thread()


def answerer(
    networks: Sequence[nn.Module], settings: Settings, compute: Compute
) -> Callable[[str], dict[str, Any]]:
    """What answers a drawing, given as a PNG's data URL, in the words of the page's script."""

    def answer(drawing: str) -> dict[str, Any]:
        try:
            content = base64.b64decode(drawing.removeprefix(PNG_URL), validate=True)
            colours = open_picture(io.BytesIO(content))
        except (AttributeError, ValueError, InputError) as error:
            raise InputError("that is no drawing of this page") from error
        said = answer_digits([find_digit(colours)], networks, compute, settings.views)[0]
        seen = io.BytesIO()
        if said.seen is not None:
            Image.fromarray(said.seen).save(seen, format="PNG")
        url = PNG_URL + base64.b64encode(seen.getvalue()).decode() if seen.tell() else None
        return vars(said) | {"problem": said.problem.capitalize(), "seen": url}

    return answer


def free_port(host: str, port: int) -> int:
    """The port, when it can be listened on; any free one for 0."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return trial.getsockname()[1]
    except (OSError, OverflowError) as error:
        place = f"{host}, port {port} cannot be listened on ({error})"
        raise InputError(f"{place}: choose another by --port") from error
