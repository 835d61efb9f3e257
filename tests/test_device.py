from __future__ import annotations

import pytest
import torch

from digitkaggle import device
from digitkaggle.device import choose_compute
from digitkaggle.errors import InputError


def test_auto_takes_a_device_that_works_and_says_why():
    compute = choose_compute()
    assert compute.reason
    assert compute.device.type in str(compute)


def test_precision_is_taken_as_asked():
    assert choose_compute("cpu", "float32").dtype == torch.float32
    assert choose_compute("cpu", "bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["meta", "xla", "nonsense", "", "cuda:99"])
def test_a_named_device_that_does_not_work_is_refused_in_one_line(name):
    with pytest.raises(InputError, match="auto") as caught:
        choose_compute(name)
    assert "\n" not in str(caught.value)


def test_an_unusable_gpu_is_left_alone_with_the_reason(monkeypatch):
    """A device of torch's that takes tensors and cannot count stands in for a P100."""
    monkeypatch.setattr(device, "_candidates", lambda: [torch.device("meta"), torch.device("cpu")])
    compute = choose_compute()
    assert compute.device.type == "cpu"
    assert "left alone" in compute.reason
    assert "\n" not in compute.reason


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_t4_counts_in_float16_and_newer_gpus_in_bfloat16(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert device._fastest_dtype(torch.device("cuda")) == dtype
