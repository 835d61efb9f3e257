"""From images to logits and probabilities, every image once, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from .augment import affine_matrices, apply_affine
from .device import Compute, is_out_of_memory
from .digits import CLASSES
from .progress import make_bar

# Bounds the memory that prediction takes; large enough to keep any device busy.
PREDICTION_BATCH = 1000


class View(NamedTuple):
    """A way to look at an image: moved by pixels, turned by degrees, larger or smaller."""

    right: float = 0.0
    down: float = 0.0
    rotation: float = 0.0
    zoom: float = 1.0


AS_IT_IS = View()
# Moving along a diagonal first: one way and back gains a short training what all four ways do.
VIEWS = (
    AS_IT_IS,
    View(right=1, down=1),
    View(right=-1, down=-1),
    View(rotation=7),
    View(rotation=-7),
    View(zoom=1.06),
    View(zoom=0.94),
)


def network_input(images: torch.Tensor) -> torch.Tensor:
    """What a network takes of stored images: uint8 becomes float32 from 0 to 1; float stays."""
    pixels = images.float().div_(255) if images.dtype == torch.uint8 else images
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict_logits(
    network: nn.Module,
    images: torch.Tensor,
    compute: Compute,
    view: View = AS_IT_IS,
    tell_done: Callable[[int], object] = lambda images: None,
) -> torch.Tensor:
    """The network's logits in evaluation mode; its mode afterwards is what it was before.

    Args:
        network: on `compute.device`.
        images: uint8 or float, N x 1 x 28 x 28, on any device.
        view: the way the network sees each of them.
        tell_done: is told how many images each batch had.

    Returns:
        float32, N x 10, on `compute.device`.
    """
    was_training = network.training
    network.eval()
    logits = []
    for batch in images.split(PREDICTION_BATCH):
        logits.append(_batch_logits(network, batch, compute, view))
        tell_done(len(batch))
    network.train(was_training)
    return torch.cat(logits)


def _batch_logits(
    network: nn.Module, batch: torch.Tensor, compute: Compute, view: View
) -> torch.Tensor:
    """The logits of a batch; where memory runs out, of one half of it after the other."""
    try:
        pixels = viewed(network_input(batch.to(compute.device)), view)
        with compute.autocast():
            return network(pixels).float()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
    return torch.cat([_batch_logits(network, half, compute, view) for half in batch.chunk(2)])


def predict_probabilities(
    networks: Sequence[nn.Module],
    images: torch.Tensor,
    compute: Compute,
    views: int = 1,
    *,
    progress_bar: bool = False,
) -> torch.Tensor:
    """The mean of the probabilities of all networks for so many views of each image.

    Views make a network's answer depend less on how exactly the digit stands. A bar shows on
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
    with make_bar(
        shown=progress_bar, total=len(images) * views, desc="predicting", unit="image"
    ) as bar:
        for view in VIEWS[:views]:
            total += predict_logits(network, images, compute, view, bar.update).softmax(dim=1)
    return (total / views).cpu()


def mean_probabilities(members: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of what members say, N x 10 each; added up in order, so always to the same bytes."""
    return sum(members[1:], start=members[0]) / len(members)


def viewed(pixels: torch.Tensor, view: View) -> torch.Tensor:
    """Images in another view, bilinear, zeros coming in at the edge.

    Args:
        pixels: float, N x 1 x 28 x 28.

    Returns:
        The same shape, dtype and device; `pixels` themselves for the view as it is.
    """
    if view == AS_IT_IS:
        return pixels
    matrix = affine_matrices(
        rotation=torch.tensor([view.rotation]),
        shift=torch.tensor([[view.right, view.down]]),
        zoom=torch.tensor([view.zoom]),
        shear=torch.zeros(1),
        size=pixels.shape[-1],
    )
    matrices = matrix.to(pixels.device).expand(len(pixels), -1, -1)
    return apply_affine(pixels, matrices, pixels.shape[-1])
