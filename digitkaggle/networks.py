"""The networks: vertical lists of layers, each with the shape that comes out of it.

Inputs are float, N x 1 x 28 x 28, 0 to 1. Outputs are logits, N x 10: softmax belongs to whoever
needs probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from .augment import apply_affine, pixel_centres
from .digits import CLASSES, IMAGE_SIZE
from .settings import Settings


class SeededDropout(nn.Module):
    """Dropout whose randomness comes from a generator that is passed in, not from global state.

    Args:
        probability: the share of values set to zero in training; the others grow to make up.
        generator: on the device of the values.
    """

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability = probability
        self.generator = generator

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Same shape, dtype and device as `values`."""
        if not self.training or self.probability == 0:
            return values
        keep = 1 - self.probability
        return values * keep_mask(values, keep, self.generator).to(values.dtype).div_(keep)

    def extra_repr(self) -> str:
        """What `print(network)` shows of it."""
        return f"{self.probability:g}"


class MomentNormalisation(nn.Module):
    """Sets each digit upright, in the middle from left to right, and as wide as any other.

    The map follows from the moments of the digit's ink ([Casey 1970]). A network that sees digits
    so is no better alone, but wrong about others than one that sees them as they stand, as nets
    for several widths were in [Ciresan 2012]; together they are better. The width goes with the
    weights, as they are of use for no other.

    Args:
        width: twice the standard deviation of the ink across, from the digit's own axis, in
            pixels of 28; 0 gives images back as they are.

    [Casey 1970] Moment normalization of handprinted characters. IBM J. Res. Dev. 14(5), 548-557.
    [Ciresan 2012] Multi-column deep neural networks for image classification. arXiv:1202.2745.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = float(width)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Same shape, dtype and device as `images`, float, N x 1 x size x size."""
        if not self.width:
            return images
        return apply_affine(images, upright_matrices(images, self.width), images.shape[-1])

    def get_extra_state(self) -> torch.Tensor:
        """The width, for `state_dict()`."""
        return torch.tensor(self.width)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take a width from `load_state_dict()`."""
        self.width = float(state)


def upright_matrices(images: torch.Tensor, width: float) -> torch.Tensor:
    """The maps that set digits upright, in the middle across, and to a width.

    Args:
        images: float, N x 1 x size x size; what is below zero is no ink.
        width: as that of MomentNormalisation.

    Returns:
        float32, N x 2 x 3, for `apply_affine`.
    """
    ink = images.squeeze(1).clamp(min=0)
    mass = ink.sum(dim=(1, 2)).clamp(min=1e-3)
    x = pixel_centres(images.shape[-1], images.device)
    y = x[:, None]

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (ink * values).sum(dim=(1, 2)) / mass

    middle_x, middle_y = mean(x), mean(y)
    covariance = mean(x * y) - middle_x * middle_y
    variance_x, variance_y = mean(x * x) - middle_x**2, mean(y * y) - middle_y**2
    # A lean of more than 45 degrees is none of handwriting, but of a digit that lies flat.
    lean = (covariance / variance_y.clamp(min=1e-3)).clamp(-1, 1)
    across = (variance_x - 2 * lean * covariance + lean**2 * variance_y).clamp(min=1e-4).sqrt()
    scale = across * (IMAGE_SIZE / width)  # -1 to 1 are 28 pixels, so the deviation is width / 28
    of_x = torch.stack([scale, lean, middle_x - lean * middle_y], dim=1)
    return torch.stack([of_x, torch.tensor([0.0, 1.0, 0.0]).to(of_x).expand_as(of_x)], dim=1)


def keep_mask(values: torch.Tensor, keep: float, generator: torch.Generator) -> torch.Tensor:
    """Which values stay, each with probability `keep` (on a CPU to the next 65,536th).

    torch draws a CPU's random numbers one after the other, whatever its threads, and `bernoulli_`
    spends a double on each value: nearly a third of the classic recipe's time. Four values out of
    each 64-bit number take a quarter of that.

    Returns:
        Values of 0 and 1, with the shape, device and memory format of `values`.
    """
    if values.device.type != "cpu":
        return torch.empty_like(values).bernoulli_(keep, generator=generator)
    count = values.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64)
    shorts = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
    return shorts.as_strided(values.shape, values.stride()) < round(keep * 2**16) - 2**15


def classic_network(dropout: float, generator: torch.Generator) -> nn.Sequential:
    """The network of the published recipe: 1,805,130 parameters, dropout after every layer."""
    return nn.Sequential(
        nn.Conv2d(1, 64, kernel_size=5),  # 64 x 24 x 24
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.MaxPool2d(2),  # 64 x 12 x 12
        nn.Conv2d(64, 256, kernel_size=3),  # 256 x 10 x 10
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.MaxPool2d(2),  # 256 x 5 x 5
        nn.Flatten(),  # 6400
        nn.Linear(6400, 256),  # 256
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.Linear(256, 64),  # 64
        nn.ReLU(),
        SeededDropout(dropout, generator),
        nn.Linear(64, CLASSES),  # 10
    )


def compact_network(
    widths: Sequence[int], depths: Sequence[int], dropout: float, generator: torch.Generator
) -> nn.Sequential:
    """Batch-normalised convolutions in three stages, each half the size of the one before.

    The first layer takes steps of two pixels: at 28 x 28 a convolution costs most and sees only
    strokes. Global pooling at the end makes a network for images of any size.

    Args:
        widths: channels of the three stages.
        depths: convolutions in the second and in the third stage.
        dropout: the share dropped before the last layer.
        generator: of the dropout.
    """
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(1, first, kernel_size=5, stride=2, padding=2, bias=False),  # first x 14 x 14
        nn.BatchNorm2d(first),
        nn.ReLU(),
        *convolutions(first, second, depths[0], halved=True),  # second x 7 x 7
        *convolutions(second, third, depths[1], halved=False),  # third x 7 x 7
        nn.AdaptiveMaxPool2d(1),  # third x 1 x 1
        nn.Flatten(),  # third
        SeededDropout(dropout, generator),
        nn.Linear(third, CLASSES),  # 10
    )


def convolutions(channels: int, width: int, depth: int, *, halved: bool) -> list[nn.Module]:
    """So many 3 x 3 convolutions from `channels` to `width`, the last one's output pooled or not.

    Pooling comes before normalisation, which then has a quarter of the work.
    """
    layers: list[nn.Module] = []
    for number in range(depth):
        layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False))
        if halved and number == depth - 1:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return layers


def build_network(settings: Settings, generator: torch.Generator) -> nn.Sequential:
    """The network of the settings, on the device of `generator`, with fresh weights.

    Args:
        settings: `member_settings` of the network's number, where there are several.
        generator: draws the weights now and the dropout masks later.
    """
    if settings.network == "classic":
        network = classic_network(settings.dropout, generator)
    else:
        network = compact_network(settings.widths, settings.depths, settings.dropout, generator)
    if any(settings.digit_widths):
        network = nn.Sequential(MomentNormalisation(settings.digit_widths[0]), *network)
    network = network.to(generator.device, memory_format=torch.channels_last)
    initialise(network, generator)
    return network


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights from torch's own default distributions, but out of `generator`."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                bound = 1 / math.sqrt(layer.weight[0].numel())
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def layer_table(network: nn.Sequential) -> str:
    """The network as aligned text: each layer, the shape that comes out, its parameters."""
    device = next(network.parameters()).device
    values = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE, device=device)
    rows = [("layer", "output", "parameters"), ("input", _shape(values), "")]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for layer in network:
            values = layer(values)
            count = sum(parameter.numel() for parameter in layer.parameters())
            rows.append((_layer_name(layer), _shape(values), f"{count:,}" if count else ""))
    network.train(was_training)
    total = sum(parameter.numel() for parameter in network.parameters())
    rows.append(("total", "", f"{total:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}".rstrip()
        for name, shape, count in rows
    )


def _shape(values: torch.Tensor) -> str:
    return " x ".join(str(size) for size in values.shape[1:])


def _layer_name(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        return f"convolution {layer.kernel_size[0]} x {layer.kernel_size[1]}"
    if isinstance(layer, SeededDropout):
        return f"dropout {layer.probability:g}"
    if isinstance(layer, MomentNormalisation):
        return f"upright, width {layer.width:g}" if layer.width else "as it stands"
    names = {
        nn.MaxPool2d: "max pooling 2 x 2",
        nn.AdaptiveMaxPool2d: "max pooling, global",
        nn.BatchNorm2d: "batch normalisation",
        nn.ReLU: "ReLU",
        nn.Flatten: "flatten",
        nn.Linear: "linear",
    }
    return names[type(layer)]
