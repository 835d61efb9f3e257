from __future__ import annotations

import dataclasses
import warnings
from types import SimpleNamespace

import pytest
import torch

from digitkaggle.core.basics import Compute, InputError, TrainingError
from digitkaggle.core.device import (
    choose_compute,
    find_fastest_dtype,
    open_device,
    reuse_freed_memory,
    run_trial,
)
from digitkaggle.core.run import train_member
from digitkaggle.core.settings import PRESETS
from tests.core import CPU


@pytest.fixture
def fake_gpu(monkeypatch):
    """A T4 that torch lists and opens, but on which nothing can be computed."""
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device=None: ones(*size))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))


@pytest.mark.parametrize("name", ["meta", "xla", "toaster", "", "cuda:99"])
def test_a_named_device_that_does_not_work_is_an_error_of_one_line(name):
    with pytest.raises(InputError, match=f"{name} does not work.*auto") as caught:
        choose_compute(device=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError, OSError, TypeError])
def test_whatever_a_driver_raises_while_a_device_is_opened_is_its_failure(kind, monkeypatch):
    def fail(device):
        raise kind("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", fail)
    with pytest.raises(RuntimeError, match="no kernel image"):
        open_device("cuda")
    compute = choose_compute()
    assert compute.device.type != "cuda"
    assert "cuda does not work here (no kernel image is available); " in compute.reason
    assert "no kernel image" in compute.warning


@pytest.mark.usefixtures("fake_gpu")
def test_a_gpu_that_fails_in_its_fastest_form_is_tried_in_plainer_forms(monkeypatch):
    tried = []

    def fail_in_half_precision(settings, compute):
        tried.append((compute.memory_format, compute.dtype, compute.cuda_graphs))
        if compute.dtype != torch.float32:
            raise RuntimeError("cuDNN does not support this")

    monkeypatch.setattr("digitkaggle.core.device.run_trial", fail_in_half_precision)
    compute = choose_compute()
    assert tried == [
        (torch.channels_last, torch.float16, True),
        (torch.channels_last, torch.float16, False),
        (torch.contiguous_format, torch.float16, False),
        (torch.contiguous_format, torch.float32, False),
    ]
    assert compute.device.type == "cuda"
    assert compute.reason.endswith("cuDNN does not support this); Tesla T4 works")
    assert not compute.warning


@pytest.mark.usefixtures("fake_gpu")
@pytest.mark.parametrize("kind", [TypeError, ValueError, KeyError, AttributeError, InputError])
def test_an_error_of_ours_in_the_trial_is_not_taken_for_a_gpu_that_fails(kind, monkeypatch):
    def start_training(*arguments):
        raise kind("our mistake")

    monkeypatch.setattr(torch.Tensor, "to", lambda self, *arguments, **options: self)
    monkeypatch.setattr("digitkaggle.core.device.start_training", start_training)
    with pytest.raises(kind, match="our mistake"):
        choose_compute()


@pytest.mark.parametrize("preset", ["fast", "best", "classic"])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_trial_is_the_presets_own_step_whatever_the_rates_and_the_memory_format(
    preset, memory_format, monkeypatch
):
    monkeypatch.setattr("digitkaggle.core.device.TRIAL_IMAGES", 16)
    run_trial(PRESETS[preset], Compute(torch.device("cpu"), torch.float32, "", memory_format))
    high_rate = dataclasses.replace(PRESETS[preset], learning_rate=1e6)
    run_trial(high_rate, Compute(torch.device("cpu"), torch.float16, "", memory_format))


def test_a_device_that_computes_nonsense_fails_its_trial(monkeypatch):
    nans = torch.full((256, 10), torch.nan)
    monkeypatch.setattr("digitkaggle.core.device.predict_logits", lambda *arguments: nans)
    with pytest.raises(RuntimeError, match="not finite"):
        run_trial(PRESETS["fast"], CPU)


def test_there_is_a_warning_of_a_missing_gpu_on_kaggle_and_of_a_driver_that_is_too_old(monkeypatch):
    assert not choose_compute().warning

    def warn_of_driver():
        warnings.warn("CUDA initialization: The NVIDIA driver is too old\nUpdate", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warn_of_driver)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    warning = choose_compute().warning
    assert "driver is too old; Kaggle gave no GPU" in warning


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_a_t4_computes_in_float16_and_newer_gpus_in_bfloat16(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    expected = torch.float16 if capability == (7, 5) else torch.bfloat16
    assert find_fastest_dtype(torch.device("cuda")) == expected


TRIM_THRESHOLD = -1  # glibc's number of the option
DEFAULT_TRIM_THRESHOLD = 128 * 1024  # bytes


class FakeLibc:
    """Records how memory is to be handled."""

    def __init__(self) -> None:
        self.options: dict[int, int] = {}
        self.trimmed = 0

    def mallopt(self, option: int, value: int) -> None:
        self.options[option] = value

    def malloc_trim(self, pad: int) -> None:
        self.trimmed += 1


@pytest.fixture
def libc(monkeypatch) -> FakeLibc:
    libc = FakeLibc()
    monkeypatch.setattr("digitkaggle.core.device.ctypes", SimpleNamespace(CDLL=lambda name: libc))
    return libc


def end_normally(number, training, epochs):
    yield from epochs


def diverge(number, training, epochs):
    yield next(epochs)
    raise TrainingError("the loss is nan")


def interrupt(number, training, epochs):
    yield next(epochs)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("wrap_epochs", "error"),
    [(end_normally, None), (diverge, TrainingError), (interrupt, KeyboardInterrupt)],
)
def test_a_training_reuses_freed_memory_until_it_ends_however_that_is(
    libc, few_digits, quick_settings, wrap_epochs, error
):
    during = []

    def record_option(number, training, epochs):
        for row in wrap_epochs(number, training, epochs):
            during.append(libc.options[TRIM_THRESHOLD])
            yield row

    arguments = (1, quick_settings, few_digits, CPU, record_option)
    if error:
        with pytest.raises(error):
            train_member(*arguments)
    else:
        train_member(*arguments)
    assert set(during) == {2**30}
    assert libc.options[TRIM_THRESHOLD] == DEFAULT_TRIM_THRESHOLD
    assert libc.trimmed == 1


@pytest.mark.parametrize("libc", [SimpleNamespace(), None], ids=["musl", "windows"])
def test_without_glibc_memory_is_left_as_it_is(monkeypatch, libc):
    def load(name):
        if libc is None:
            raise TypeError("a name is needed")
        return libc

    monkeypatch.setattr("digitkaggle.core.device.ctypes", SimpleNamespace(CDLL=load))
    with reuse_freed_memory():
        pass
    with pytest.raises(AttributeError, match="of the training"), reuse_freed_memory():
        raise AttributeError("of the training")
