"""Calibration.

Label smoothing makes a network claim 91 % where it is correct 99.9 % of the time. One number, the
temperature that its logits are divided by, makes its confidence match its accuracy."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .basics import Compute, LabeledImages
from .training import predict_logits


def calibrate(network: nn.Sequential, held_out: LabeledImages, compute: Compute) -> float:
    """Divide the network's logits by the temperature that minimizes the held-out loss; return it.

    Guo et al., On calibration of modern neural networks, 2017.
    """
    last = network[-1]
    if not isinstance(last, nn.Linear):
        raise TypeError(f"only the logits of a linear layer can be scaled, not of {last}")
    logits = predict_logits(network, held_out.images, compute).cpu()
    labels = held_out.labels.cpu()

    def measure_loss(temperature: float) -> float:
        # As if a third of one more image were misclassified: without any error, no confidence
        # would be too high.
        scaled, doubt = logits / temperature, 0.3 / len(labels)
        return functional.cross_entropy(scaled, labels, label_smoothing=doubt).item()

    temperature = min((0.1 * 1.02**step for step in range(200)), key=measure_loss)  # 0.1 to 5
    with torch.no_grad():
        for parameter in last.parameters():  # so that nothing else has to know the temperature
            parameter.div_(temperature)
    return temperature
