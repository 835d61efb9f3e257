"""What everything needs.

The digits, the place to compute, the two errors, the log. Images stay the bytes that they are:
42,000 take 33 MB and lie on the device whole, and a batch is a slice of a shuffled index. No
loader, no workers."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

VERSION = "0.3.0"
IMAGE_SIZE = 28  # pixels along a side
CLASSES = 10

logger = logging.getLogger("digitkaggle")
logger.addHandler(logging.NullHandler())  # as a library we stay silent


class InputError(Exception):
    """Wrong use or bad input: one line that says what is wrong, where, and what to do next."""


class TrainingError(InputError):
    """Training cannot go on, for its loss is no number any more."""


@dataclass(frozen=True)
class LabelledImages:
    """Images N x 1 x 28 x 28, uint8 (or float32 from 0 to 1), and int64 labels N.

    To train on, labels may be probabilities, float32, N x 10.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> LabelledImages:
        """The same images and labels on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Digits:
    """The competition's images. Labels of test images are known of the sample alone."""

    train_images: Tensor  # uint8, N x 1 x 28 x 28
    train_labels: Tensor  # int64, N
    test_images: Tensor  # uint8, M x 1 x 28 x 28
    test_labels: Tensor | None = None  # int64, M
    origin: str = ""  # where they came from

    def digest(self) -> str:
        """SHA-256 of all pixels and labels: the same for the same digits, however stored."""
        total = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            if tensor is not None:
                total.update(f"{tuple(tensor.shape)}".encode())
                total.update(tensor.contiguous().numpy().data)
        return total.hexdigest()


@dataclass(frozen=True)
class Compute:
    """Where the network runs, in which numbers its layers count, and why so."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    # Channels last: stored channel by channel, all is slower by up to a third.
    memory_format: torch.memory_format = torch.channels_last
    recorded: bool = False  # whether steps of training are recorded once, and replayed
    warning: str = ""  # why a GPU that should be there is not used

    def autocast(self) -> torch.autocast:
        """Layers inside count in `dtype` where that is safe; weights stay float32."""
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=half)


def keep_freed_memory(keep: bool = True) -> None:
    """Let this process keep the memory that tensors free for the next ones; or give it back."""
    # Else glibc gives a large tensor's pages back to Linux at once, which hands them out again page
    # by page, each filled with zeros: a fifth of the time of training on a CPU.
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems than glibc's
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**30 if keep else 2**17)
        libc.mallopt(mmap_threshold, 2**25)  # the most that it allows
        if not keep:
            libc.malloc_trim(0)


def show_log(level: int = logging.INFO) -> None:
    """Print messages of `level` and above: warnings on standard error, the rest on output."""
    usual, warnings = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    usual.addFilter(lambda record: record.levelno < logging.WARNING)
    warnings.setLevel(logging.WARNING)
    logger.handlers, logger.propagate = [usual, warnings], False
    logger.setLevel(level)


def progress(items: Any = None, **options: Any) -> tqdm:
    """A progress bar, on a terminal only, for what takes over two seconds; TQDM_DISABLE=1: none."""
    hidden = bool(os.environ.get("TQDM_DISABLE")) or None  # None: shown on a terminal only
    return tqdm(items, disable=hidden, **({"leave": False, "delay": 2} | options))
