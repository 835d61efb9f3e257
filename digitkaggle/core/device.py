"""The device.

Chosen by doing the real work on it, a step of training and a prediction with this run's network,
for what a GPU says of itself may not hold: Kaggle's P100 is there, and torch has no code for it; a
T4 says that it supports bfloat16, and emulates it. What fails there is tried in plainer forms, then
on the CPU, and why is told."""

from __future__ import annotations

import dataclasses
import math
import warnings

import torch

from .basics import CLASSES, IMAGE_SIZE, Compute, InputError, LabelledImages
from .data import on_kaggle
from .settings import PRESETS, Settings
from .training import make_step, predict_logits, start_training

TRIAL_IMAGES = 256  # at most, for too large a batch is no fault of the device's
# How images lie in memory, whether layers may count in half precision, and whether steps are
# recorded: the fastest first.
FORMS = ((torch.channels_last, True, True), (torch.channels_last, True, False))
FORMS += ((torch.contiguous_format, True, False), (torch.contiguous_format, False, False))


def choose_compute(settings: Settings = PRESETS["balanced"], device: str = "auto") -> Compute:
    """The named device, or the first of CUDA, MPS and CPU, on which these settings really train.

    Raises:
        InputError: the named device does not work.
    """
    names, faults = usual_devices() if device == "auto" else ([device], [])
    for name, (layout, half, recorded) in ((name, form) for name in names for form in FORMS):
        try:
            chosen = torch.device(name)
            if chosen.type == "cuda":
                if not torch.cuda.is_available():
                    raise RuntimeError("torch sees no GPU that it can use")
                torch.cuda.set_device(chosen.index or 0)
            plain = "auto" if half else "float32"
            precision = plain if settings.precision == "auto" else settings.precision
            dtype = fastest_dtype(chosen) if precision == "auto" else getattr(torch, precision)
            compute = Compute(chosen, dtype, "", layout, recorded and chosen.type == "cuda")
            model = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
            if chosen.type != "cpu":
                try_out(settings, compute)
            warning = "; ".join(faults) if chosen.type == "cpu" else ""
            reason = "; ".join([*faults, f"{model} works"])
            return dataclasses.replace(compute, reason=reason, warning=warning)
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            fault = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            faults.append(f"{name} does not work here ({fault})")
            faults = list(dict.fromkeys(faults))
    raise InputError(f"{'; '.join(faults)}: leave the device to --device auto")


def usual_devices() -> tuple[list[str], list[str]]:
    """The devices to try, and why there is no GPU where there should be one."""
    with warnings.catch_warnings(record=True) as caught:  # such as of too old a driver
        warnings.simplefilter("always")
        names = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    faults = [str(warning.message).partition("\n")[0] for warning in caught]
    if on_kaggle() and not names:
        faults.append("Kaggle gave no GPU: choose GPU T4 x2 in the session's options")
    return [*names, "cpu"], faults


def fastest_dtype(device: torch.device) -> torch.dtype:
    """What the device counts fastest in; half precision only where the hardware has it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    # Private in torch, and missing in some versions: then float32, which is always right.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and supported() else torch.float32


def try_out(settings: Settings, compute: Compute) -> None:
    """A step at each size of image, and a prediction, as a run does them; raises what fails."""
    settings = dataclasses.replace(settings, erasing=(max(settings.erasing),))  # if any member does
    count = min(settings.piece_size or settings.batch_size, TRIAL_IMAGES)
    pixels = torch.arange(count * IMAGE_SIZE**2).remainder(251).to(torch.uint8)
    images = pixels.view(count, 1, IMAGE_SIZE, IMAGE_SIZE)
    data = LabelledImages(images, torch.arange(count) % CLASSES).to(compute.device)
    training = start_training(settings, compute, count)
    batch, step = torch.arange(count, device=compute.device), make_step(training, data)
    for group in training.optimizer.param_groups:
        group["lr"] = group["lr"] * 0  # too high a rate is no fault of the device's either
    # Three times, for the first is done plainly, the second is recorded, and both are replayed.
    losses = [step(batch, size)[0] for size in set(settings.image_sizes) for _ in range(3)]
    total = sum(losses) + predict_logits(training.network, images, compute).sum()
    if not math.isfinite(total.item()):
        raise RuntimeError("a first step gave numbers that are not finite")
