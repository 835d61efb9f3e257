"""Real runs killed at random moments; each goes on and ends with the undisturbed run's bytes."""

from __future__ import annotations

import csv
import random
import signal
from pathlib import Path

import pytest

from tests.conftest import forked_runs

pytestmark = pytest.mark.faults

KILLS = 20
FLAGS = ["--preset", "fast", "--widths", "8,8,8", "--epochs", "8", "--batch-size", "32",
         "--dropout", "0.1", "--validation-fraction", "0.25"]  # fmt: skip
# The undisturbed run, and what is asked of it: members, and whether each step is saved.
KINDS = {
    "one network": ([], {}),
    "saved at every step": ([], {"seconds_between_saves": 0.0}),
    "four members": (["--members", "4", "--epochs", "3"], {}),
}


def results(folder: Path) -> dict[str, object]:
    """What must be equal of equal runs: everything but seconds and pictures."""
    files: dict[str, object] = {
        name: (folder / name).read_bytes()
        for name in ("submission.csv", "model.pt", "probabilities.npy", "validation.npz")
    }
    if (folder / "members.npz").exists():
        files["members.npz"] = (folder / "members.npz").read_bytes()
    with open(folder / "history.csv", newline="") as file:
        files["history"] = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    files["names"] = sorted(path.name for path in folder.iterdir())
    return files


def survive_kills(run, data: Path, folder: Path, flags: list[str], faults: dict, seed: int) -> None:
    """Kill runs at moments spread over the length of the undisturbed one, and resume each."""
    command = ["--data", data, *FLAGS, *flags]
    whole = run(*command, "--out", folder / "whole", **faults)
    assert whole.code == 0, whole.errors
    expected = results(folder / "whole")
    moments = random.Random(seed)
    killed_runs = resumed = 0
    for kill in range(KILLS):
        out = folder / f"killed-{kill}"
        moment = moments.uniform(0.05, 0.95) * whole.seconds
        killed = run(*command, "--out", out, signals=[[moment, signal.SIGKILL]], **faults)
        if killed.code == 0:
            continue  # the machine was quicker this time: the run had ended by then
        assert killed.code == -signal.SIGKILL
        killed_runs += 1
        again = run(*command, "--out", out, **faults)
        assert again.code == 0, again.errors
        assert again.errors == ""
        resumed += "from the checkpoint" in again.output
        assert results(out) == expected, f"killed after {moment:.2f} s of {whole.seconds:.2f} s"
    print(f"{killed_runs} killed and survived, {resumed} of them from a checkpoint")
    assert killed_runs >= 0.7 * KILLS
    assert resumed >= 0.2 * KILLS


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(kind, forked, data_folder, tmp_path):
    flags, faults = KINDS[kind]
    survive_kills(forked, data_folder, tmp_path, flags, faults, seed=len(kind))


def test_the_kernel_killed_at_any_moment_ends_with_the_same_bytes(
    made,
    kernel_python,
    data_folder,
    tmp_path,
):
    with forked_runs(made / "main.py", kernel_python) as run:
        survive_kills(run, data_folder, tmp_path, [], {}, seed=1)


def test_a_run_killed_again_and_again_gets_there(forked, data_folder, tmp_path):
    command = ["--data", data_folder, *FLAGS]
    whole = forked(*command, "--out", tmp_path / "whole")
    moments = random.Random(7)
    for _ in range(KILLS):
        moment = moments.uniform(0.2, 0.6) * whole.seconds
        signals = [[moment, signal.SIGKILL]]
        forked(*command, "--out", tmp_path / "killed", signals=signals, seconds_between_saves=0.0)
    done = forked(*command, "--out", tmp_path / "killed")
    assert done.code == 0, done.errors
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_runs_asked_to_end_at_any_moment_end_with_the_same_bytes(forked, data_folder, tmp_path):
    command = ["--data", data_folder, *FLAGS]
    whole = forked(*command, "--out", tmp_path / "whole")
    moments = random.Random(3)
    for attempt in range(KILLS):
        number = (signal.SIGINT, signal.SIGTERM)[attempt % 2]
        out = tmp_path / f"asked-{attempt}"
        signals = [[moments.uniform(0.05, 0.95) * whole.seconds, number]]
        asked = forked(*command, "--out", out, signals=signals)
        assert asked.code in (128 + number, 0), asked.errors
        if asked.code:
            assert asked.errors.startswith("interrupted; "), asked.errors
            assert asked.errors.count("\n") == 1
        assert not list(out.rglob("*.part"))
        done = forked(*command, "--out", out)
        assert done.code == 0, done.errors
        assert results(out) == results(tmp_path / "whole")


def test_a_batch_beyond_a_real_limit_of_memory_is_walked_in_pieces(forked, data_folder, tmp_path):
    flags = ["--data", data_folder, "--preset", "fast", "--widths", "512,32,32", "--epochs", "1",
             "--image-sizes", "28"]  # fmt: skip
    told = []
    # How much is too little for the batch and enough for a piece, the machine decides, and what
    # else is installed: pandas takes pyarrow along.
    for megabytes in range(700, 175, -25):
        done = forked(*flags, "--batch-size", 270, "--out", tmp_path / str(megabytes),
                      address_space=megabytes * 2**20)  # fmt: skip
        told.append(done.errors)
        pieces = "A batch of 270 does not fit the memory of cpu: going on in pieces of"
        if pieces in done.errors and done.code == 0:
            assert "which changes the result" in done.errors
            return
    pytest.fail("\n".join(told))
