"""The device.

Chosen by real work, a training step and a prediction with this run's network, because what a GPU
reports is not reliable. Kaggle's P100 is available, but torch has no code for it; a T4 claims to
support bfloat16, but emulates it. What fails is tried in plainer forms, then on the CPU, and the
reason is reported."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .basics import CLASSES, IMAGE_SIZE, Compute, InputError, LabeledImages
from .optimizers import Muon
from .settings import PRESETS, Settings
from .training import Training, predict_logits, start_training, train_batch

TRIAL_IMAGES = 256  # at most, because a batch that is too large is not the device's failure
# Memory format, half precision, CUDA graphs: the fastest first.
FORMS = (
    (torch.channels_last, True, True),
    (torch.channels_last, True, False),
    (torch.contiguous_format, True, False),
    (torch.contiguous_format, False, False),
)


def choose_compute(settings: Settings = PRESETS["balanced"], device: str = "auto") -> Compute:
    """The named device, or the first of CUDA, MPS and CPU, on which these settings really train.

    Raises:
        InputError: the named device does not work.
    """
    names, failures = list_devices() if device == "auto" else ([device], [])
    for name in names:
        try:
            chosen, title = open_device(name)
        except RuntimeError as error:
            failures.append(describe_failure(name, error))
            continue
        for memory_format, half, cuda_graphs in FORMS:
            precision = settings.precision
            if precision == "auto" and half:
                dtype = find_fastest_dtype(chosen)
            else:
                dtype = torch.float32 if precision == "auto" else getattr(torch, precision)
            on_cuda = chosen.type == "cuda"
            compute = Compute(chosen, dtype, "", memory_format, cuda_graphs and on_cuda)
            if chosen.type != "cpu":
                try:
                    run_trial(settings, compute)
                except RuntimeError as error:  # torch's own; any other class is our mistake
                    failures.append(describe_failure(name, error))
                    continue
            failures = list(dict.fromkeys(failures))
            warning = "; ".join(failures) if chosen.type == "cpu" else ""
            reason = "; ".join([*failures, f"{title} works"])
            return dataclasses.replace(compute, reason=reason, warning=warning)
    failures = list(dict.fromkeys(failures))
    raise InputError(f"{'; '.join(failures)}: leave the device to --device auto")


def list_devices() -> tuple[list[str], list[str]]:
    """The devices to try, and why there is no GPU where there should be one."""
    from .kaggle import on_kaggle

    with warnings.catch_warnings(record=True) as caught:  # such as about a driver that is too old
        warnings.simplefilter("always")
        names = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    failures = [str(warning.message).partition("\n")[0] for warning in caught]
    if on_kaggle() and not names:
        failures.append("Kaggle gave no GPU: choose GPU T4 x2 in the session's options")
    return [*names, "cpu"], failures


def open_device(name: str) -> tuple[torch.device, str]:
    """The device and its title, after one operation on it; RuntimeError if that fails."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU that it can use")
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.set_device(device.index or 0)
        torch.ones(1, device=device).item()
        title = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    except Exception as error:  # drivers and backends raise all kinds
        raise RuntimeError(str(error) or type(error).__name__) from error
    return device, title


def describe_failure(name: str, error: Exception) -> str:
    """One line about a device that failed."""
    reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return f"{name} does not work here ({reason})"


