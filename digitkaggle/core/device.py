"""The device.

Chosen by doing a real piece of work on it, for what a GPU says of itself may not hold: Kaggle's
P100 is there, and torch has no code for it; a T4 says it supports bfloat16, and emulates it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .basics import InputError


@dataclass(frozen=True)
class Compute:
    """Where the network runs, in which numbers its layers count, and why so."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    def autocast(self) -> torch.autocast:
        """Layers inside count in `dtype` where that is safe; weights stay float32."""
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=half)


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """The named device, or the first of CUDA, MPS and CPU, if a training step really runs on it."""
    names = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    passed_over = []
    for name in [*names, "cpu"] if device == "auto" else [device]:
        try:
            chosen = torch.device(name)
            dtype = fastest_dtype(chosen) if precision == "auto" else getattr(torch, precision)
            model = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
            compute = Compute(chosen, dtype, "; ".join([*passed_over, f"{model} works"]))
            layer = nn.Conv2d(1, 8, kernel_size=3).to(chosen)
            with compute.autocast():
                loss = layer(torch.ones(2, 1, 28, 28, device=chosen)).float().square().mean()
            loss.backward()
            if layer.weight.grad.isfinite().all():
                return compute
            fault = "a first step gave numbers that are not finite"
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            fault = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        passed_over.append(f"{name} does not work here ({fault})")
    raise InputError(f"{'; '.join(passed_over)}: leave the device to --device auto")


def fastest_dtype(device: torch.device) -> torch.dtype:
    """What the device counts fastest in; half precision only where the hardware has it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    # Private in torch, and missing in some versions: then float32, which is always right.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and supported() else torch.float32
