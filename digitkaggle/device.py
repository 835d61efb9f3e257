"""Chooses the device and the arithmetic, once, by running one real operation, and says why."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from .errors import InputError

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Compute:
    """Where the network runs, in which numbers its layers count, and why so."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Layers inside count in `dtype` where that is safe; weights stay float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def __str__(self) -> str:
        return f"{self.device} in {str(self.dtype).removeprefix('torch.')}: {self.reason}"


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """The device and dtype to use.

    `auto` takes the first of CUDA, Apple's MPS and the CPU on which a training step really runs. A
    device that is named must work.

    Raises:
        InputError: the named device does not exist here or cannot do the work.
    """
    if device != "auto":
        named = _parse_device(device)
        dtype = _fastest_dtype(named) if precision == "auto" else DTYPES[precision]
        fault = _trial(named, dtype)
        if fault:
            raise InputError(
                f"device {device} does not work here ({fault}): leave it to --device auto"
            )
        return Compute(named, dtype, "as asked")
    passed_over = []
    for candidate in _candidates():
        dtype = _fastest_dtype(candidate) if precision == "auto" else DTYPES[precision]
        fault = _trial(candidate, dtype)
        if not fault:
            found = _describe(candidate, dtype)
            return Compute(candidate, dtype, "; ".join([*passed_over, found]))
        passed_over.append(f"{_describe(candidate, dtype)} left alone ({fault})")
    raise InputError(f"no device works here: {'; '.join(passed_over)}")


def gpu_works(number: int) -> bool:
    """Whether one real operation runs on the CUDA device of that number."""
    return not _trial(torch.device("cuda", number), torch.float32)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, the CPU included, has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # What torch raises on CPUs and Apple's GPUs has no type of its own.
    told = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in told
        # The last is how oneDNN says it.
        for words in ("allocate memory", "enough memory", "out of memory", "could not create a")
    )


def _candidates() -> list[torch.device]:
    found = []
    if torch.cuda.is_available():
        found.append(torch.device("cuda"))
    if torch.backends.mps.is_available():
        found.append(torch.device("mps"))
    return [*found, torch.device("cpu")]


def _parse_device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"there is no device {name!r}: try auto, cpu, cuda or mps") from error


def _fastest_dtype(device: torch.device) -> torch.dtype:
    """What the device counts fastest in; half precision only where the hardware has it.

    A T4 says that it supports bfloat16 and then emulates it, so CUDA is asked for its capability.
    """
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError, AssertionError):
            major, _ = torch.cuda.get_device_capability(device)
            return torch.bfloat16 if major >= 8 else torch.float16
    if device.type == "cpu":
        # Private in torch, and missing in some versions: then float32, which is always right.
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return torch.bfloat16 if supported() else torch.float32
    return torch.float32


def _trial(device: torch.device, dtype: torch.dtype) -> str:
    """One small training step there; the fault in a line, or nothing when it worked."""
    try:
        layer = nn.Conv2d(1, 8, kernel_size=3).to(device)
        with Compute(device, dtype, "trial").autocast():
            loss = layer(torch.ones(2, 1, 28, 28, device=device)).float().square().mean()
        loss.backward()
        if not bool(torch.isfinite(layer.weight.grad).all().cpu()):
            return "a first step gave numbers that are not finite"
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        return str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return ""


def _describe(device: torch.device, dtype: torch.dtype) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}"
    if device.type == "mps":
        return "Apple's GPU"
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' if count > 1 else ''}"
    return f"no GPU; {'the CPU has bfloat16, ' if dtype == torch.bfloat16 else ''}{threads}"
