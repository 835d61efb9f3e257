"""The recipes to compare with, written plainly, so that a faster digitkaggle does not change them.

Each is as its readers would write it: float32, whole batches, torch's own layers and optimizers, no
pieces, no memory format. Only the data loading is ours: tensors in memory, sliced by a shuffled
index, which is faster than the workers and transforms of the originals.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from .measures import wait_for_device

CLASSIC_EPOCHS = 150
CLASSIC_IMAGES = 220_500  # 7 x 75 % of 42,000
CLASSIC_BATCH = 4096
TUTORIAL_EPOCHS = 14
# Of MNIST's training pixels, as in every tutorial.
MEAN, DEVIATION = 0.1307, 0.3081


class TrainedRecipe(NamedTuple):
    """A recipe's network, and the seconds of its training."""

    network: nn.Module
    seconds: float


def build_classic_network() -> nn.Sequential:
    """The classic recipe's network, with the softmax that it applies before the loss."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 5),  # 64 x 24 x 24
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.MaxPool2d(2),  # 64 x 12 x 12
        nn.Conv2d(64, 256, 3),  # 256 x 10 x 10
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.MaxPool2d(2),  # 256 x 5 x 5
        nn.Flatten(),  # 6400
        nn.Linear(6400, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(64, 10),
        nn.Softmax(dim=1),
    )


def time_classic_steps(steps: int, seed: int) -> list[float]:
    """Seconds of each of N training steps of the classic recipe, after one to warm up.

    Its 4,096 images are random, because the time of a step does not depend on them.
    """
    torch.manual_seed(seed)
    network = build_classic_network()
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
) -> TrainedRecipe:
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
    return train_recipe(network, optimizer, schedule, images, labels, 64, epochs)


def train_one_second(
    images: torch.Tensor, labels: torch.Tensor, seed: int, epochs: int
) -> TrainedRecipe:
    """The recipe that trains in a second on a GPU (github.com/tuomaso/train_mnist_fast).

    There it trains for one epoch; more give it a fair chance at accuracy. Here the images are
    shuffled, in the original they are not.
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
    return train_recipe(network, optimizer, schedule, images, labels, 256, epochs)


def train_recipe(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
    epochs: int,
) -> TrainedRecipe:
    """Train a network on shuffled batches; the schedule makes a step after each batch."""
    started = time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(len(labels)).split(batch_size):
            optimizer.zero_grad()
            logits = network(normalize(images[index]))
            functional.cross_entropy(logits, labels[index]).backward()
            optimizer.step()
            schedule.step()
    wait_for_device(images.device)
    return TrainedRecipe(network, time.perf_counter() - started)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Pixels, uint8, as float32 with a mean of about 0 and a standard deviation of about 1."""
    return (images.float() / 255 - MEAN) / DEVIATION


@torch.no_grad()
def measure_accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The accuracy of a recipe's network, 0 to 1, without test-time augmentation."""
    network.eval()
    predicted = torch.cat([network(normalize(part)).argmax(dim=1) for part in images.split(1000)])
    return (predicted == labels).double().mean().item()
