"""A stand-in for Kaggle that speaks its wire format on this machine and fails on demand.

The real client reaches it through KAGGLE_API_ENVIRONMENT=LOCALHOST and the proxy variables, so no
request can leave the machine: whatever it asks for, this server answers.
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
Fault = Callable[["Handler"], None]


class KaggleServer:
    """Kaggle's state, and the faults that are to come, each answering one call of its method."""

    def __init__(self, data_zip: bytes, submission: bytes) -> None:
        self.data_zip = data_zip
        self.faults: dict[str, list[Fault]] = {}
        self.calls: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.pushes: list[dict[str, Any]] = []
        self.push_answer: dict[str, Any] = {}
        self.states = ["QUEUED", "RUNNING", "COMPLETE"]
        self.failure = ""
        self.log = [{"stream_name": "stdout", "time": 1.0, "data": "epoch 1\n"}]
        self.metrics: dict[str, Any] = {}
        self.output = {"submission.csv": submission, "metrics.json": b""}
        self.uploads: list[bytes] = []
        self.submissions: list[dict[str, Any]] = []
        self.rejected = ""
        handler = type("Ours", (Handler,), {"kaggle": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.handle_error = lambda *about: None  # a client that hangs up is no news
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def fail(self, method: str, *faults: Fault) -> None:
        self.faults.setdefault(method, []).extend(faults)

    # What Kaggle does, by method; each returns the JSON of its answer.

    def list_submissions(self, request: dict) -> dict:
        shown = [{**entry, "status": next_of(entry["status"])} for entry in self.submissions]
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
        return {"url": url, "versionNumber": len(self.pushes), **self.push_answer}

    def get_kernel_session_status(self, request: dict) -> dict:
        return {"status": next_of(self.states), "failureMessage": self.failure}

    def list_kernel_session_output(self, request: dict) -> dict:
        """A page for each file; the metrics carry the digest in what was pushed last."""
        if "metrics.json" in self.output:
            digest = re.search(r'SOURCE_DIGEST = \\*"(\w+)', self.pushes[-1]["text"])[1]
            metrics = {"source_digest": digest} | self.metrics
            self.output["metrics.json"] = json.dumps(metrics).encode()
        names, page = list(self.output), int(request.get("pageToken", 0))
        more = {"nextPageToken": str(page + 1)} if page + 1 < len(names) else {}
        files = [{"fileName": names[page], "url": f"{STORAGE}/output/{page}"}]
        return {"files": files, "log": json.dumps(self.log), **more}


def next_of(states: list[str]) -> str:
    """The next state; the last one lasts."""
    return states.pop(0) if len(states) > 1 else states[0]


class Handler(BaseHTTPRequestHandler):
    kaggle: KaggleServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def respond(self) -> None:
        self.place, to_api = urlsplit(self.path).path, self.command == "POST"
        method = self.place.rpartition("/")[2] if to_api else f"{self.command} {self.place}"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.kaggle.calls.append(method)
        self.kaggle.headers.append(dict(self.headers))
        if faults := self.kaggle.faults.get(method):
            faults.pop(0)(self)
        elif to_api and "Authorization" not in self.headers:
            status(401)(self)
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

    def send(self, status: int, answer: bytes | dict, **headers: str) -> None:
        kind = "application/json" if isinstance(answer, dict) else "text/html"
        content = json.dumps(answer).encode() if isinstance(answer, dict) else answer
        self.send_response(status)
        for name, text in (headers | {"Content-Type": kind}).items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def serve(self, cut_after: int | None = None) -> None:
        """What is stored; only its beginning, perhaps."""
        output = list(self.kaggle.output.values())
        number = self.place.removeprefix("/output/")
        content = output[int(number)] if number.isdecimal() else self.kaggle.data_zip
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:cut_after])
        self.wfile.flush()


# Faults, to be given to KaggleServer.fail.


def status(code: int, message: str = "it failed", **headers: str) -> Fault:
    return lambda handler: handler.send(code, {"code": code, "message": message}, **headers)


def content(text: bytes = b"<html>Sign in</html>" * 50, code: int = 200) -> Fault:
    """Something else in the place of what was asked for, by default a web page."""
    return lambda handler: handler.send(code, text)


def cut(after: int) -> Fault:
    """What is stored, cut off after so many bytes."""
    return lambda handler: (handler.serve(after), drop(handler))


def drop(handler: Handler) -> None:
    """The connection ends without an answer, or in the middle of it."""
    handler.close_connection = True
    handler.connection.shutdown(2)


def zip_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
