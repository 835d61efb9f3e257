"""Interrupts, checkpoints that were damaged, full disks, rights, and two runs in one folder."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from digitkaggle import resumable
from digitkaggle.checkpoint import keep_state, take_up_state
from digitkaggle.errors import InputError
from digitkaggle.interrupts import Interrupted, signals_noted, termination_raised
from digitkaggle.lock import lock_folder
from digitkaggle.pipeline import run
from digitkaggle.run_folder import begin_run, claimed_run_folder, run_identity
from tests.conftest import contents, forked_runs
from tests.test_pipeline import EQUAL_FILES, cut_off_after, history_of

LONG_FLAGS = ["--preset", "fast", "--widths", "4,4,4", "--epochs", "1000", "--batch-size", "16"]


def same_results(first: Path, second: Path) -> None:
    for name in EQUAL_FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert history_of(first) == history_of(second)


# --- states


def test_a_state_comes_back_as_it_was_kept_and_the_newest_first(tmp_path):
    path = tmp_path / "state.pt"
    for number in (1, 2):
        keep_state(path, {"number": number, "weights": torch.full((3,), number)})
    newest = take_up_state(path, dict)
    assert newest["number"] == 2
    assert newest["weights"].tolist() == [2, 2, 2]


DAMAGES = {
    "torn": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit altered": lambda content: content[:-300] + bytes([content[-300] ^ 1]) + content[-299:],
    "another file": lambda content: b"label,pixel0\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_recognised_and_the_one_before_it_taken(tmp_path, damage, caplog):
    path = tmp_path / "state.pt"
    for number in (1, 2):
        keep_state(path, {"number": number})
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert take_up_state(path, dict) == {"number": 1}
    assert "state.pt is damaged" in caplog.text
    caplog.clear()
    assert take_up_state(path, dict) == {"number": 1}
    assert caplog.text == "", "what is damaged is taken away, and not told twice"


def test_a_state_that_does_not_fit_is_passed_over(tmp_path):
    path = tmp_path / "state.pt"
    keep_state(path, {"number": 1})
    keep_state(path, {"other": 2})
    assert take_up_state(path, lambda state: state["number"]) == 1


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_a_hostile_state_with_a_true_digest_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps(Hostile()), hostile_torch_file(tmp_path)):
        digest = hashlib.sha256(content).hexdigest().encode()
        (tmp_path / "state.pt").write_bytes(digest + b"\n" + content)
        assert take_up_state(tmp_path / "state.pt", dict) is None
        assert not (tmp_path / "hacked").exists()


def hostile_torch_file(folder: Path) -> bytes:
    torch.save({"network": Hostile()}, folder / "hostile.pt")
    return (folder / "hostile.pt").read_bytes()


# --- resuming


def cut_run(folder: Path, source, settings, monkeypatch, saves: int) -> None:
    """A run that ends, as if killed, after so many saves."""
    with monkeypatch.context() as patched:
        cut_off_after(saves, patched)
        with pytest.raises(KeyboardInterrupt):
            run(settings, source, out=folder)


@pytest.mark.parametrize("damaged", ["newest", "both"])
def test_a_damaged_checkpoint_costs_epochs_but_not_the_run(
    tmp_path, few_source, quick_settings, monkeypatch, caplog, damaged
):
    whole = run(quick_settings, few_source, out=tmp_path / "whole")
    cut_run(tmp_path / "cut", few_source, quick_settings, monkeypatch, saves=2)
    kept = sorted((tmp_path / "cut/checkpoint").glob("training-*"))
    assert [path.name for path in kept] == ["training-0001.pt", "training-0001.pt.earlier"]
    for path in kept if damaged == "both" else kept[:1]:
        path.write_bytes(path.read_bytes()[:1000])
    resumed = run(quick_settings, few_source, out=tmp_path / "cut")
    assert "is damaged" in caplog.text
    same_results(resumed, whole)


def test_a_checkpoint_within_an_epoch_goes_on_to_the_same_bytes(
    tmp_path, few_source, quick_settings, monkeypatch, caplog
):
    caplog.set_level("INFO", "digitkaggle")
    whole = run(quick_settings, few_source, out=tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(resumable, "SECONDS_BETWEEN_SAVES", 0.0)
        cut_run(tmp_path / "cut", few_source, quick_settings, patched, saves=3)
    same_results(run(quick_settings, few_source, out=tmp_path / "cut"), whole)
    assert "Going on after epoch 0 and 3 steps" in caplog.text


def test_a_checkpoint_that_no_known_run_wrote_is_not_thrown_away(
    tmp_path, few_source, quick_settings, monkeypatch
):
    cut_run(tmp_path / "cut", few_source, quick_settings, monkeypatch, saves=1)
    (tmp_path / "cut/checkpoint/run.json").write_text("{")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="a checkpoint that no known run wrote"):
        run(quick_settings, few_source, out=tmp_path / "cut")
    assert contents(tmp_path) == before


# --- signals


@pytest.fixture
def ctrl_c_heard():
    """As in a terminal: a shell starts what runs in the background with SIGINT ignored."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


