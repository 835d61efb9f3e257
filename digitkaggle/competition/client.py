"""Kaggle's own client, with what it lacks: timeouts, retries, errors that say what to do.

It uses kagglesdk, the lower half of the package kaggle, whose import may print text or hang.
"""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import requests
from requests import RequestException
from requests.exceptions import InvalidJSONError

from ..core.basics import InputError
from ..core.kaggle import COMPETITION
from ..runs.files import read_json

RULES = f"https://www.kaggle.com/c/{COMPETITION}/rules"
TOKEN_ADVICE = (
    "create an access token at https://www.kaggle.com/settings, and save it as "
    "~/.kaggle/access_token or in KAGGLE_API_TOKEN, or run kaggle auth login"
)
ATTEMPTS = 5
ADVICE = {
    401: f"the credentials are not accepted: {TOKEN_ADVICE}",
    403: f"forbidden: accept the rules at {RULES}, and check that the credentials are yours",
    404: "not found: check the name, or push first",
    429: "too many requests: wait some minutes and try again",
}


class KaggleError(Exception):
    """Kaggle or the network refused or failed; printed as InputError is, with exit code 3."""


def find_account() -> dict[str, str]:
    """`username` and `key` of kaggle.json, the legacy key, or of KAGGLE_USERNAME and KAGGLE_KEY.

    Both are empty if there are none. Raises InputError if kaggle.json lacks one of them.
    """
    given = {name: os.environ.get(f"KAGGLE_{name.upper()}", "") for name in ("username", "key")}
    # os.path's function, unlike pathlib's, returns the path as it is where there is no home.
    default = Path(os.path.expanduser("~/.kaggle"))
    if not default.is_dir():
        default = Path(os.path.expanduser("~/.config/kaggle"))
    path = Path(os.environ.get("KAGGLE_CONFIG_DIR", default)) / "kaggle.json"
    if all(given.values()) or not path.is_file():
        return given
    # Beginners save the token, which Kaggle's page shows as text, under the old file's name.
    if re.fullmatch(rb'\s*"?[\w.-]{16,}"?\s*', path.read_bytes()):
        place = path.with_name("access_token")
        raise InputError(f"{path} holds an access token, not the legacy key: save it as {place}")
    found = read_json(path)
    if not all(isinstance(found.get(name), str) for name in given):
        raise InputError(f"{path} has no username and key: {TOKEN_ADVICE}")
    return {name: given[name] or found[name] for name in given}


class Kaggle:
    """A connection to Kaggle; every call ends in time, with a response or a KaggleError."""

    time_limit = 60  # seconds that Kaggle may be silent
    pause = 2  # seconds before the second attempt, and between two requests for a state

    def __init__(self) -> None:
        """Sign in by a token, a key, or a saved sign-in by browser: Kaggle's own order."""
        from kagglesdk.kaggle_creds import KaggleCredentials
        from kagglesdk.kaggle_env import get_access_token_from_env

        token, self.origin = get_access_token_from_env()
        username, key = ("", "") if token else find_account().values()
        client = self.connect(username=username, key=key, token=token)
        if not token and not (username and key):
            try:
                saved = KaggleCredentials.load(client=client)
            except Exception as error:  # kagglesdk's, over a damaged file
                reason = f"~/.kaggle/credentials.json cannot be read ({type(error).__name__})"
                raise InputError(f"{reason}: run kaggle auth login again") from error
            token = saved and self.call("sign in", partial(parse_response, saved.get_access_token))
            if not token:
                raise InputError(f"no credentials: {TOKEN_ADVICE}")
            client = self.connect(token=token)
        self.apis = client.competitions.competition_api_client, client.kernels.kernels_api_client

    def connect(self, username: str = "", key: str = "", token: str | None = None) -> Any:
        """kagglesdk's client with these credentials and our time limit."""
        from kagglesdk import KaggleClient

        client = KaggleClient(username=username, password=key, api_token=token)
        http = client.http_client()
        http.__enter__()  # makes the session
        # kagglesdk sends without a timeout, and there is no public way to its session.
        http._session.send = partial(http._session.send, timeout=self.time_limit)
        return client

    def ask(self, method: str, **fields: Any) -> Any:
        """The response to a method of the client, whose request has these fields."""
        return self.call(method.replace("_", " "), partial(self.send, method, **fields))

    def send(self, method: str, **fields: Any) -> Any:
        """Like `ask`, but only one attempt, for use within `call`."""
        api_method = next(getattr(api, method) for api in self.apis if hasattr(api, method))
        request = inspect.signature(api_method, eval_str=True).parameters["request"].annotation()
        for name, value in fields.items():
            setattr(request, name, value)
        return parse_response(partial(api_method, request))

    def call(self, what: str, action: Callable[[], Any]) -> Any:
        """Do what is safe to repeat, and repeat it after a pause where that may help."""
        for number in range(ATTEMPTS):
            try:
                return action()
            except RequestException as error:
                problem, may_pass = self.explain(error)
                if not may_pass or number == ATTEMPTS - 1:
                    raise KaggleError(f"{what}: {problem}") from error
                time.sleep(self.pause * 2**number)

    def explain(self, error: RequestException) -> tuple[str, bool]:
        """What went wrong, with advice, and whether another attempt may help."""
        if isinstance(error, InvalidJSONError):
            return "Kaggle's response cannot be read: try again later", True
        response = error.response
        if response is None:
            reason = f"{type(error).__name__}, within {self.time_limit} s"
            return f"no response ({reason}): check the network, and http_proxy if it is set", True
        response.close()  # a streamed one would stay open
        code = response.status_code
        if response.request.method != "POST":  # not the API: a signed address, which may expire
            return f"the storage refuses it ({code}): try again later", True
        advice = ADVICE.get(code, "Kaggle failed: try again later" if code >= 500 else "refused")
        origin = self.origin or "kaggle.json, KAGGLE_KEY"
        problem = f"{advice} ({join_lines(error)}; credentials: {origin})"
        return problem, code == 429 or code >= 500


def parse_response(request: Callable[[], Any]) -> Any:
    """The result of a call of kagglesdk; RequestException, also if it cannot parse the response."""
    try:
        return request()
    except RequestException:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidJSONError from error


def fetch(url: str) -> bytes:
    """The content at a signed address, fetched without our credentials; for use within `call`."""
    response = requests.get(url, timeout=Kaggle.time_limit)
    response.raise_for_status()
    return response.content


def join_lines(text: object) -> str:
    """A message of Kaggle on one line, at most 300 characters of it."""
    return " ".join(str(text).split())[:300]
