"""The page, served to a browser by the standard library."""

from __future__ import annotations

import os
import socket
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any

from ..core.basics import InputError, logger


class PageServer(ThreadingTCPServer):
    """Serves one page, whatever the file that holds it becomes later."""

    # Not http.server.HTTPServer: it asks the network for the host's full name.
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, page: bytes, host: str, port: int) -> None:
        self.page = page
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), PageHandler)
        except (OSError, OverflowError) as error:
            place = f"{host}, port {port} cannot be listened on ({error})"
            raise InputError(f"{place}: choose another by --port") from error

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class PageHandler(BaseHTTPRequestHandler):
    """Answers a request with the page."""

    server: PageServer

    def do_GET(self) -> None:
        """The page at `/`, and nothing else."""
        if self.path.partition("?")[0] != "/":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, format: str, *args: Any) -> None:
        """No line per request."""


def serve_page(page: Path, *, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve a page until interrupted, and open it where there is a display.

    Raises:
        InputError: the host or port cannot be listened on.
    """
    with PageServer(page.read_bytes(), host, port) as server:
        logger.info("Draw on %s with the page %s; Ctrl-C ends it.", server.url, page)
        if has_display():
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it
            logger.info("")


def has_display() -> bool:
    """Whether a browser with windows can open; else a text browser would take the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