def test_the_first_signal_is_noted_and_the_second_acts_at_once(ctrl_c_heard):
    with signals_noted() as noted:
        assert noted() == 0
        signal.raise_signal(signal.SIGINT)
        assert noted() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with termination_raised(), signals_noted() as noted:
        signal.raise_signal(signal.SIGTERM)
        assert noted() == signal.SIGTERM
        with pytest.raises(Interrupted) as raised:
            signal.raise_signal(signal.SIGTERM)
        assert raised.value.number == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_even_where_a_library_makes_an_error_of_its_own_of_it(
    ctrl_c_heard, number
):
    def use_a_library() -> None:
        try:
            import_an_extension()
        except ImportError as error:
            raise RuntimeError("no such backend") from error

    def import_an_extension() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as interrupt:
            raise ImportError("initialization failed") from interrupt

    with pytest.raises(KeyboardInterrupt) as raised, termination_raised():
        use_a_library()
    assert getattr(raised.value, "number", signal.SIGINT) == number
    with pytest.raises(ImportError), termination_raised():
        raise ImportError("a real one") from ValueError()


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored():
    before = signal.getsignal(signal.SIGTERM)
    with termination_raised():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_noted() as noted:
            signal.raise_signal(signal.SIGINT)
            assert noted() == 0
    finally:
        signal.signal(signal.SIGINT, usual)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def signalled_when_saved(forked, flags: list[object], out: Path, number: int):
    """A run that gets a signal once it has saved anew."""
    kept = out / "checkpoint/training-0001.pt"

    def stamp() -> int:
        return kept.stat().st_mtime_ns if kept.exists() else 0

    before = stamp()
    process = forked.start(*flags)
    wait_until(lambda: stamp() not in (0, before))
    os.kill(process.pid, number)
    return process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_names_the_command_that_goes_on(
    forked, data_folder, tmp_path, number, code
):
    flags = ["--data", data_folder, "--out", tmp_path / "cut", *LONG_FLAGS, "--fresh"]
    stopped = signalled_when_saved(forked, flags, tmp_path / "cut", number)
    assert stopped.code == code, stopped.errors
    assert stopped.errors.count("\n") == 1
    assert stopped.errors.startswith("interrupted; this goes on where it stopped: ")
    assert not list(tmp_path.rglob("*.part"))

    again = stopped.errors.partition(": ")[2].split()
    assert "--fresh" not in again
    flags = again[again.index("run") :]
    resumed = signalled_when_saved(forked, flags, tmp_path / "cut", number)
    assert resumed.code == code
    assert re.search(r"Going on after epoch [1-9]", resumed.output)


# --- one run in a folder


def test_a_second_run_is_refused_while_the_first_lives_and_only_then(forked, data_folder, tmp_path):
    flags = ["--data", data_folder, "--out", tmp_path / "run", *LONG_FLAGS]
    with forked_runs("digitkaggle") as first_forked:
        first = first_forked.start(*flags)
        wait_until((tmp_path / "run/checkpoint/training-0001.pt").exists)
        for more in ([], ["--fresh"]):
            refused = forked(*flags, *more)
            assert refused.code == 2
            assert refused.errors == (
                f"error: another run is at work in {tmp_path}/run: let it end, or choose another "
                "folder with --out\n"
            )
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait().code == -signal.SIGKILL
    going_on = signalled_when_saved(forked, flags, tmp_path / "run", signal.SIGTERM)
    assert "Going on after epoch" in going_on.output


def test_without_a_named_folder_a_busy_one_is_passed_over(tmp_path):
    ours, others = (run_identity({"seed": seed}, "data", "code") for seed in (1, 2))
    default = tmp_path / "fast"
    with claimed_run_folder(ours, default, None, fresh=False) as first:
        # The second comes before the first has written whose folder it is, the third after.
        with claimed_run_folder(others, default, None, fresh=False) as second:
            assert (first, second) == (default, tmp_path / "fast-2")
        begin_run(first, ours, fresh=False)
        with (
            pytest.raises(InputError, match="at work in"),
            claimed_run_folder(ours, default, None, fresh=False),
        ):
            pass
    with claimed_run_folder(ours, default, None, fresh=False) as again:
        assert again == default


