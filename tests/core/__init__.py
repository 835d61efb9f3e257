"""What the tests of the core share: a plain CPU, a generator, and a comparison of weights."""

from __future__ import annotations

import torch

from digitkaggle.core.basics import Compute

CPU = Compute(torch.device("cpu"), torch.float32, "for tests")


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def are_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal to the bit."""
    return all(torch.equal(first[name], second[name]) for name in first)
