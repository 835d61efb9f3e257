from __future__ import annotations

import json

import pytest
from slugify import slugify

from digitkaggle.errors import InputError
from digitkaggle.kernel_metadata import OWNER_MISSING, kaggle_owner, kernel_metadata


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """A home without any Kaggle account."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_kernel_is_private_on_two_t4_without_internet():
    metadata = kernel_metadata("script", "somebody")
    assert metadata["id"] == "somebody/digitkaggle-digit-recognizer"
    assert metadata["code_file"] == "main.py"
    assert metadata["kernel_type"] == "script"
    assert metadata["is_private"] is metadata["enable_gpu"] is True
    assert metadata["enable_internet"] is metadata["enable_tpu"] is False
    assert metadata["machine_shape"] == "NvidiaTeslaT4"
    assert metadata["competition_sources"] == ["digit-recognizer"]
    assert json.loads(json.dumps(metadata)) == metadata


def test_the_title_makes_the_address_by_kaggles_own_rule():
    metadata = kernel_metadata("notebook", "somebody")
    assert slugify(metadata["title"]) == metadata["id"].partition("/")[2]
    assert len(metadata["title"]) >= 5
    assert (metadata["code_file"], metadata["kernel_type"]) == ("main.ipynb", "notebook")


def test_without_an_account_the_owner_is_to_be_filled_in():
    assert kaggle_owner() == ""
    assert kernel_metadata("script", "")["id"].startswith(OWNER_MISSING)


@pytest.mark.parametrize("folder", [".kaggle", ".config/kaggle"])
def test_the_owner_comes_from_kaggle_json_where_the_client_looks(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "kaggle.json").write_text('{"username": "anna", "key": "secret"}')
    assert kaggle_owner() == "anna"


def test_the_variable_wins_over_the_file(tmp_path, monkeypatch):
    (tmp_path / "kaggle.json").write_text('{"username": "anna", "key": "secret"}')
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    assert kaggle_owner() == "anna"
    monkeypatch.setenv("KAGGLE_USERNAME", "bert")
    assert kaggle_owner() == "bert"


@pytest.mark.parametrize("content", ["", "[]", '{"key": "secret"}', "\xff"])
def test_a_broken_kaggle_json_is_named_and_its_content_is_not_shown(tmp_path, content):
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle/kaggle.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"kaggle\.json") as caught:
        kaggle_owner()
    assert "secret" not in str(caught.value)
