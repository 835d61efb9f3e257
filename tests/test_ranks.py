"""Several processes at one run: real ones, by torch's own launcher, against one process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from digitkaggle import ranks
from digitkaggle.errors import InputError
from digitkaggle.log import lines_named, logger, show_log
from digitkaggle.parallel import share_of_batch
from digitkaggle.ranks import processes_from_flags
from digitkaggle.sharing import share_out
from tests.conftest import contents
from tests.test_pipeline import EQUAL_FILES, history_of
from tests.test_resume import wait_until

FLAGS = ["--preset", "fast", "--widths", "4,4,4", "--epochs", "2", "--batch-size", "64",
         "--threads", "1", "--device", "cpu"]  # fmt: skip
LONG = ["--epochs", "25", "--batch-size", "16"]
LAUNCHER = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "--max-restarts", "3"]


@contextlib.contextmanager
def started(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> Iterator:
    """A process of Python, its output in files; what is left of it is killed in the end."""
    out, errors = cwd / f"{time.monotonic_ns()}.out", cwd / f"{time.monotonic_ns()}.err"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **(env or {})}
    with out.open("w") as standard, errors.open("w") as error:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            stdout=standard,
            stderr=error,
            # A shell's background, from which tests may run, ignores Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        process.output, process.errors = out.read_text, errors.read_text
        process.ranks = lambda: children(process.pid)
        try:
            yield process
        finally:
            for pid in [*children(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for line in lists for child in line.split()]


def ended(process) -> int:
    return process.wait(timeout=600)


def same_files(first: Path, second: Path, *, ensemble: bool = True) -> None:
    for name in [*EQUAL_FILES, *(["members.npz"] if ensemble else [])]:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert history_of(first) == history_of(second)
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}


def run_flags(data: Path, out: Path, *more: object) -> list[object]:
    return ["-m", "digitkaggle", "--data", data, "--out", out, *FLAGS, *more]


@pytest.fixture
def one_process(forked, data_folder, tmp_path) -> Callable[..., Path]:
    """The folder of a run by one process."""

    def run(*more: object, name: str = "one") -> Path:
        done = forked("--data", data_folder, "--out", tmp_path / name, *FLAGS, *more)
        assert done.code == 0, done.errors
        return tmp_path / name

    return run


# --- who does what


def test_members_go_to_the_machines_that_have_begun_them_and_the_rest_to_whoever_is_free():
    held = [
        {"machine": 0, "done": [2], "begun": [1, 5]},
        None,
        {"machine": 1, "done": [2, 6], "begun": [5, 4]},
    ]
    shares = share_out(7, held)
    assert shares.done == {2: 0, 6: 1}
    assert shares.begun == {0: [1, 5], 1: [4]}
    assert shares.free == [3, 7]
    assert share_out(2, [None]).free == [1, 2]


def test_the_shares_of_a_batch_have_each_image_once_and_a_few_images_are_for_all():
    index = torch.randperm(33)
    shares = [share_of_batch(index, rank, 4) for rank in range(4)]
    assert torch.equal(torch.cat(shares), index)
    assert {len(share) for share in shares} == {8, 9}
    few = index[:7]
    assert all(torch.equal(share_of_batch(few, rank, 4), few) for rank in range(4))


def test_lines_of_several_processes_are_whole_and_name_their_member(capsys):
    show_log(logging.INFO)
    try:
        with lines_named("member 2:", logging.INFO):
            logger.info("\nfirst\n  second")
        logger.info("third")
    finally:
        logger.handlers[:] = [logging.NullHandler()]
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    assert capsys.readouterr().out == "member 2:  first\nmember 2:    second\nthird\n"


def test_one_process_is_the_default_without_several_gpus(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert processes_from_flags(None, "auto", 8) == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert processes_from_flags(None, "auto", 8) == 1, "none of them works"
    monkeypatch.setattr(ranks, "gpu_works", lambda number: number > 0)
    assert processes_from_flags(None, "auto", 8) == 2
    assert processes_from_flags(None, "auto", 1) == 1
    assert processes_from_flags(None, "cpu", 8) == 1
    assert processes_from_flags(3, "cpu", 1) == 3
    with pytest.raises(InputError, match="at least 1"):
        processes_from_flags(0, "cpu", 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "0")
    assert processes_from_flags(3, "cpu", 1) == 1


def test_a_run_of_one_process_needs_no_launcher():
    code = "import digitkaggle.cli, sys; print('torch.distributed.run' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"False\n"


# --- real processes


def test_two_processes_give_the_bytes_of_one(one_process, data_folder, tmp_path):
    one = one_process("--members", 3, "--refit")
    flags = run_flags(data_folder, tmp_path / "two", "--members", 3, "--refit", "--processes", 2)
    with started(*flags, cwd=tmp_path) as process:
        assert ended(process) == 0, process.errors()
        same_files(one, tmp_path / "two")
        assert process.errors() == ""
        lines = process.output().splitlines()
        assert sum("Done by rank" in line for line in lines) == 3
        assert all(re.match(r"member \d:  ", line) for line in lines if "/2 " in line)
        assert sum("device  " in line for line in lines) == 1


def test_what_is_wrong_is_said_once_and_ends_with_2_at_once(data_folder, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/model.pt").write_text("somebody's")
    before = contents(tmp_path / "taken")
    flags = run_flags(data_folder, tmp_path / "taken", "--members", 3, "--processes", 2)
    with started(*flags, cwd=tmp_path) as process:
        assert ended(process) == 2
        assert process.errors().startswith(f"error: {tmp_path}/taken is no folder, or holds")
        assert process.errors().count("\n") == 1
    assert contents(tmp_path / "taken") == before


@pytest.mark.slow
def test_torchs_own_launcher_hears_of_a_wrong_use_once(data_folder, tmp_path):
    flags = run_flags(data_folder / "nowhere", tmp_path / "out")
    with started("-m", "torch.distributed.run", "--nproc-per-node", 2, "--max-restarts", 1,
                 *flags, cwd=tmp_path) as process:  # fmt: skip
        assert ended(process) == 1
        assert process.errors().count("error: ") == 1
        assert re.search(r"exitcode +: 2 ", process.errors())


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_bytes_are_the_same(
    one_process, data_folder, tmp_path
):
    one = one_process("--members", 4, *LONG)
    out = tmp_path / "killed"
    flags = run_flags(data_folder, out, "--members", 4, *LONG, "--processes", 2)
    for victim in (0, 1):
        with started(*flags, "--fresh", cwd=tmp_path) as process:
            wait_until(lambda: list(out.glob("checkpoint/member-*")))
            os.kill(process.ranks()[victim], signal.SIGKILL)
            assert ended(process) == 0, process.errors()
            assert "A process was lost: all are started again" in process.errors()
            assert "members that are trained: " in process.output()
        same_files(one, out)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("members", [1, 3])
def test_an_interrupted_run_of_several_processes_saves_and_goes_on(
    data_folder, tmp_path, members, number, code
):
    def flags(name: str) -> list[object]:
        more = ["--members", members, *LONG, "--processes", 2]
        return run_flags(data_folder, tmp_path / name, *more)

    with started(*flags("whole"), cwd=tmp_path) as process:
        assert ended(process) == 0, process.errors()
    kept = tmp_path / "cut/checkpoint/training-0001.pt"
    with started(*flags("cut"), cwd=tmp_path) as process:
        wait_until(kept.exists)
        process.send_signal(number)
        assert ended(process) == code
        assert process.errors().splitlines()[-1].startswith("interrupted; this goes on where it")
        assert "--processes 2" in process.errors()
        assert not process.ranks()
    with started(*flags("cut"), cwd=tmp_path) as process:
        assert ended(process) == 0, process.errors()
        assert "Going on after epoch" in process.output()
    same_files(tmp_path / "whole", tmp_path / "cut", ensemble=members > 1)


@pytest.mark.slow
def test_the_launcher_killed_takes_its_processes_along_and_the_same_command_goes_on(
    one_process, data_folder, tmp_path
):
    out = tmp_path / "killed"
    flags = run_flags(data_folder, out, "--members", 2, *LONG, "--processes", 2)
    with started(*flags, cwd=tmp_path) as process:
        wait_until(lambda: list(out.glob("checkpoint/training-*")))
        ranks = process.ranks()
        process.kill()
        wait_until(lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks))
    with started(*flags, cwd=tmp_path) as process:
        assert ended(process) == 0, process.errors()
        assert "Going on after epoch" in process.output()
    same_files(one_process("--members", 2, *LONG), out)


@pytest.mark.slow
def test_processes_share_a_time_budget_that_counts_from_the_start(data_folder, tmp_path):
    more = ["--members", 200, "--epochs", 60, "--batch-size", 16]
    more += ["--processes", 2, "--time-budget", "60s"]
    began = time.monotonic()
    with started(*run_flags(data_folder, tmp_path / "run", *more), cwd=tmp_path) as process:
        assert ended(process) == 0, process.errors()
        assert time.monotonic() - began < 65
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert 2 <= len(metrics["members"]) < 200
    assert "of 200 members are trained" in metrics["time_budget"]["cut"]


# --- two machines


def machine(port: int, data: Path, out: Path, *more: object, cwd: Path, nodes: str = "2"):
    """One of two launchers that stand for machines, each with a folder of its own."""
    rendezvous = ["--nnodes", nodes, "--rdzv-backend", "c10d", "--rdzv-id", "test",
                  "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]  # fmt: skip
    return started(*LAUNCHER, *rendezvous, *run_flags(data, out, *more), cwd=cwd)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def the_results(folders: list[Path]) -> Path:
    """The one folder that has them; of the others nothing is left."""
    [folder] = [folder for folder in folders if folder.exists()]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_two_machines_give_the_bytes_of_one_process_and_one_of_them_has_the_results(
    one_process, data_folder, tmp_path, killed
):
    more = ["--members", 4, *(LONG if killed else [])]
    one, port = one_process(*more), free_port()
    outs = [tmp_path / "first", tmp_path / "second"]
    with contextlib.ExitStack() as machines:
        first, second = (
            machines.enter_context(machine(port, data_folder, out, *more, cwd=tmp_path))
            for out in outs
        )
        if killed:
            wait_until(lambda: list(tmp_path.glob("*/checkpoint/member-*")))
            os.kill(second.ranks()[0], signal.SIGKILL)
        assert [ended(first), ended(second)] == [0, 0], first.errors() + second.errors()
        assert "on the machine of rank 0" in first.output() + second.output()
    same_files(one, the_results(outs))


@pytest.mark.slow
def test_a_machine_that_vanishes_is_noticed_and_the_other_goes_on(
    one_process, data_folder, tmp_path
):
    more = ["--members", 4, *LONG]
    one, port = one_process(*more), free_port()
    outs = [tmp_path / "stays", tmp_path / "goes"]
    with contextlib.ExitStack() as machines:
        stays = machines.enter_context(
            machine(port, data_folder, outs[0], *more, cwd=tmp_path, nodes="1:2")
        )
        # Who comes first keeps the rendezvous; it is the one machine that must stay.
        wait_until(lambda: listens(port))
        goes = machines.enter_context(
            machine(port, data_folder, outs[1], *more, cwd=tmp_path, nodes="1:2")
        )
        wait_until(lambda: list(outs[1].glob("checkpoint/training-*")))
        for pid in [goes.pid, *goes.ranks()]:
            os.kill(pid, signal.SIGKILL)
        assert ended(stays) == 0, stays.errors()
        # The store of the ranks' own talk may have gone with it.
        assert re.search("was silent for 60 s|the launcher is gone", stays.errors())
    same_files(one, outs[0])


@pytest.mark.slow
def test_machines_with_other_data_are_refused(data_folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("train.csv", "test.csv"):
        lines = (data_folder / name).read_text().splitlines(keepends=True)
        (other / name).write_text("".join(lines[:-1]))
    port = free_port()
    with contextlib.ExitStack() as machines:
        first, second = (
            machines.enter_context(machine(port, data, tmp_path / data.name / "out", cwd=tmp_path))
            for data in (data_folder, other)
        )
        assert [ended(first), ended(second)] == [1, 1]
        said = first.errors() + second.errors()
        assert said.count("error: ") == 1
        assert "was started for another run than rank 0 (made from other data)" in said


# --- the kernel


@pytest.mark.slow
def test_the_kernels_script_starts_several_processes_by_itself(
    made, one_process, data_folder, tmp_path
):
    one = one_process("--members", 2)
    flags = ["--data", data_folder, "--out", tmp_path / "two", *FLAGS, "--members", 2]
    with started(made / "main.py", *flags, "--processes", 2, cwd=tmp_path) as process:
        assert ended(process) == 0, process.errors()
    assert process.errors() == ""
    same_files(one, tmp_path / "two")