def find_fastest_dtype(device: torch.device) -> torch.dtype:
    """The dtype the device computes fastest in; half precision only where the hardware has it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and "AVX512" in torch.backends.cpu.get_cpu_capability():
        # Private in torch, and missing in some versions: then float32, which is always right.
        has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return torch.bfloat16 if has_bfloat16() else torch.float32
    return torch.float32


def run_trial(settings: Settings, compute: Compute) -> None:
    """Train a step at each image size and predict, as a run does; RuntimeError if that fails."""
    count = min(settings.piece_size or settings.batch_size, TRIAL_IMAGES)
    pixels = torch.arange(count * IMAGE_SIZE**2).remainder(251).to(torch.uint8)
    images = pixels.view(count, 1, IMAGE_SIZE, IMAGE_SIZE)
    data = LabeledImages(images, torch.arange(count) % CLASSES).to(compute.device)
    training = start_training(settings, compute, count)
    batch, step = torch.arange(count, device=compute.device), make_step(training, data)
    for group in training.optimizer.param_groups:
        group["lr"] = group["lr"] * 0  # a rate that is too high is not the device's failure either
    # Three times: a CUDA graph is recorded at the second step and replayed at the third.
    losses = [step(batch, size)[0] for size in set(settings.image_sizes) for _ in range(3)]
    total = sum(losses) + predict_logits(training.network, images, compute).sum()
    if not math.isfinite(total.item()):
        raise RuntimeError("a first step gave values that are not finite")


def make_step(training: Training, data: LabeledImages) -> Callable[..., tuple[Tensor, Tensor]]:
    """`train_batch` as a function of batch and size; where it pays, recorded as CUDA graphs."""
    step = partial(train_batch, training, data)
    if training.compute.cuda_graphs and isinstance(training.optimizer, Muon):
        return record_cuda_graphs(training, step)
    return step


def record_cuda_graphs(
    training: Training, step: Callable[..., tuple[Tensor, Tensor]]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A training step that is recorded once for each batch length and size, and then replayed."""
    # A step is 300 small operations, and to launch them takes five times as long as to compute
    # them: 5.4 ms for 1.0 ms in `fast` on an H200.
    for group in training.optimizer.param_groups:  # a replayed step reads its rate from there
        group["lr"] = torch.as_tensor(group["lr"], device=training.compute.device)
    graphs: dict[tuple[int, int], Any] = {}

    def replay_step(batch: Tensor, size: int) -> tuple[Tensor, Tensor]:
        key = (len(batch), size)
        if key not in graphs:
            graphs[key] = None  # the first step is a plain one, so that libraries are set up
            return step(batch, size)
        if graphs[key] is None:
            graph, place, stream = torch.cuda.CUDAGraph(), batch.clone(), torch.cuda.Stream()
            graph.register_generator_state(training.device_generator)
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                graph.capture_begin()
                try:
                    results = step(place, size)
                finally:  # otherwise nothing runs on this GPU any more, not even a plain step
                    graph.capture_end()
            graphs[key] = graph, place, results
        graph, place, results = graphs[key]
        place.copy_(batch)
        graph.replay()
        return results[0].clone(), results[1].clone()

    return replay_step


@contextlib.contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Let this process keep the memory that tensors free, for the next tensors."""
    # By default glibc returns the pages of a large tensor to Linux at once, which hands them out
    # again one by one, filled with zeros: a fifth of the time of training on a CPU.
    trim_threshold, mmap_threshold = -1, -3
    largest = 2**25  # bytes, the largest mmap_threshold that glibc allows
    try:
        libc = ctypes.CDLL(None)
        set_option, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc: macOS, Windows, musl
        yield
        return
    set_option(trim_threshold, 2**30)
    set_option(mmap_threshold, largest)
    try:
        yield
    finally:
        # glibc's default. The other one stays where glibc's own rule raises it, once it has freed a
        # tensor of this size.
        set_option(trim_threshold, 2**17)
        trim(0)


def set_threads(threads: int | None) -> None:
    """Set torch's number of threads, or the default; InputError for none or far too many."""
    cores = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= 4 * cores:
        raise InputError(f"--threads {threads}: this machine has {cores} cores")
    torch.set_num_threads(threads or count_default_threads())


def count_default_threads() -> int:
    """torch's own number of threads, but at most the cores that this process may use."""
    from joblib import cpu_count  # a tenth of a second; it knows affinity and cgroup quotas

    return max(1, min(torch.get_num_threads(), cpu_count()))
