"""Prediction.

An image that the network is not sure of is looked at again, shifted along a diagonal both ways,
then turned and zoomed a little, and the probabilities are averaged. Three views give a network
trained as shortly as `fast` 0.1 points (99.31 to 99.42 %, ten folds). Of the images that it is sure
of at first sight, 93 in 100, not one in 33,600 was named otherwise after more views: they are
spared the time.

Label smoothing makes a network say 91 % where it is right 99.9 % of the time. One number, the
temperature that its logits are divided by, mends that; it is fitted on what it held out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from .augment import affine_matrices, apply_affine
from .basics import CLASSES, Compute, LabelledImages
from .training import predict_logits

SURE = 0.98  # by how much the likeliest class must lead
# Degrees of rotation, pixels to the right and down, zoom.
VIEWS = [(0, (0, 0), 1), (0, (1, 1), 1), (0, (-1, -1), 1)]
VIEWS += [(7, (0, 0), 1), (-7, (0, 0), 1), (0, (0, 0), 1.06), (0, (0, 0), 0.94)]


def predict_probabilities(
    networks: Sequence[nn.Module], images: Tensor, compute: Compute, views: int = 1
) -> Tensor:
    """The mean of the probabilities of all networks for so many views of each image.

    From uint8 or float, N x 1 x 28 x 28, on any device, to float32, N x 10, on the CPU.
    """
    answers = torch.zeros(len(networks), len(images), CLASSES)
    for answer, network in zip(answers, networks if len(images) else [], strict=False):
        answer.copy_(one_network(network, images, compute, views))
    return sum(answers[1:], start=answers[0]) / len(networks)


def one_network(network: nn.Module, images: Tensor, compute: Compute, views: int) -> Tensor:
    """A network's probabilities, on its device: of one view where it is sure, else of all."""
    total = predict_logits(network, images, compute).softmax(dim=1)
    first, second = total.topk(2, dim=1).values.unbind(dim=1)
    unsure = (first - second < SURE).nonzero().squeeze(1)
    doubtful = images[unsure.to(images.device)]
    for view in VIEWS[1:views] if len(unsure) else []:
        logits = predict_logits(network, doubtful, compute, partial(viewed, view))
        total[unsure] += logits.softmax(dim=1)
    total[unsure] /= views
    return total


def calibrate(network: nn.Sequential, held_out: LabelledImages, compute: Compute) -> float:
    """Divide the network's logits by the temperature, which is returned, that makes its confidence
    true of held-out images (Guo et al., On calibration of modern neural networks, 2017)."""
    logits = predict_logits(network, held_out.images, compute).cpu()
    labels = held_out.labels.cpu()

    def loss(temperature: float) -> float:
        # As if a third of an image more were wrong: where none is, no confidence is too much.
        scaled, doubt = logits / temperature, 0.3 / len(labels)
        return functional.cross_entropy(scaled, labels, label_smoothing=doubt).item()

    temperature = min((0.1 * 1.02**step for step in range(200)), key=loss)  # 0.1 to 5
    with torch.no_grad():
        for parameter in network[-1].parameters():  # of the last layer, which is linear
            parameter.div_(temperature)
    return temperature


def viewed(view: tuple[float, tuple[float, float], float], pixels: Tensor) -> Tensor:
    """Images, float, N x 1 x 28 x 28, in another view, bilinear, zeros coming in at the edge."""
    if view == VIEWS[0]:
        return pixels
    rotation, shift, zoom = (torch.tensor([value], dtype=torch.float32) for value in view)
    matrix = affine_matrices(rotation, shift, zoom, shear=torch.zeros(1)).to(pixels.device)
    return apply_affine(pixels, matrix.expand(pixels.shape[0], -1, -1), pixels.shape[-1])
