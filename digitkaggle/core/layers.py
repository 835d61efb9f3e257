"""Layers.

torch has these, too, but slower, with randomness of its own, or not for a lone image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that also trains on a lone image, such as the last one of an epoch."""

    def forward(self, maps: Tensor) -> Tensor:
        """From N x C x H x W to the same shape."""
        # A single value of a channel has no variance, and torch refuses it. The statistics of
        # earlier batches serve as well.
        if self.training and maps.numel() == self.num_features:
            mean, variance = self.running_mean, self.running_var
            return functional.batch_norm(maps, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(maps)


class GlobalMaxPool(nn.Module):
    """The maximum of each feature map, N x C x 1 x 1."""

    def forward(self, maps: Tensor) -> Tensor:
        """From N x C x H x W."""
        # torch's own layer is slow on a GPU; on a CPU `amax` takes ten times as long as that layer.
        if maps.device.type == "cpu":
            return functional.adaptive_max_pool2d(maps, 1)
        return maps.amax(dim=(2, 3), keepdim=True)


class SeededDropout(nn.Module):
    """Dropout whose randomness comes from a generator that is passed in, not from global state."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability = probability
        self.generator = generator

    def forward(self, values: Tensor) -> Tensor:
        """In training, set values to zero at random and scale the others up to make up for it."""
        if not self.training or self.probability == 0:
            return values
        keep = 1 - self.probability
        mask = draw_mask(values, keep, self.generator)
        return values * mask.to(values.dtype).div_(keep)


def draw_mask(values: Tensor, keep: float, generator: torch.Generator) -> Tensor:
    """A mask for dropout in the shape and memory layout of `values`, 1 with probability `keep`."""
    if values.device.type != "cpu":
        return torch.empty_like(values).bernoulli_(keep, generator=generator)
    # torch draws a double for each value: nearly a third of this recipe's time. Four 16-bit values
    # out of each 64-bit draw take a quarter of that.
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    shorts = words.view(torch.int16)[: values.numel()]
    shorts = shorts.as_strided(values.shape, values.stride())
    return shorts < round(keep * 2**16) - 2**15
