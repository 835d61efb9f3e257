from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from types import SimpleNamespace

import joblib
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from digitkaggle.core.basics import Compute, InputError, TrainingError, logger
from digitkaggle.core.main import main, map_on_gpus, run_kernel
from tests.core import CPU

GPU = Compute(torch.device("cuda"), torch.float32, "for tests")


class Trainer:
    """Trains nothing; records the number and the device of every member that it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []

    def __call__(self, number: int, compute: Compute = GPU) -> SimpleNamespace:
        self.calls.append((number, str(compute.device)))
        return SimpleNamespace(number=number)


class FakeParallel:
    """Runs joblib's tasks in this process, from last to first, and may fail before the first."""

    error: Exception | None = None

    def __init__(self, **options: object) -> None:
        self.options = options

    def __call__(self, tasks) -> Iterator[SimpleNamespace]:
        first, *others = tasks
        for function, args, kwargs in others[::-1]:
            yield function(*args, **kwargs)
        if self.error:
            raise self.error
        yield first[0](*first[1], **first[2])


@pytest.fixture
def plain_logger(monkeypatch):
    """The logger as it is before any test configures it; its messages reach caplog."""
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)


@pytest.fixture
def two_gpus(monkeypatch, plain_logger):
    monkeypatch.setattr(joblib, "Parallel", FakeParallel)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


@pytest.mark.usefixtures("two_gpus")
def test_two_gpus_train_every_other_member():
    train_one = Trainer()
    members = list(map_on_gpus(GPU, train_one, range(1, 5)))
    assert sorted(member.number for member in members) == [1, 2, 3, 4]
    assert sorted(train_one.calls) == [(1, "cuda:1"), (2, "cuda:0"), (3, "cuda:1"), (4, "cuda:0")]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("compute", "numbers"), [(CPU, [1, 2]), (GPU, [1])])
def test_without_two_gpus_or_two_members_this_process_trains_them_in_order(compute, numbers):
    train_one = Trainer()
    assert [member.number for member in map_on_gpus(compute, train_one, numbers)] == numbers
    assert train_one.calls == [(number, "cuda") for number in numbers]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    "error",
    [
        BrokenExecutor("a process ended\nabruptly"),
        TerminatedWorkerError("a process ended\nabruptly"),
        torch.OutOfMemoryError("a process ended\nabruptly"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_after_a_gpu_fails_only_the_missing_members_are_trained_here(error, monkeypatch, caplog):
    monkeypatch.setattr(FakeParallel, "error", error)
    train_one = Trainer()
    with caplog.at_level(logging.WARNING, logger.name):
        members = list(map_on_gpus(GPU, train_one, range(1, 5)))
    assert [member.number for member in members] == [4, 3, 2, 1]
    assert train_one.calls == [(4, "cuda:0"), (3, "cuda:1"), (2, "cuda:0"), (1, "cuda")]
    assert "A GPU failed (a process ended): " in caplog.text


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("kind", [TypeError, ValueError, RuntimeError, InputError, TrainingError])
def test_an_error_of_ours_in_a_gpus_process_is_raised_and_nothing_is_trained_again(
    kind, monkeypatch
):
    monkeypatch.setattr(FakeParallel, "error", kind("our mistake"))
    train_one = Trainer()
    with pytest.raises(kind, match="our mistake"):
        list(map_on_gpus(GPU, train_one, range(1, 5)))
    assert [number for number, _ in train_one.calls] == [4, 3, 2]


@pytest.mark.usefixtures("plain_logger")
def test_without_data_the_kernel_refuses_to_run_and_a_wrong_flag_is_an_error_of_one_line(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="unrecognized arguments: --no-such-flag: see "):
        run_kernel(["--no-such-flag"])
    with pytest.raises(InputError, match="no data in data: add the competition's"):
        run_kernel(["--preset", "fast"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--threads", "-3"), ("--threads", "0"), ("--threads", "100000"), ("--out", "file"),
     ("--out", "file/below"), ("--widths", "8,x"), ("--device", "no-such-device")],
)  # fmt: skip
def test_the_kernel_refuses_a_wrong_flag_before_it_trains(
    data_folder, tmp_path, monkeypatch, capsys, flag, value
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    monkeypatch.setattr("digitkaggle.core.main.run", None)  # what trains
    assert main(["--data", str(data_folder), flag, value]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert value in line
    assert (tmp_path / "file").read_text() == "precious"
