"""The recipes we compare with, transcribed plainly, so that our own speed never moves the mark.

Each is as its readers would write it: float32, whole batches, torch's own layers and optimisers, no
pieces, no memory format. Only the data path is ours: tensors in memory, sliced by a shuffled index,
which is faster than the workers and transforms of the originals.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from .measures import finish

CLASSIC_EPOCHS = 150
CLASSIC_IMAGES = 220_500  # 7 x 75 % of 42,000
CLASSIC_BATCH = 4096
TUTORIAL_EPOCHS = 14
# Of MNIST's training pixels, as every tutorial has them.
MEAN, DEVIATION = 0.1307, 0.3081


class Trained(NamedTuple):
    """A recipe's network, and the seconds its training took."""

    network: nn.Module
    seconds: float


def classic_network() -> nn.Sequential:
    """Conv 64@5x5 - conv 256@3x3 - 256 - 64 - 10 with dropout 0.5; softmax before the loss."""

    def active(layer: nn.Module) -> tuple[nn.Module, ...]:
        return layer, nn.ReLU(), nn.Dropout(0.5)

    return nn.Sequential(
        *active(nn.Conv2d(1, 64, 5)),
        nn.MaxPool2d(2),
        *active(nn.Conv2d(64, 256, 3)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *active(nn.Linear(6400, 256)),
        *active(nn.Linear(256, 64)),
        nn.Linear(64, 10),
        nn.Softmax(dim=1),
    )


def classic_seconds_per_step(steps: int, seed: int) -> list[float]:
    """Seconds of each of so many training steps of the classic recipe, after one to warm up.

    Its 4,096 images are random: a step costs the same whatever they show.
    """
    torch.manual_seed(seed)
    network = classic_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    images = torch.rand(CLASSIC_BATCH, 1, 28, 28)
    labels = torch.randint(0, 10, (CLASSIC_BATCH,))
    seconds = []
    for _ in range(1 + steps):
        started = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def train_tutorial(
    images: torch.Tensor, labels: torch.Tensor, seed: int, epochs: int = TUTORIAL_EPOCHS
) -> Trained:
    """The recipe of PyTorch's basic MNIST example (github.com/pytorch/examples, `mnist`)."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    network = network.to(images.device)
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, -(-len(labels) // 64), gamma=0.7)
    return trained(network, optimizer, schedule, images, labels, 64, epochs)


def train_one_second(images: torch.Tensor, labels: torch.Tensor, seed: int, epochs: int) -> Trained:
    """The recipe that trains in a second on a GPU (github.com/tuomaso/train_mnist_fast).

    One epoch there; more are for a fair try at accuracy. Shuffled, which the original is not.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 24, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )
    network = network.to(images.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.7, 0.9))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, epochs * -(-len(labels) // 256), cycle_momentum=False
    )
    return trained(network, optimizer, schedule, images, labels, 256, epochs)


def trained(network, optimizer, schedule, images, labels, batch_size, epochs) -> Trained:
    """The network after so many epochs of shuffled batches; the schedule goes on with each."""
    started = time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(len(labels)).split(batch_size):
            optimizer.zero_grad()
            functional.cross_entropy(network(normalised(images[index])), labels[index]).backward()
            optimizer.step()
            schedule.step()
    finish(images.device)
    return Trained(network, time.perf_counter() - started)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as float32 of about mean 0 and deviation 1."""
    return (images.float() / 255 - MEAN) / DEVIATION


@torch.no_grad()
def recipe_accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images that a recipe's network names right, from one view."""
    network.eval()
    said = torch.cat([network(normalised(some)).argmax(dim=1) for some in images.split(1000)])
    return (said == labels).double().mean().item()
