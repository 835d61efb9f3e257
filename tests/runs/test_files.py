from __future__ import annotations

import dataclasses

import pytest

from digitkaggle.core.basics import InputError
from digitkaggle.core.settings import make_settings
from digitkaggle.runs.files import (
    read_json,
    restore_settings,
)


def test_settings_of_another_version_are_restored_without_the_fields_that_this_one_lacks():
    settings = make_settings("fast", {"epochs": 9, "image_sizes": (16, 28)})
    assert restore_settings(vars(settings) | {"of_another_version": 3}) == settings
    assert restore_settings({"preset": "fast", "epochs": 9}) == dataclasses.replace(
        make_settings("balanced", {}), preset="fast", epochs=9
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_a_file_that_is_not_a_json_object_is_refused(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.json"):
        read_json(tmp_path / "file.json")
