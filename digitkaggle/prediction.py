"""From images to logits and probabilities, every image once, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from .device import Compute, is_out_of_memory
from .digits import CLASSES

# Bounds the memory that prediction takes; large enough to keep any device busy.
PREDICTION_BATCH = 1000
# As it is, then a pixel along each diagonal, down or up and right or left.
VIEWS = ((0, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))


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
        logits.append(_batch_logits(network, batch, compute))
        tell_done(len(batch))
    network.train(was_training)
    return torch.cat(logits)


def _batch_logits(network: nn.Module, batch: torch.Tensor, compute: Compute) -> torch.Tensor:
    """The logits of a batch; where memory runs out, of one half of it after the other."""
    try:
        with compute.autocast():
            return network(network_input(batch.to(compute.device))).float()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
    return torch.cat([_batch_logits(network, half, compute) for half in batch.chunk(2)])


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
    return mean_probabilities(
        [
            member_probabilities(network, images, compute, views, progress_bar=progress_bar)
            for network in networks
        ]
    )


def member_probabilities(
    network: nn.Module,
    images: torch.Tensor,
    compute: Compute,
    views: int,
    *,
    progress_bar: bool = False,
) -> torch.Tensor:
    """The mean of one network's probabilities for so many views; as `predict_probabilities`."""
    total = torch.zeros(len(images), CLASSES, device=compute.device)
    with tqdm(
        total=len(images) * views,
        desc="predicting",
        unit="image",
        leave=False,
        delay=2,
        disable=None if progress_bar else True,  # None: on a terminal only
    ) as bar:
        for down, right in VIEWS[:views]:
            moved = shifted(images, down, right)
            total += predict_logits(network, moved, compute, bar.update).softmax(dim=1)
    return (total / views).cpu()


def mean_probabilities(members: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of what members say, N x 10 each; added up in order, so always to the same bytes."""
    return sum(members[1:], start=members[0]) / len(members)


def shifted(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Images moved by a pixel or none along each axis, zeros coming in at the edge."""
    height, width = images.shape[2:]
    padded = functional.pad(images, (1, 1, 1, 1))
    return padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
