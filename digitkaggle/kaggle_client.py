"""Kaggle's own client, with what it lacks: time limits, retries, and errors that say what to do.

kagglesdk, the lower half of the package kaggle, does the transport. Importing it does nothing,
where `import kaggle` prints pages without credentials and may hang with them; even so it is
imported only when a command is about to call Kaggle.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError, KaggleError
from .kernel_metadata import kaggle_config_folder
from .locations import COMPETITION

COMPETITION_PAGE = f"https://www.kaggle.com/c/{COMPETITION}"
HOW_TO_GET_CREDENTIALS = (
    "no Kaggle credentials: make an API token at https://www.kaggle.com/settings, then put "
    "kaggle.json into ~/.kaggle, or the token into KAGGLE_API_TOKEN"
)
COPY_BLOCK = 16 * 1024  # what is lost at most when a download is cut
MOST_TRIES = 5
LONGEST_WAIT = 300.0  # seconds that a Retry-After may ask for
Answer = TypeVar("Answer")


def time_limit() -> float:
    """Seconds that Kaggle may stay silent in a call."""
    return _seconds("DIGITKAGGLE_KAGGLE_TIMEOUT", 60.0)


def first_pause() -> float:
    """Seconds before a second try, doubled for each further one; the beat of all waiting."""
    return _seconds("DIGITKAGGLE_KAGGLE_PAUSE", 2.0)


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"{variable} is a number of seconds above 0, not {text!r}")
    return seconds


@dataclass(frozen=True)
class Credentials:
    """What tells Kaggle who we are; never printed."""

    origin: str
    username: str = ""
    key: str = ""
    token: str = ""
    oauth: bool = False

    def secrets(self) -> list[str]:
        """The texts that nobody may see."""
        return [text for text in (self.key, self.token) if text]

    def __repr__(self) -> str:
        return f"Credentials({self.origin})"


def find_credentials() -> Credentials:
    """The credentials that the client itself would use, in its order, found without the network.

    Raises:
        InputError: there are none.
    """
    home = Path.home() / ".kaggle"
    token = os.environ.get("KAGGLE_API_TOKEN", "")
    if token:
        path = Path(token)
        try:
            text = path.read_text(encoding="utf-8").strip() if os.path.isfile(path) else token
        except (OSError, ValueError):
            text = token
        return Credentials("KAGGLE_API_TOKEN", token=text)
    for name in ("access_token", "access_token.txt"):
        text = _text_of(home / name).strip()
        if text:
            return Credentials(str(home / name), token=text)
    path = kaggle_config_folder() / "kaggle.json"
    file = _object_of(path)
    username = os.environ.get("KAGGLE_USERNAME") or str(file.get("username", ""))
    key = os.environ.get("KAGGLE_KEY") or str(file.get("key", ""))
    if username and key:
        origin = "KAGGLE_KEY" if os.environ.get("KAGGLE_KEY") else str(path)
        if origin == str(path):
            _warn_if_others_can_read(path)
        return Credentials(origin, username=username, key=key)
    if _object_of(home / "credentials.json").get("refresh_token"):
        return Credentials(str(home / "credentials.json"), oauth=True)
    raise InputError(HOW_TO_GET_CREDENTIALS)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _object_of(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text_of(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _warn_if_others_can_read(path: Path) -> None:
    if os.name != "nt" and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        print(f"others on this machine can read {path}: chmod 600 {path}", file=sys.stderr)


class Kaggle:
    """A connection to Kaggle; its calls have a time limit and end in an answer or a KaggleError."""

    def __init__(self) -> None:
        self.credentials = find_credentials()
        # Not above: nobody who trains a network should wait for these.
        import requests
        from kagglesdk import KaggleClient
        from kagglesdk.kaggle_creds import KaggleCredentials

        self.requests = requests
        who = self.credentials
        client = KaggleClient(
            username=who.username or None,
            password=who.key or None,
            api_token=who.token or None,
            user_agent="digitkaggle",
        )
        if who.oauth:
            token = self.call("sign in", lambda: self._oauth_token(KaggleCredentials, client))
            self.credentials = Credentials(who.origin, token=token, oauth=True)
            client = KaggleClient(api_token=token, user_agent="digitkaggle")
        self._give_time_limit(client)
        self.competitions = client.competitions.competition_api_client
        self.kernels = client.kernels.kernels_api_client

    def _oauth_token(self, credentials: Any, client: Any) -> str:
        self._give_time_limit(client)
        return credentials.load(client=client).get_access_token() or ""

    def _give_time_limit(self, client: Any) -> None:
        class LimitedAdapter(self.requests.adapters.HTTPAdapter):
            def send(self, request: Any, **options: Any) -> Any:
                return super().send(request, **{**options, "timeout": time_limit()})

        http = client.http_client()
        http.__enter__()  # makes the session
        for scheme in ("http://", "https://"):
            http._session.mount(scheme, LimitedAdapter())

    def call(self, what: str, action: Callable[[], Answer], *, repeatable: bool = True) -> Answer:
        """Do one thing with Kaggle, again after a pause where that may help and does no harm.

        Args:
            what: the thing in words, for messages.
            action: does it.
            repeatable: it may be done twice. What may not is tried again only when Kaggle surely
                did not do it: 429, or no connection at all.

        Raises:
            KaggleError: it was refused or failed.
        """
        for pause in self._pauses():
            try:
                return action()
            except self.requests.exceptions.HTTPError as error:
                status = 0
                if error.response is not None:
                    status = error.response.status_code
                    error.response.close()  # a streamed one would stay open
                fault = self._refused(what, status, error)
                if status == 429:
                    pause = self._retry_after(error.response, pause)
                elif _from_storage(error):
                    # A signed address that has expired, most likely: the next try gets a new one.
                    fault = KaggleError(f"{what}: the storage refuses it ({status}): try later")
                elif status < 500 or not repeatable:
                    raise fault from error
            except self.requests.exceptions.RequestException as error:
                fault = KaggleError(f"{what}: {_network_fault(error)}")
                never_sent = isinstance(error, self.requests.exceptions.ConnectTimeout)
                if not (repeatable or never_sent):
                    raise fault from error
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                # kagglesdk trusts every answer to be what it should be.
                raise KaggleError(f"{what}: Kaggle's answer makes no sense; try later") from error
            if pause is None:
                raise fault
            time.sleep(pause)
        raise AssertionError("the last pause is None")

    def fetch(self, url: str, *, start: int = 0) -> Any:
        """A streamed response to GET `url` from byte `start`, without our credentials.

        Raises:
            requests.exceptions.RequestException: it failed; `call` makes sense of it.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self.requests.get(url, headers=headers, stream=True, timeout=time_limit())
        if response.status_code != 416:
            response.raise_for_status()
        return response

    def put(self, url: str, content: bytes) -> None:
        """PUT `content` to `url`, without our credentials; raises as `fetch`."""
        response = self.requests.put(url, data=content, timeout=time_limit())
        response.raise_for_status()

    @staticmethod
    def _pauses() -> Iterator[float | None]:
        for number in range(MOST_TRIES - 1):
            yield first_pause() * 2**number
        yield None

    @staticmethod
    def _retry_after(response: Any, pause: float | None) -> float | None:
        try:
            asked = float(response.headers.get("Retry-After", ""))
        except ValueError:
            return pause
        if pause is None or not 0 <= asked <= LONGEST_WAIT:
            return None
        return max(asked, pause)

    def _refused(self, what: str, status: int, error: Exception) -> KaggleError:
        said = str(error).partition("\n")[0]
        for secret in self.credentials.secrets():
            said = said.replace(secret, "…")
        advice = {
            401: f"Kaggle does not accept the credentials in {self.credentials.origin}: make a "
            "new token at https://www.kaggle.com/settings",
            403: f"forbidden; join and accept the rules at {COMPETITION_PAGE}/rules, and see that "
            f"the credentials in {self.credentials.origin} are yours",
            404: "Kaggle does not know it: check the name, or push first",
            409: "Kaggle is at another change of the same thing: wait a minute and try again",
            429: "too many requests: wait some minutes and try again",
        }.get(status, "Kaggle has a fault: try later" if status >= 500 else "refused")
        return KaggleError(f"{what}: {advice} ({said[:200]})")


def _from_storage(error: Any) -> bool:
    """Whether an HTTP error is not of Kaggle's API, all of whose calls are POST."""
    return error.response is not None and error.response.request.method != "POST"


def _network_fault(error: Exception) -> str:
    name = type(error).__name__
    if "Timeout" in name:
        return f"no answer within {time_limit():g} s: check the network and try again"
    # Behind a proxy every fault is a ProxyError; its own are that it is not there, or refuses.
    if "Proxy" in name and ("NewConnectionError" in str(error) or "Tunnel" in str(error)):
        return "the proxy does not work: check http_proxy and https_proxy"
    if "SSL" in name:
        return "no safe connection: check the clock and the proxy of this machine"
    return f"the connection failed ({name}): check the network and try again"


def one_line(text: object) -> str:
    """What Kaggle says, fit for a line of ours."""
    return " ".join(str(text).split())[:300]
