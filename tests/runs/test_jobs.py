from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from digitkaggle.cli import main
from digitkaggle.core.settings import make_settings
from digitkaggle.runs.local import run_in_folder
from tests.conftest import QUICK_FLAGS
from tests.runs.test_resume import read_results, start_process, wait_for

CHANGES = {
    "widths": (4, 4, 4),
    "epochs": 2,
    "batch_size": 64,
    "members": 4,
}
SETTINGS = make_settings("fast", CHANGES)


def find_workers(parent: int) -> list[int]:
    """Processes of a parent that train: they hold much memory."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and int(fields[21]) > 20_000:
            found.append(int(stat.parent.name))
    return found


def test_two_jobs_give_the_bytes_of_one(tmp_path, few_digits):
    for jobs in (1, 2):
        out = tmp_path / str(jobs)
        run_in_folder(SETTINGS, few_digits, out=out, jobs=jobs, threads=1)
    assert read_results(tmp_path / "1") == read_results(tmp_path / "2")


MEMBERS_IN_THREADS = """
import joblib, sys
from digitkaggle.cli import main
with joblib.parallel_config("threading"):
    sys.exit(main(sys.argv[1:]))
"""


def test_a_process_in_which_joblib_itself_trains_members_is_not_ended(tmp_path, data_folder):
    flags = [*QUICK_FLAGS, "--members", "2", "--jobs", "2", "--threads", "1"]
    command = [sys.executable, "-c", MEMBERS_IN_THREADS, *flags]
    command += ["--data", data_folder, "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/submission.csv").exists()


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_the_same_command_resumes(tmp_path, data_folder):
    flags = ("--members", "4", "--jobs", "2")
    process = start_process(tmp_path / "cut", data_folder, *flags)
    wait_for(tmp_path / "cut/checkpoint/training-0001.pt")
    os.kill(find_workers(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert [line for line in errors.splitlines() if line.startswith("error: a worker died")]
    assert "Traceback" not in errors
    again = start_process(tmp_path / "cut", data_folder, *flags)
    assert again.communicate(timeout=300)
    assert again.returncode == 0
    whole = start_process(tmp_path / "whole", data_folder, "--members", "4")
    assert whole.communicate(timeout=300)
    assert read_results(tmp_path / "cut") == read_results(tmp_path / "whole")


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path, data_folder):
    process = start_process(tmp_path / "cut", data_folder, "--members", "2", "--jobs", "2")
    wait_for(tmp_path / "cut/checkpoint/training-0001.pt")
    workers = find_workers(process.pid)
    assert workers
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_cluster_gives_the_bytes_of_one_process(tmp_path, few_digits):
    distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, protocol="tcp"
    ) as cluster:
        out = tmp_path / "cluster"
        address = cluster.scheduler_address
        run_in_folder(SETTINGS, few_digits, out=out, cluster=address, threads=1)
    run_in_folder(SETTINGS, few_digits, out=tmp_path / "one", threads=1)
    assert read_results(tmp_path / "cluster") == read_results(tmp_path / "one")


def test_a_scheduler_that_does_not_answer_is_an_error(tmp_path, data_folder, capsys):
    pytest.importorskip("distributed", reason="the extra cluster is not installed")
    flags = ["--data", str(data_folder), "--out", str(tmp_path / "out"), "--members", "2"]
    assert main([*flags, "--cluster", "tcp://127.0.0.1:9"]) == 2
    assert "error: no Dask scheduler" in capsys.readouterr().err
