"""Real runs, killed at random moments and started again: the bytes of an undisturbed run."""

from __future__ import annotations

import random
import time

import pytest

from tests.runs.test_resume import read_results, start_process

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("flags", [(), ("--members", "4", "--jobs", "2")], ids=["one", "jobs"])
def test_five_kills_do_not_change_the_results(tmp_path, data_folder, flags):
    whole = start_process(tmp_path / "whole", data_folder, *flags)
    started = time.monotonic()
    assert whole.communicate(timeout=600)
    assert whole.returncode == 0
    seconds, generator = time.monotonic() - started, random.Random(7)
    for _ in range(5):
        process = start_process(tmp_path / "cut", data_folder, *flags)
        time.sleep(generator.uniform(0.2, 0.9) * seconds)
        process.kill()
        process.communicate(timeout=60)
    process = start_process(tmp_path / "cut", data_folder, *flags)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert read_results(tmp_path / "cut") == read_results(tmp_path / "whole")
