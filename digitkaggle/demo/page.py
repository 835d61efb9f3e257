"""The page to draw on: a canvas, the answer while one draws, and the image that the network saw.

Built on Gradio, an extra. Nothing on the page comes from elsewhere: no fonts, no counters. Never in
the kernel.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from ..core.basics import Compute, InputError, logger
from ..core.settings import Settings
from ..runs.results import open_model
from .answers import answer_digits
from .pictures import colours_of, find_digit

PNG_URL = "data:image/png;base64,"
# A canvas of 280 x 280; what is much larger did not come from our page.
LONGEST_DRAWING = 1_000_000
LARGEST_SIDE = 1000
PAGE_FILES = ("page.html", "page.css", "page.js")
INSTALL_DEMO = "the drawing page needs Gradio: `make demo` installs it, or pip install -e '.[demo]'"


def serve(
    run: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str = "auto",
    stop: threading.Event | None = None,
) -> None:
    """Serve the page for the model of a run's folder until `stop` is set, or for ever.

    Raises:
        InputError: Gradio is not installed, there is no such model, or the port is taken.
    """
    # Read when Gradio is imported: no counting of visits, no asking for newer versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise InputError(INSTALL_DEMO) from error
    networks, settings, compute = open_model(run, device=device)
    port = free_port(host, port)
    page = drawing_page(gradio, answerer(networks, compute, settings), str(run))
    page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        footer_links=[],
        theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )
    try:
        logger.info("Draw on http://%s:%d/ with the model of %s; Ctrl-C ends it.", host, port, run)
        with contextlib.suppress(KeyboardInterrupt):  # how one ends it
            (stop or threading.Event()).wait()
    finally:
        page.close(verbose=False)


def drawing_page(gradio: Any, answer: Callable[[str], dict[str, Any]], name: str) -> Any:
    """The page as Gradio's Blocks; `answer` is what it asks about a drawing."""
    html, css, script = (
        (Path(__file__).parent / file).read_text(encoding="utf-8") for file in PAGE_FILES
    )
    with gradio.Blocks(title="Draw a digit", analytics_enabled=False) as page:
        gradio.HTML(
            name, html_template=html, css_template=css, js_on_load=script, server_functions=[answer]
        )
    return page


def answerer(
    networks: Sequence[nn.Module], compute: Compute, settings: Settings
) -> Callable[[str], dict[str, Any]]:
    """What answers a drawing, given as a PNG's data URL, in the words of the page's script."""

    def answer(drawing: str) -> dict[str, Any]:
        found = find_digit(colours_of(opened(drawing)))
        said = answer_digits([found], networks, compute, settings.views)[0]
        return {
            "digit": said.digit,
            "problem": said.problem and said.problem[0].upper() + said.problem[1:] + ".",
            "probabilities": said.probabilities,
            "seen": None if said.seen is None else data_url(Image.fromarray(said.seen)),
        }

    return answer


def opened(drawing: str) -> Image.Image:
    """The picture that a drawing's data URL holds; InputError for anything else."""
    try:
        if len(drawing) > LONGEST_DRAWING:
            raise ValueError("too long")
        content = base64.b64decode(drawing.removeprefix(PNG_URL), validate=True)
        picture = Image.open(io.BytesIO(content), formats=("PNG",))
        if max(picture.size) > LARGEST_SIDE:
            raise InputError("that drawing is too large")
        picture.load()
    except (OSError, ValueError, SyntaxError, TypeError, AttributeError) as error:
        raise InputError("that is no drawing of this page") from error
    return picture


def data_url(picture: Image.Image) -> str:
    """A picture as a PNG's data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return PNG_URL + base64.b64encode(buffer.getvalue()).decode("ascii")


def free_port(host: str, port: int) -> int:
    """The port, when it can be listened on; any free one for 0."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return int(trial.getsockname()[1])
    except (OSError, OverflowError) as error:
        place = f"{host}, port {port} cannot be listened on ({error})"
        raise InputError(f"{place}: choose another by --port") from error
