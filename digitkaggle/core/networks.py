"""The network.

Convolutions in three stages, batch-normalised. Four choices are worth a word:

- The first layer takes steps of two pixels: at 28 x 28 a convolution costs most and sees only
  strokes. That saves a quarter of the time for 0.04 points, no more than chance would give.
- Two layers leave the edge out, where no digit reaches: their maps are two places smaller, and
  training takes a quarter less, for no accuracy at all (99.42 % with and without, ten folds).
- The last feature maps are pooled to their maxima. Where exactly a stroke lies matters little, no
  large linear layer is needed, and images of any size go in. Maxima beat averages by 0.05 points.
- Some members of `best` see each digit set upright and to a width. They are no better for it, but
  wrong about others: of two networks of one kind the mean's loss is 13.8 thousandths, of two of
  different kinds 11.9 (10,500 digits held out)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .augment import apply_affine, pixel_centres
from .basics import CLASSES, IMAGE_SIZE
from .classic import SeededDropout, classic_network
from .settings import Settings


def compact_network(
    widths: Sequence[int], depths: Sequence[int], dropout: float, generator: torch.Generator
) -> nn.Sequential:
    """Three stages; from N x 1 x 28 x 28 to logits, N x 10. `depths`: of stages two and three."""
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(1, first, kernel_size=3, stride=2, padding=1, bias=False),  # first x 14 x 14
        nn.BatchNorm2d(first),
        nn.ReLU(),
        *convolutions(first, second, depths[0], halved=True),  # second x 6 x 6
        *convolutions(second, third, depths[1], halved=False),  # third x 4 x 4
        GlobalMaxPool(),  # third x 1 x 1
        nn.Flatten(),  # third
        SeededDropout(dropout, generator),
        nn.Linear(third, CLASSES),  # 10
    )


def convolutions(channels: int, width: int, depth: int, *, halved: bool) -> list[nn.Module]:
    """So many 3 x 3 convolutions from `channels` to `width`, the last one pooled or not.

    The first of those that are pooled, and the last of the others, leave the edge out.
    """
    layers: list[nn.Module] = []
    for number in range(depth):
        edge = int(number != (0 if halved else depth - 1))
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=edge, bias=False))
        if halved and number == depth - 1:
            # Before normalisation, which then has a quarter of the work.
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return layers


class GlobalMaxPool(nn.Module):
    """The maximum of each map, N x C x 1 x 1."""

    def forward(self, maps: Tensor) -> Tensor:
        """From N x C x H x W."""
        # torch's own is slow on a GPU; `amax` takes ten times as long as that on a CPU.
        if maps.device.type == "cpu":
            return functional.adaptive_max_pool2d(maps, 1)
        return maps.amax(dim=(2, 3), keepdim=True)


class MomentNormalisation(nn.Module):
    """Sets each digit upright, in the middle from left to right, and as wide as any other.

    By the moments of its ink (Casey, Moment normalization of handprinted characters, 1970). The
    width is twice the ink's standard deviation across, in pixels of 28; 0 changes nothing.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Same shape, dtype and device as `images`, float, N x 1 x size x size."""
        if not self.width:
            return images
        ink = images.squeeze(1).clamp(min=0)
        mass = ink.sum(dim=(1, 2)).clamp(min=1e-3)
        x = pixel_centres(images.shape[-1], images.device)
        y = x[:, None]
        means = [(ink * of).sum(dim=(1, 2)) / mass for of in (x, y, x * y, x * x, y * y)]
        middle_x, middle_y, mean_xy, mean_xx, mean_yy = means
        covariance = mean_xy - middle_x * middle_y
        variance_x, variance_y = mean_xx - middle_x**2, mean_yy - middle_y**2
        # A lean of more than 45 degrees is none of handwriting, but of a digit that lies flat.
        lean = (covariance / variance_y.clamp(min=1e-3)).clamp(-1, 1)
        across = (variance_x - 2 * lean * covariance + lean**2 * variance_y).clamp(min=1e-4).sqrt()
        scale = across * (IMAGE_SIZE / self.width)  # -1 to 1 are 28 pixels
        of_x = torch.stack([scale, lean, middle_x - lean * middle_y], dim=1)
        of_y = torch.zeros_like(of_x)
        of_y[:, 1] = 1
        return apply_affine(images, torch.stack([of_x, of_y], dim=1), images.shape[-1])


def build_network(
    settings: Settings, generator: torch.Generator, memory_format=torch.channels_last
) -> nn.Sequential:
    """The network of a member's settings, on the device of `generator`, which draws its weights."""
    if settings.network == "classic":
        network = classic_network(settings.dropout, generator)
    else:
        network = compact_network(settings.widths, settings.depths, settings.dropout, generator)
    if any(settings.digit_widths):
        network = nn.Sequential(MomentNormalisation(settings.digit_widths[0]), *network)
    network = network.to(generator.device, memory_format=memory_format)
    # torch's own default distributions, but out of our generator.
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                bound = 1 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return network
