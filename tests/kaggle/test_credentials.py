"""All of the client's ways to sign in; without one nothing is asked."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from digitkaggle.cli import main
from tests.conftest import contents
from tests.kaggle.conftest import refused
from tests.kaggle_server import KEY


@pytest.mark.parametrize("command", ["download", "push", "submit"])
def test_without_credentials_one_line_says_how_to_get_them_and_nothing_is_asked(
    kaggle, repository, run, capsys, monkeypatch, command
):
    monkeypatch.delenv("KAGGLE_KEY")
    before = contents(repository)
    assert main([command]) == 2
    refused(capsys, 2, "https://www.kaggle.com/settings")
    assert kaggle.calls == []
    assert contents(repository) == before


WAYS = {
    "token variable": {"env": {"KAGGLE_API_TOKEN": "token-1"}},
    "token file named": {"env": {"KAGGLE_API_TOKEN": "~/mine"}, "files": {"mine": "token-1\n"}},
    "token file": {"files": {".kaggle/access_token": "token-1\n"}},
    "token file of Windows": {"files": {".kaggle/access_token.txt": "token-1"}},
    "kaggle.json": {"files": {".kaggle/kaggle.json": '{"username": "anna", "key": "KEY"}'}},
    "kaggle.json, new place": {
        "files": {".config/kaggle/kaggle.json": '{"username": "anna", "key": "KEY"}'}
    },
    "kaggle.json and variable": {
        "env": {"KAGGLE_KEY": KEY},
        "files": {".kaggle/kaggle.json": '{"username": "anna", "key": "old"}'},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_all_the_clients_ways_to_sign_in_work(kaggle, desk, monkeypatch, way):
    home = Path.home()
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    for name, text in WAYS[way].get("files", {}).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text.replace("KEY", KEY))
        (home / name).chmod(0o600)
    for name, value in WAYS[way].get("env", {}).items():
        monkeypatch.setenv(name, value.replace("~", str(home)))
    assert main(["download"]) == 0
    sent = kaggle.headers[0]["Authorization"]
    if "token" in way:
        assert sent == "Bearer token-1"
    else:
        assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"anna:{KEY}"
    # The signed address is fetched without our credentials.
    storage = kaggle.headers[kaggle.calls.index("GET /data.zip")]
    assert "Authorization" not in storage


def test_a_kaggle_json_that_others_can_read_is_mentioned_once(kaggle, desk, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_KEY")
    path = Path.home() / ".kaggle/kaggle.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"username": "anna", "key": KEY}))
    path.chmod(0o644)
    assert main(["download"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("chmod 600") == 1
    assert "chmod" not in captured.out


def test_importing_and_using_the_library_never_imports_the_kaggle_package(kaggle, desk):
    code = (
        "import sys; from digitkaggle.cli import main; main(['download']);"
        "sys.exit('kaggle' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
