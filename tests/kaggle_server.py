"""A stand-in for Kaggle that speaks its wire format on this machine and fails on demand.

The real client reaches it through KAGGLE_API_ENVIRONMENT=LOCALHOST and the proxy variables, so no
request can leave the machine: whatever it asks for, this server answers.
"""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

STORAGE = "http://storage.localhost"
KEY = "0123456789abcdef"


class QuietServer(ThreadingHTTPServer):
    """A client that hangs up is no news, and what is printed counts as the command's output."""

    def handle_error(self, *about: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*about)


class KaggleServer:
    """Kaggle's state, and the faults that are to come.

    `faults[method]` is a list of functions of the handler, taken one a call before the method does
    its work; one that returns True has answered.
    """

    def __init__(self, data_zip: bytes, sizes: dict[str, int], submission: str) -> None:
        self.data_zip = data_zip
        self.sizes = sizes
        self.faults: dict[str, list[Callable[[Any], bool | None]]] = {}
        self.calls: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.pushes: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.submissions: list[dict[str, Any]] = []
        self.states = ["QUEUED", "RUNNING", "COMPLETE"]
        self.failure = ""
        self.log = [{"stream_name": "stdout", "time": 1.0, "data": "epoch 1\n"}]
        self.limits: dict[str, Any] | None = {"numToday": 1, "numTotal": 9, "numAllowedNow": 4}
        self.score_after = 1
        self.rejected = ""
        self.push_answer: dict[str, Any] = {}
        self.output = {"submission.csv": submission.encode(), "metrics.json": None}
        self.output_names: dict[str, str] = {}
        handler = type("Handler", (Handler,), {"kaggle": self})
        self.http = QuietServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def environment(self) -> dict[str, str]:
        """What makes the real client come here, at a quick pace."""
        return {
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "http_proxy": self.address,
            "https_proxy": self.address,
            "no_proxy": "",
            "NO_PROXY": "",
            "DIGITKAGGLE_KAGGLE_PAUSE": "0.02",
            "DIGITKAGGLE_KAGGLE_TIMEOUT": "5",
        }

    def fail(self, method: str, *faults: Callable[[Any], bool | None]) -> None:
        self.faults.setdefault(method, []).extend(faults)

    # What Kaggle does, by method; each returns the JSON of its answer.

    def list_data_files(self, request: dict) -> dict:
        return {"files": [{"name": n, "totalBytes": size} for n, size in self.sizes.items()]}

    def list_submissions(self, request: dict) -> dict:
        for entry in self.submissions:
            entry["asked"] += 1
            if entry["asked"] > self.score_after and entry["status"] == "PENDING":
                entry["status"] = "ERROR" if self.rejected else "COMPLETE"
                entry["publicScore"] = "" if self.rejected else "0.99400"
                entry["errorDescription"] = self.rejected
        return {"submissions": [{**e, "asked": None} for e in reversed(self.submissions)]}

    def start_submission_upload(self, request: dict) -> dict:
        token = f"blob-{len(self.uploads)}"
        self.uploads[token] = b""
        return {"token": token, "createUrl": f"{STORAGE}/upload/{token}"}

    def create_submission(self, request: dict) -> dict:
        ref = 1000 + len(self.submissions)
        self.submissions.append(
            {
                "ref": ref,
                "date": "2026-11-22T12:00:00Z",
                "description": request["submissionDescription"],
                "fileName": "submission.csv",
                "status": "PENDING",
                "asked": 0,
                "token": None,
            }
        )
        return {"message": "Successfully submitted to Digit Recognizer", "ref": ref}

    def get_submission_limits(self, request: dict) -> dict | None:
        return self.limits

    def save_kernel(self, request: dict) -> dict:
        self.pushes.append(request)
        return {
            "ref": f"/code/{request['slug']}",
            "url": f"https://www.kaggle.com/code/{request['slug']}",
            "versionNumber": len(self.pushes),
            **self.push_answer,
        }

    def get_kernel_session_status(self, request: dict) -> dict:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"status": state, "failureMessage": self.failure}

    def list_kernel_session_output(self, request: dict) -> dict:
        names = list(self.output)
        page = int(request.get("pageToken") or 0)
        more = {"nextPageToken": str(page + 1)} if page + 1 < len(names) else {}
        name = names[page]
        shown = self.output_names.get(name, name)
        files = [{"fileName": shown, "url": f"{STORAGE}/output/{name}"}]
        return {"files": files, "log": json.dumps(self.log), **more}

    def pushed_digest(self) -> str:
        """The digest in the source, script or notebook, that was pushed last."""
        return re.search(r'SOURCE_DIGEST = \\*"(\w+)', self.pushes[-1]["text"]).group(1)


