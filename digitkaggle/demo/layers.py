"""A network as a list of layers with weights, for the page's own interpreter, `network.js`."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.affine import build_affine_matrices
from ..core.basics import InputError
from ..core.layers import GlobalMaxPool, SeededDropout
from ..core.prediction import CONFIDENT_MARGIN, TTA_VIEWS, Model

# What does nothing in prediction.
ONLY_TRAINED = (SeededDropout, nn.Dropout, nn.Dropout2d, nn.Identity)


def convert_model(model: Model) -> dict[str, Any]:
    """A model for the page: its members' layers, its other views and what makes it confident.

    Raises:
        InputError: the page does not know a layer, or half precision cannot hold its weights.
    """
    rotation, shift, zoom = map(torch.tensor, zip(*TTA_VIEWS, strict=True))
    matrices = build_affine_matrices(rotation, shift, zoom, shear=torch.zeros(len(TTA_VIEWS)))
    return {
        "confidentMargin": CONFIDENT_MARGIN,
        "views": matrices[1 : model.settings.views].tolist(),
        "members": [list(convert_layers(network)) for network in model.networks],
    }


def convert_layers(network: nn.Sequential) -> Iterator[dict[str, Any]]:
    """A network's layers in order, each with its name, its shape and its weights as base64."""
    for layer in fold_batch_norms(network):
        match layer:
            case nn.Conv2d():
                yield convert_convolution(layer)
            case nn.BatchNorm2d():
                scale, shift = compute_scale_and_shift(layer)
                yield make_layer("BatchNorm2d", layer, scale=scale, shift=shift)
            case nn.ReLU():
                yield {"name": "ReLU"}
            case nn.MaxPool2d(padding=0, dilation=1, ceil_mode=False):
                kernel, stride = get_side(layer, "kernel_size"), get_side(layer, "stride")
                yield {"name": "MaxPool2d", "kernel": kernel, "stride": stride}
            case GlobalMaxPool() | nn.AdaptiveMaxPool2d(output_size=1, return_indices=False):
                yield {"name": "GlobalMaxPool"}
            case nn.AdaptiveAvgPool2d(output_size=1):
                yield {"name": "GlobalMeanPool"}
            case nn.Flatten(start_dim=1, end_dim=-1):
                yield {"name": "Flatten"}
            case nn.Linear():
                outputs = layer.out_features
                yield make_layer(
                    "Linear", layer, weight=layer.weight, bias=layer.bias, outputs=outputs
                )
            case _:
                raise refuse_layer(layer)


def fold_batch_norms(network: nn.Sequential) -> Iterator[nn.Module]:
    """The layers that predict, with batch normalization folded into a convolution before it.

    Only where it follows at once: with pooling between them, a negative scale would turn the maxima
    into minima.
    """
    layers = [layer for layer in network if not isinstance(layer, ONLY_TRAINED)]
    while layers:
        match layers:
            case [nn.Conv2d() as convolution, nn.BatchNorm2d() as norm, *layers]:
                yield nn.utils.fuse_conv_bn_eval(convolution, norm)
            case [layer, *layers]:
                yield layer


def convert_convolution(layer: nn.Conv2d) -> dict[str, Any]:
    """A convolution without groups or dilation, the same in both directions."""
    plain = (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
    if not plain or isinstance(layer.padding, str):
        raise refuse_layer(layer)
    return make_layer(
        "Conv2d",
        layer,
        weight=layer.weight,
        bias=layer.bias,
        outputs=layer.out_channels,
        kernel=get_side(layer, "kernel_size"),
        stride=get_side(layer, "stride"),
        padding=get_side(layer, "padding"),
    )


def compute_scale_and_shift(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What batch normalization multiplies each channel by in prediction, and then adds."""
    if not (layer.affine and layer.track_running_stats):
        raise refuse_layer(layer)
    scale = layer.weight / (layer.running_var + layer.eps).sqrt()
    return scale, layer.bias - layer.running_mean * scale


def get_side(layer: nn.Module, name: str) -> int:
    """A layer's size, stride or padding, which must be the same in both directions."""
    value = getattr(layer, name)
    sides: Sequence[int] = value if isinstance(value, tuple) else (value, value)
    if sides[0] != sides[1]:
        raise refuse_layer(layer)
    return sides[0]


def make_layer(name: str, layer: nn.Module, **values: Tensor | int | None) -> dict[str, Any]:
    """A layer for the page: numbers as they are, tensors in half precision; without None."""
    made: dict[str, Any] = {"name": name}
    for key, value in values.items():
        if isinstance(value, Tensor):
            halves = value.detach().cpu().contiguous().to(torch.float16).numpy()
            if not np.isfinite(halves).all():
                raise InputError(
                    f"half precision cannot hold the weights of {layer}: export the run as .onnx"
                )
            made[key] = base64.b64encode(halves.astype("<f2").tobytes()).decode()
        elif value is not None:
            made[key] = value
    return made


def refuse_layer(layer: nn.Module) -> InputError:
    """The error for a layer that `network.js` does not know."""
    return InputError(f"the page does not know the layer {layer}: export the run as .onnx")
