from __future__ import annotations

import pytest
import torch

from digitkaggle.core.basics import InputError
from digitkaggle.core.device import choose_compute, fastest_dtype


@pytest.mark.parametrize("name", ["meta", "xla", "toaster", "", "cuda:99"])
def test_a_named_device_that_does_not_work_is_refused_in_one_line(name):
    with pytest.raises(InputError, match=f"{name} does not work.*auto") as caught:
        choose_compute(name)
    assert "\n" not in str(caught.value)


def test_an_unusable_gpu_is_passed_over_with_the_reason(monkeypatch):
    def fail(device):
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", fail)
    compute = choose_compute()
    assert compute.device.type != "cuda"
    assert "cuda does not work here (no kernel image is available); " in compute.reason


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_a_t4_counts_in_float16_and_newer_gpus_in_bfloat16(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    expected = torch.float16 if capability == (7, 5) else torch.bfloat16
    assert fastest_dtype(torch.device("cuda")) == expected