class Handler(BaseHTTPRequestHandler):
    kaggle: KaggleServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        method = urlsplit(self.path).path.rpartition("/")[2]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.begin(method):
            return
        if "Authorization" not in self.headers:
            return self.answer(401, {"code": 401, "message": "Unauthorized"})
        if method == "DownloadDataFiles":
            self.send_response(302)
            self.send_header("Location", f"{STORAGE}/data.zip?signed={len(self.kaggle.calls)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        name = "".join("_" + c.lower() if c.isupper() else c for c in method).lstrip("_")
        answer = getattr(self.kaggle, name)(json.loads(body or "{}"))
        if answer is None:
            return self.answer(404, {"code": 404, "message": "Not found"})
        return self.answer(200, answer)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.begin("PUT"):
            self.kaggle.uploads[self.path.rpartition("/")[2]] = body
            self.answer(200, {})

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if self.begin("GET " + path):
            return
        if path == "/data.zip":
            self.serve(self.kaggle.data_zip)
        else:
            content = self.kaggle.output[path.removeprefix("/output/")]
            if content is None:
                content = json.dumps({"source_digest": self.kaggle.pushed_digest()}).encode()
            self.serve(content)

    def do_CONNECT(self) -> None:
        self.begin("CONNECT " + self.path)
        self.answer(403, {"message": "nothing leaves this machine"})

    def begin(self, method: str) -> bool:
        self.kaggle.calls.append(method)
        self.kaggle.headers.append(dict(self.headers))
        faults = self.kaggle.faults.get(method)
        return bool(faults and faults.pop(0)(self))

    def answer(self, status: int, value: object, **headers: str) -> None:
        self.send(status, json.dumps(value).encode(), "application/json", headers)

    def send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(content)

    def serve(self, content: bytes, *, cut_after: int | None = None) -> None:
        """A file, from where the Range header asks, perhaps cut off."""
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start >= len(content) > 0:
            return self.send(416, b"", "text/plain", {})
        part = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if cut_after is None:
            self.wfile.write(part)
            return None
        self.wfile.write(part[:cut_after])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)
        return None


# Faults, to be given to KaggleServer.fail.


def status(code: int, message: str = "it failed", **headers: str) -> Callable[[Handler], bool]:
    def fault(handler: Handler) -> bool:
        handler.answer(code, {"code": code, "message": message}, **headers)
        return True

    return fault


def page(code: int = 200) -> Callable[[Handler], bool]:
    """A web page in the place of an answer."""

    def fault(handler: Handler) -> bool:
        handler.send(code, b"<html>Sign in</html>" * 50, "text/html", {})
        return True

    return fault


def drop(handler: Handler) -> bool:
    """The connection ends without an answer."""
    handler.close_connection = True
    handler.connection.shutdown(2)
    return True


def silence(handler: Handler) -> bool:
    """No answer for longer than the client waits."""
    time.sleep(7)
    return drop(handler)


def cut(after: int) -> Callable[[Handler], bool]:
    """The data's zip, cut off after so many bytes."""

    def fault(handler: Handler) -> bool:
        handler.serve(handler.kaggle.data_zip, cut_after=after)
        return True

    return fault


def content(text: bytes) -> Callable[[Handler], bool]:
    """Another file in the place of the one that was asked for."""

    def fault(handler: Handler) -> bool:
        handler.send(200, text, "application/octet-stream", {})
        return True

    return fault


def zip_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()