def test_a_lock_dies_with_its_holder(tmp_path):
    unlock = lock_folder(tmp_path)
    assert lock_folder(tmp_path) is None
    unlock()
    again = lock_folder(tmp_path)
    again()
    assert contents(tmp_path) == {}


# --- disk and rights


def writes_of(forked, flags: list[object]) -> int:
    counted = forked(*flags, fails_at_write=0)
    assert counted.code == 0, counted.errors
    return len(re.findall(r"^write ", counted.output, re.MULTILINE))


QUICK = ["--preset", "fast", "--widths", "4,4,4", "--epochs", "2", "--batch-size", "64"]


def survive_a_full_disk(forked, flags: list[object], out: Path, whole: Path, write: int) -> None:
    """The disk is full from that write on: an error, whole files only; then there is room again."""
    full = forked(*flags, "--out", out, fails_at_write=write)
    assert full.code == 2, (write, full.errors)
    assert full.errors.startswith("error: "), full.errors
    assert "cannot be written (File too large)" in full.errors
    assert full.errors.count("\n") == 1
    assert not list(out.rglob("*.part"))
    for name in EQUAL_FILES:
        if (out / name).exists():
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    done = forked(*flags, "--out", out)
    assert done.code == 0, done.errors
    same_results(out, whole)


def test_a_full_disk_is_an_error_and_the_run_goes_on_once_there_is_room(
    forked, data_folder, tmp_path
):
    flags = ["--data", data_folder, *QUICK]
    whole = forked(*flags, "--out", tmp_path / "whole")
    assert whole.code == 0, whole.errors
    # Once the results are being written; test-faults does it at every write.
    survive_a_full_disk(forked, flags, tmp_path / "full", tmp_path / "whole", write=6)


@pytest.mark.faults
def test_a_disk_that_is_full_at_any_write_costs_nothing(forked, data_folder, tmp_path):
    flags = ["--data", data_folder, *QUICK, "--members", "2"]
    writes = writes_of(forked, [*flags, "--out", tmp_path / "whole"])
    assert writes >= 16
    for write in range(1, writes + 1):
        survive_a_full_disk(forked, flags, tmp_path / f"full-{write}", tmp_path / "whole", write)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m,mode=777", "none", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full_is_an_error_and_room_mends_it(forked, data_folder, small_disk):
    (small_disk / "filler").write_bytes(bytes(900_000))
    flags = ["--data", data_folder, *QUICK, "--out", small_disk / "run"]
    full = forked(*flags)
    assert full.code == 2, full.errors
    assert "cannot be written (No space left on device)" in full.errors
    assert full.errors.count("\n") == 1
    assert not list(small_disk.rglob("*.part"))
    (small_disk / "filler").unlink()
    done = forked(*flags)
    assert done.code == 0, done.errors
    assert "from the checkpoint" in done.output


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are dropped as Linux does it")
def test_a_folder_without_rights_is_an_error_and_nothing_changes(forked, data_folder, tmp_path):
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o555)
    before = contents(tmp_path)
    for out in ("locked", "locked/deeper"):
        refused = forked(
            "--data", data_folder, *QUICK, "--out", tmp_path / out, no_root_rights=True
        )
        assert refused.code == 2, refused.errors
        assert refused.errors.startswith(f"error: {tmp_path}/locked/")
        assert "Permission denied" in refused.errors
        assert refused.errors.count("\n") == 1
    assert contents(tmp_path) == before


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are dropped as Linux does it")
def test_a_finished_run_that_may_only_be_read_is_still_recognised(forked, data_folder, tmp_path):
    flags = ["--data", data_folder, *QUICK, "--out", tmp_path / "run"]
    assert forked(*flags).code == 0
    (tmp_path / "run").chmod(0o555)
    before = contents(tmp_path)
    again = forked(*flags, no_root_rights=True)
    assert again.code == 0, again.errors
    assert "is finished" in again.output
    assert contents(tmp_path) == before


# --- network


def test_a_run_uses_no_network(forked, data_folder, tmp_path):
    done = forked("--data", data_folder, *QUICK, "--out", tmp_path / "run", no_network=True)
    assert done.code == 0, done.errors
    assert (tmp_path / "run/submission.csv").exists()
