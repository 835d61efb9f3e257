"""Real runs, killed at random moments and given again: the bytes of an undisturbed one."""

from __future__ import annotations

import random
import time

import pytest

from tests.runs.test_resume import bytes_of, started

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("flags", [(), ("--members", "4", "--jobs", "2")], ids=["one", "jobs"])
def test_five_kills_change_nothing(tmp_path, data_folder, flags):
    whole = started(tmp_path / "whole", data_folder, *flags)
    begun = time.monotonic()
    assert whole.communicate(timeout=600)
    assert whole.returncode == 0
    took, chance = time.monotonic() - begun, random.Random(7)
    for _ in range(5):
        process = started(tmp_path / "cut", data_folder, *flags)
        time.sleep(chance.uniform(0.2, 0.9) * took)
        process.kill()
        process.communicate(timeout=60)
    process = started(tmp_path / "cut", data_folder, *flags)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")
