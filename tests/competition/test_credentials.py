"""All of Kaggle's ways to sign in; without one no request is made."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from digitkaggle.competition.download import download
from digitkaggle.competition.kernel import push
from digitkaggle.competition.submit import submit
from digitkaggle.core.basics import InputError
from tests.competition.conftest import expect_error
from tests.competition.server import KEY
from tests.conftest import read_folder

JSON = json.dumps({"username": "anna", "key": KEY})
OLD_JSON = json.dumps({"username": "anna", "key": "old"})
BY_BROWSER = {"access_token": "token-1", "access_token_expiration": "2999-01-01T00:00:00+00:00"}
WAYS = {
    "token variable": {"KAGGLE_API_TOKEN": "token-1"},
    "token file named": {"KAGGLE_API_TOKEN": "~/mine", "mine": "token-1\n"},
    "token file": {".kaggle/access_token": "token-1\n", ".kaggle/kaggle.json": OLD_JSON},
    "token of a sign-in by browser": {
        ".kaggle/credentials.json": json.dumps({"refresh_token": "r"} | BY_BROWSER)
    },
    "file": {".kaggle/kaggle.json": JSON},
    "file in its new place": {".config/kaggle/kaggle.json": JSON},
    "file elsewhere": {"KAGGLE_CONFIG_DIR": "~/there", "there/kaggle.json": JSON},
    "file and variable": {"KAGGLE_KEY": KEY, ".kaggle/kaggle.json": OLD_JSON},
    "variables": {"KAGGLE_USERNAME": "anna", "KAGGLE_KEY": KEY, ".kaggle/kaggle.json": "{"},
}


@pytest.fixture
def kaggle_without_account(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    return kaggle


def write_in_home(name: str, text: str) -> None:
    path = Path.home() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("latin-1"))


@pytest.mark.parametrize("way", WAYS)
def test_all_of_kaggles_ways_to_sign_in_work(kaggle_without_account, monkeypatch, way):
    for name, text in WAYS[way].items():
        if name.startswith("KAGGLE_"):
            monkeypatch.setenv(name, text.replace("~", str(Path.home())))
        else:
            write_in_home(name, text)
    download()
    server = kaggle_without_account
    scheme, secret = server.headers[0]["Authorization"].split()
    if "token" in way:
        assert (scheme, secret) == ("Bearer", "token-1")
    else:
        assert (scheme, base64.b64decode(secret).decode()) == ("Basic", f"anna:{KEY}")
    # The signed address is fetched without our credentials.
    assert "Authorization" not in server.headers[server.calls.index("GET /data.zip")]
    assert "kaggle" not in sys.modules  # its import would sign in and print


@pytest.mark.parametrize("command", [download, push, submit])
def test_without_credentials_one_line_says_how_to_get_them_and_no_request_is_made(
    kaggle_without_account, repository, run, command
):
    before = read_folder(repository)
    with expect_error(InputError, "https://www.kaggle.com/settings"):
        command()
    assert kaggle_without_account.calls == []
    assert read_folder(repository) == before


@pytest.mark.parametrize("text", ["", "[]", f'{{"key": "{KEY}"}}', f"{KEY}\xff"])
def test_a_damaged_kaggle_json_is_named_and_its_content_is_not_shown(kaggle_without_account, text):
    write_in_home(".kaggle/kaggle.json", text)
    with expect_error(InputError, "kaggle.json"):
        download()


@pytest.mark.parametrize("text", ["KGAT_0123456789abcdef\n", '"KGAT_0123456789abcdef"'])
def test_a_token_that_was_saved_as_kaggle_json_is_recognized(kaggle_without_account, text):
    write_in_home(".kaggle/kaggle.json", text)
    with expect_error(InputError, "holds an access token, not the legacy key: save it as"):
        download()
    assert kaggle_without_account.calls == []


@pytest.mark.parametrize("text", ["[]", '{"refresh_token": "r", "access_token_expiration": "x"}'])
def test_a_damaged_sign_in_by_browser_is_named(kaggle_without_account, text):
    write_in_home(".kaggle/credentials.json", text)
    with expect_error(InputError, "credentials.json cannot be read"):
        download()


def test_a_legacy_key_with_a_byte_order_mark_is_read(kaggle_without_account):
    write_in_home(".kaggle/kaggle.json", "\xef\xbb\xbf" + JSON)
    download()


NO_HOME = """
import os, pwd
def getpwuid(number):
    raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = getpwuid
os.environ.pop("HOME", None)
from digitkaggle.competition.client import find_account
print(find_account())
"""


@pytest.mark.parametrize("variables", [{}, {"KAGGLE_USERNAME": "anna", "KAGGLE_KEY": KEY}])
def test_without_a_home_and_a_known_user_variables_are_enough(variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KAGGLE_")} | variables
    done = subprocess.run(
        [sys.executable, "-c", NO_HOME], env=environment, capture_output=True, text=True
    )
    account = {"username": "anna", "key": KEY} if variables else {"username": "", "key": ""}
    assert done.stdout == f"{account}\n", done.stderr
