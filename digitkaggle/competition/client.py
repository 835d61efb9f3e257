"""Kaggle's own client, with what it lacks: time limits, second tries, errors that say what to do.

To `import kaggle` may print pages, or hang: kagglesdk, its lower half, does the transport."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import requests
from requests import JSONDecodeError, RequestException

from ..core.basics import InputError
from ..core.data import COMPETITION
from ..runs.files import read_json

RULES = f"https://www.kaggle.com/c/{COMPETITION}/rules"
NEW_TOKEN = "make an API token at https://www.kaggle.com/settings"
TRIES = 5
NONSENSE = (ValueError, TypeError, KeyError, AttributeError)  # what kagglesdk raises on any
ADVICE = {
    401: f"the credentials are not accepted: {NEW_TOKEN}",
    403: f"forbidden: accept the rules at {RULES}, and check that the credentials are yours",
    404: "Kaggle does not know it: check the name, or push first",
    429: "too many requests: wait some minutes and try again",
}


class KaggleError(Exception):
    """Kaggle or the network refused or failed; printed as InputError is, with exit code 3."""


def kaggle_account() -> dict[str, str]:
    """`username` and `key` of kaggle.json, which KAGGLE_USERNAME and KAGGLE_KEY override."""
    given = {name: os.environ.get(f"KAGGLE_{name.upper()}", "") for name in ("username", "key")}
    usual = Path("~/.kaggle").expanduser()
    if not usual.is_dir():
        usual = Path("~/.config/kaggle").expanduser()
    path = Path(os.environ.get("KAGGLE_CONFIG_DIR", usual)) / "kaggle.json"
    if all(given.values()) or not path.is_file():
        return given
    found = read_json(path)
    if not all(isinstance(found.get(name), str) for name in given):
        raise InputError(f"{path} has no username and key: {NEW_TOKEN}")
    return {name: given[name] or found[name] for name in given}


class Kaggle:
    """A connection to Kaggle; its calls end in time, in an answer or a KaggleError."""

    time_limit = 60  # seconds that Kaggle may be silent
    pause = 2  # seconds before a second try, and between looks at a state

    def __init__(self) -> None:
        """Sign in by a token, a key, or what a sign-in by browser left: Kaggle's own order."""
        from kagglesdk import KaggleClient
        from kagglesdk.kaggle_creds import KaggleCredentials
        from kagglesdk.kaggle_env import get_access_token_from_env

        token, self.origin = get_access_token_from_env()
        name, key = ("", "") if token else kaggle_account().values()
        client = KaggleClient(username=name, password=key, api_token=token)
        self.apis = client.competitions.competition_api_client, client.kernels.kernels_api_client
        http = client.http_client()
        http.__enter__()  # makes the session
        http._session.send = partial(http._session.send, timeout=self.time_limit)
        if not token and not (name and key):
            saved = KaggleCredentials.load(client=client)
            token = saved and self.call("sign in", saved.get_access_token)
            if not token:
                raise InputError(f"no Kaggle credentials: {NEW_TOKEN}, for ~/.kaggle/kaggle.json")
            http._session.auth = http.BearerAuth(token)

    def ask(self, method: str, **fields: Any) -> Any:
        """The answer to a method of the client, whose request has these fields."""
        return self.call(method.replace("_", " "), partial(self.send, method, **fields))

    def send(self, method: str, **fields: Any) -> Any:
        """As `ask`, tried once, for use within `call`."""
        act = next(getattr(api, method) for api in self.apis if hasattr(api, method))
        request = inspect.signature(act, eval_str=True).parameters["request"].annotation()
        for name, value in fields.items():
            setattr(request, name, value)
        return act(request)

    def call(self, what: str, action: Callable[[], Any]) -> Any:
        """Do what may be done twice without harm, again after a pause where that may help."""
        for number in range(TRIES):
            try:
                return action()
            except (RequestException, *NONSENSE) as error:
                fault, may_pass = self.explain(error)
                if not may_pass or number == TRIES - 1:
                    raise KaggleError(f"{what}: {fault}") from error
                time.sleep(self.pause * 2**number)

    def explain(self, error: Exception) -> tuple[str, bool]:
        """What went wrong, with advice, and whether another try may help."""
        if isinstance(error, JSONDecodeError) or not isinstance(error, RequestException):
            return "Kaggle's answer makes no sense: try later", True
        response = error.response
        if response is None:
            why = f"{type(error).__name__}, within {self.time_limit} s"
            return f"no answer ({why}): check the network, and http_proxy if it is set", True
        response.close()  # a streamed one would stay open
        status = response.status_code
        if response.request.method != "POST":  # not the API: a signed address, which may expire
            return f"the storage refuses it ({status}): try later", True
        advice = ADVICE.get(status, "Kaggle has a fault: try later" if status >= 500 else "refused")
        origin = self.origin or "kaggle.json, KAGGLE_KEY"
        fault = f"{advice} ({one_line(error)}; credentials: {origin})"
        return fault, status == 429 or status >= 500


def fetch(url: str) -> bytes:
    """What a signed address holds, fetched without our credentials; for use in `call`."""
    response = requests.get(url, timeout=Kaggle.time_limit)
    response.raise_for_status()
    return response.content


def one_line(text: object) -> str:
    """What Kaggle says, fit for a line of ours."""
    return " ".join(str(text).split())[:300]
