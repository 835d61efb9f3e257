"""From images to logits and probabilities, every image once, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from .device import Compute
from .networks import CLASSES

# Bounds the memory that prediction takes; large enough to keep any device busy.
PREDICTION_BATCH = 1000
# As it is, then a pixel down, up, right and left.
VIEWS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


def network_input(images: torch.Tensor) -> torch.Tensor:
    """What a network takes of stored images: uint8 becomes float32 from 0 to 1; float stays."""
    pixels = images.float().div_(255) if images.dtype == torch.uint8 else images
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict_logits(
    network: nn.Module,
    images: torch.Tensor,
    compute: Compute,
    tell_done: Callable[[int], object] = lambda images: None,
) -> torch.Tensor:
    """The network's logits in evaluation mode; its mode afterwards is what it was before.

    Args:
        network: on `compute.device`.
        images: uint8 or float, N x 1 x 28 x 28, on any device.
        tell_done: is told how many images each batch had.

    Returns:
        float32, N x 10, on `compute.device`.
    """
    was_training = network.training
    network.eval()
    logits = []
    for batch in images.split(PREDICTION_BATCH):
        with compute.autocast():
            logits.append(network(network_input(batch.to(compute.device))).float())
        tell_done(len(batch))
    network.train(was_training)
    return torch.cat(logits)


def predict_probabilities(
    networks: Sequence[nn.Module],
    images: torch.Tensor,
    compute: Compute,
    views: int = 1,
    *,
    progress_bar: bool = False,
) -> torch.Tensor:
    """The mean of the probabilities of all networks for so many shifted views of each image.

    Views make a network's answer depend less on where exactly the digit stands. A bar shows on
    standard error if asked for, after two seconds and on a terminal only.

    Returns:
        float32, N x 10, on the CPU; each row adds up to 1.
    """
    total = torch.zeros(len(images), CLASSES, device=compute.device)
    with tqdm(
        total=len(images) * len(networks) * views,
        desc="predicting",
        unit="image",
        leave=False,
        delay=2,
        disable=None if progress_bar else True,  # None: on a terminal only
    ) as bar:
        for network in networks:
            for down, right in VIEWS[:views]:
                moved = shifted(images, down, right)
                total += predict_logits(network, moved, compute, bar.update).softmax(dim=1)
    return (total / (len(networks) * views)).cpu()


def shifted(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Images moved by a pixel or none along each axis, zeros coming in at the edge."""
    height, width = images.shape[2:]
    padded = functional.pad(images, (1, 1, 1, 1))
    return padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
