from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch

from digitkaggle.core.basics import Compute, InputError
from digitkaggle.core.device import choose_compute, fastest_dtype, try_out
from digitkaggle.core.settings import PRESETS


@pytest.mark.parametrize("name", ["meta", "xla", "toaster", "", "cuda:99"])
def test_a_named_device_that_does_not_work_is_refused_in_one_line(name):
    with pytest.raises(InputError, match=f"{name} does not work.*auto") as caught:
        choose_compute(device=name)
    assert "\n" not in str(caught.value)


def test_an_unusable_gpu_is_passed_over_with_the_reason(monkeypatch):
    def fail(device):
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", fail)
    compute = choose_compute()
    assert compute.device.type != "cuda"
    assert "cuda does not work here (no kernel image is available); " in compute.reason
    assert "no kernel image" in compute.warning


def test_a_gpu_that_fails_at_its_best_is_tried_in_plainer_forms(monkeypatch):
    tried = []

    def try_out(settings, compute):
        tried.append((compute.memory_format, compute.dtype, compute.recorded))
        if compute.dtype != torch.float32:
            raise RuntimeError("cuDNN knows no such thing")

    monkeypatch.setattr("digitkaggle.core.device.try_out", try_out)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    compute = choose_compute()
    assert tried == [
        (torch.channels_last, torch.float16, True),
        (torch.channels_last, torch.float16, False),
        (torch.contiguous_format, torch.float16, False),
        (torch.contiguous_format, torch.float32, False),
    ]
    assert compute.device.type == "cuda"
    assert compute.reason.endswith("cuDNN knows no such thing); Tesla T4 works")
    assert not compute.warning


@pytest.mark.parametrize("preset", ["fast", "best", "classic"])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_trial_is_the_presets_own_step_whatever_the_rates_and_the_memory_format(
    preset, memory_format, monkeypatch
):
    monkeypatch.setattr("digitkaggle.core.device.TRIAL_IMAGES", 16)
    try_out(PRESETS[preset], Compute(torch.device("cpu"), torch.float32, "", memory_format))
    overflowing = dataclasses.replace(PRESETS[preset], learning_rate=1e6)
    try_out(overflowing, Compute(torch.device("cpu"), torch.float16, "", memory_format))


def test_a_device_that_counts_nonsense_fails_its_trial(monkeypatch):
    wrong = torch.full((256, 10), torch.nan)
    monkeypatch.setattr("digitkaggle.core.device.predict_logits", lambda *arguments: wrong)
    with pytest.raises(RuntimeError, match="not finite"):
        try_out(PRESETS["fast"], Compute(torch.device("cpu"), torch.float32, ""))


def test_a_missing_gpu_on_kaggle_and_a_driver_too_old_are_warned_of(monkeypatch):
    assert not choose_compute().warning

    def old_driver():
        warnings.warn("CUDA initialization: The NVIDIA driver is too old\nUpdate", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", old_driver)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    warning = choose_compute().warning
    assert "driver is too old; Kaggle gave no GPU" in warning


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_a_t4_counts_in_float16_and_newer_gpus_in_bfloat16(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    expected = torch.float16 if capability == (7, 5) else torch.bfloat16
    assert fastest_dtype(torch.device("cuda")) == expected
