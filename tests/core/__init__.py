"""What the tests of the core share: a plain CPU, and a generator."""

from __future__ import annotations

import torch

from digitkaggle.core.basics import Compute

CPU = Compute(torch.device("cpu"), torch.float32, "for tests")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal to the bit."""
    return all(torch.equal(first[name], second[name]) for name in first)
