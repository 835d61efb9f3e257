"""A local server that speaks Kaggle's wire format and fails on demand.

The real client reaches it through KAGGLE_API_ENVIRONMENT=LOCALHOST and the proxy variables, so no
request leaves the machine: this server responds to all of them.
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

STORAGE = "http://storage.localhost"
KEY = "0123456789abcdef"
Failure = Callable[["Handler"], None]


class KaggleServer:
    """Kaggle's state, and failures to come: each replaces one response of its method."""

    def __init__(self, data_zip: bytes, submission: bytes) -> None:
        self.data_zip = data_zip
        self.failures: dict[str, list[Failure]] = {}
        self.calls: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.pushes: list[dict[str, Any]] = []
        self.push_response: dict[str, Any] = {}
        self.states = ["QUEUED", "RUNNING", "COMPLETE"]
        self.failure_message = ""
        self.log = [{"stream_name": "stdout", "time": 1.0, "data": "epoch 1\n"}]
        self.metrics: dict[str, Any] = {}
        self.output = {"submission.csv": submission, "metrics.json": b""}
        self.uploads: list[bytes] = []
        self.submissions: list[dict[str, Any]] = []
        self.rejected = ""
        handler = type("BoundHandler", (Handler,), {"kaggle": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.handle_error = lambda *arguments: None  # clients may hang up
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def fail(self, method: str, *failures: Failure) -> None:
        self.failures.setdefault(method, []).extend(failures)

    # Kaggle's methods; each returns the JSON of its response.

    def list_submissions(self, request: dict) -> dict:
        shown = [{**entry, "status": take_next(entry["status"])} for entry in self.submissions]
        return {"submissions": shown[::-1]}

    def start_submission_upload(self, request: dict) -> dict:
        return {"token": "blob-1", "createUrl": f"{STORAGE}/upload"}

    def create_submission(self, request: dict) -> dict:
        entry = {
            "ref": 1000 + len(self.submissions),
            "description": request["submissionDescription"],
            "status": ["PENDING", "ERROR" if self.rejected else "COMPLETE"],
            "publicScore": "0.99400",
            "errorDescription": self.rejected,
        }
        self.submissions.append(entry)
        return {"message": "Successfully submitted", "ref": entry["ref"]}

    def save_kernel(self, request: dict) -> dict:
        self.pushes.append(request)
        url = f"https://www.kaggle.com/code/{request['slug']}"
        return {"url": url, "versionNumber": len(self.pushes), **self.push_response}

    def get_kernel_session_status(self, request: dict) -> dict:
        return {"status": take_next(self.states), "failureMessage": self.failure_message}

    def list_kernel_session_output(self, request: dict) -> dict:
        """A page per file; the metrics have the source digest of the last push."""
        if "metrics.json" in self.output:
            digest = re.search(r'SOURCE_DIGEST = \\*"(\w+)', self.pushes[-1]["text"])[1]
            metrics = {"source_digest": digest} | self.metrics
            self.output["metrics.json"] = json.dumps(metrics).encode()
        names, page = list(self.output), int(request.get("pageToken", 0))
        more = {"nextPageToken": str(page + 1)} if page + 1 < len(names) else {}
        files = [{"fileName": names[page], "url": f"{STORAGE}/output/{page}"}]
        return {"files": files, "log": json.dumps(self.log), **more}


def take_next(states: list[str]) -> str:
    """The next state; the last one stays."""
    return states.pop(0) if len(states) > 1 else states[0]


class Handler(BaseHTTPRequestHandler):
    kaggle: KaggleServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def respond(self) -> None:
        self.url_path, to_api = urlsplit(self.path).path, self.command == "POST"
        method = self.url_path.rpartition("/")[2] if to_api else f"{self.command} {self.url_path}"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.kaggle.calls.append(method)
        self.kaggle.headers.append(dict(self.headers))
        if failures := self.kaggle.failures.get(method):
            failures.pop(0)(self)
        elif to_api and "Authorization" not in self.headers:
            fail_with(401)(self)
        elif method == "DownloadDataFiles":
            self.send(302, b"", Location=f"{STORAGE}/data.zip?signed={len(self.kaggle.calls)}")
        elif to_api:
            name = re.sub("(?<!^)([A-Z])", r"_\1", method).lower()
            self.send(200, getattr(self.kaggle, name)(json.loads(body)))
        elif self.command == "PUT":
            self.kaggle.uploads.append(body)
            self.send(200, b"")
        else:
            self.serve()

    do_GET = do_PUT = do_POST = respond  # noqa: N815

    def send(self, code: int, response: bytes | dict, **headers: str) -> None:
        kind = "application/json" if isinstance(response, dict) else "text/html"
        content = json.dumps(response).encode() if isinstance(response, dict) else response
        self.send_response(code)
        for name, text in (headers | {"Content-Type": kind}).items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def serve(self, cut_after: int | None = None) -> None:
        """Send a stored file, or only its beginning."""
        output = list(self.kaggle.output.values())
        number = self.url_path.removeprefix("/output/")
        content = output[int(number)] if number.isdecimal() else self.kaggle.data_zip
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:cut_after])
        self.wfile.flush()


# Failures for KaggleServer.fail.


def fail_with(code: int, message: str = "it failed", **headers: str) -> Failure:
    """An error of Kaggle's API."""
    return lambda handler: handler.send(code, {"code": code, "message": message}, **headers)


def reply(text: bytes = b"<html>Sign in</html>" * 50, code: int = 200) -> Failure:
    """Another response than the expected one, by default a web page."""
    return lambda handler: handler.send(code, text)


def cut_off(after: int) -> Failure:
    """A stored file, cut off after this number of bytes."""
    return lambda handler: (handler.serve(after), hang_up(handler))


def hang_up(handler: Handler) -> None:
    """Close the connection without a response, or in the middle of it."""
    handler.close_connection = True
    handler.connection.shutdown(2)


def make_zip(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
