"""The training loop: one plain function, an epoch at a time, the best validated weights kept."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from .augment import random_affine
from .device import Compute
from .errors import TrainingError
from .networks import IMAGE_SIZE, build_network
from .optimizers import Muon
from .prediction import network_input, predict_logits
from .settings import Settings

# How many steps may pass before a loss that is no number is noticed: looking waits for the device.
STEPS_BETWEEN_LOOKS = 25
# A handful of images gets no more epochs than this for its steps: it knows them by heart then.
MOST_EPOCHS_FOR_STEPS = 100


@dataclass(frozen=True)
class LabelledImages:
    """Images N x 1 x 28 x 28, uint8 (or float32 from 0 to 1), and int64 labels N."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> LabelledImages:
        """The same images and labels on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


@dataclass
class Training:
    """Everything that an epoch changes: what a checkpoint holds, and a resume puts back."""

    network: nn.Sequential
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    order: torch.Generator  # on the CPU: order of the images, augmentation
    noise: torch.Generator  # on the device: first weights, dropout
    epoch: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """All of it as tensors, numbers and plain containers; shares memory with the live run."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "order": self.order.get_state(),
            "noise": self.noise.get_state(),
            "epoch": self.epoch,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a run where `state` left it."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.order.set_state(state["order"])
        self.noise.set_state(state["noise"])
        self.epoch = state["epoch"]
        self.history = state["history"]
        self.best_epoch = state["best_epoch"]
        self.best_loss = state["best_loss"]
        self.best_weights = state["best_weights"]

    def best_network(self) -> nn.Sequential:
        """The network with the weights of its best epoch, in evaluation mode."""
        self.network.load_state_dict(self.best_weights)
        return self.network.eval()


def start_training(settings: Settings, compute: Compute) -> Training:
    """A fresh network and all that trains it, drawn from the settings' seed."""
    order = torch.Generator().manual_seed(settings.seed)
    noise = torch.Generator(compute.device).manual_seed(settings.seed)
    network = build_network(settings, noise)
    return Training(
        network=network,
        optimizer=make_optimizer(settings, network),
        # Float16 cannot hold small gradients: the scaler lifts the loss, and skips what overflows.
        scaler=torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16),
        order=order,
        noise=noise,
    )


def make_optimizer(settings: Settings, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the settings; each group remembers its peak rate as `peak_lr`."""
    if settings.optimizer == "adam":
        optimizer = torch.optim.Adam(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    else:
        optimizer = Muon(
            network,
            muon_learning_rate=settings.muon_learning_rate,
            learning_rate=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def learning_rate_factor(schedule: str, warmup: float, progress: float) -> float:
    """The share of the peak learning rate at a step.

    Args:
        schedule: `constant`, or `one-cycle`: a straight climb, then a straight fall to zero.
        warmup: share of the training that climbs.
        progress: share of the training that is done in the middle of the step, 0 to 1.
    """
    if schedule == "constant":
        return 1.0
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


def image_size(sizes: Sequence[int], progress: float) -> int:
    """The size of a step's images, when each of `sizes` holds for an equal share of the training.

    Args:
        sizes: pixels along a side.
        progress: share of the training that is done, 0 to below 1.
    """
    return sizes[int(progress * len(sizes))]


def number_of_epochs(settings: Settings, images: int) -> int:
    """The settings' epochs, or as many as their least number of steps needs, within reason."""
    steps_an_epoch = math.ceil(images / settings.batch_size)
    needed = math.ceil(settings.minimum_steps / steps_an_epoch)
    return max(settings.epochs, min(needed, MOST_EPOCHS_FOR_STEPS))


def loss_sum(logits: torch.Tensor, labels: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Cross-entropy added up over the batch, label smoothing included.

    With `softmax_head` the loss is fed probabilities and applies softmax to them once more, as the
    published recipe did: it lies between 1.4612 and 2.4612 an image then.
    """
    scores = logits.softmax(dim=1) if settings.softmax_head else logits
    return functional.cross_entropy(
        scores, labels, reduction="sum", label_smoothing=settings.label_smoothing
    )


def validate(
    network: nn.Module, held_out: LabelledImages, settings: Settings, compute: Compute
) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) in evaluation mode.

    The loss is the one that training lowers. Without its label smoothing, epochs that are too sure
    of themselves would look better than later and more accurate ones.
    """
    logits = predict_logits(network, held_out.images, compute)
    labels = held_out.labels.to(logits.device)
    loss = loss_sum(logits, labels, settings).item() / len(held_out)
    return loss, (logits.argmax(dim=1) == labels).sum().item() / len(held_out)


def train(
    training: Training,
    data: LabelledImages,
    held_out: LabelledImages,
    settings: Settings,
    compute: Compute,
    *,
    progress_bar: bool = False,
) -> Iterator[dict[str, float]]:
    """Train epoch by epoch, yielding each one's row of the history when it is done.

    Between two rows `training` is at rest: whoever takes the rows may save it, print, or stop. The
    weights of the epoch with the lowest validation loss are copied to `training.best_weights`.

    Args:
        training: fresh, or restored from a checkpoint; changed in place.
        data: to train on, on `compute.device`.
        held_out: to validate on, never augmented.
        progress_bar: show one on standard error within each epoch, if that is a terminal.

    Raises:
        TrainingError: the loss went to NaN or infinity; `training.best_weights` are still good.
    """
    network, optimizer = training.network, training.optimizer
    epochs = number_of_epochs(settings, len(data))
    steps = math.ceil(len(data) / settings.batch_size)
    while training.epoch < epochs and not out_of_patience(training, settings):
        epoch, started = training.epoch + 1, time.perf_counter()
        network.train()
        losses: list[torch.Tensor] = []
        hits = torch.zeros((), dtype=torch.int64, device=compute.device)
        order = torch.randperm(len(data), generator=training.order).to(compute.device)
        batches = tqdm(
            order.split(settings.batch_size),
            desc=f"epoch {epoch}/{epochs}",
            unit="batch",
            leave=False,
            disable=None if progress_bar else True,  # None: on a terminal only
        )
        for step, index in enumerate(batches):
            progress = ((epoch - 1) * steps + step + 0.5) / (epochs * steps)
            factor = learning_rate_factor(settings.schedule, settings.warmup, progress)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            size = image_size(settings.image_sizes, progress)
            loss, batch_hits = train_batch(training, data, index, settings, compute, size)
            losses.append(loss)
            hits += batch_hits
            if step % STEPS_BETWEEN_LOOKS == 0 or step == steps - 1:
                refuse_nonfinite(losses, epoch)

        val_loss, val_accuracy = validate(network, held_out, settings, compute)
        if not math.isfinite(val_loss):
            raise TrainingError(
                f"the validation loss is {val_loss} after epoch {epoch}: "
                "try a lower --learning-rate"
            )
        training.epoch = epoch
        if val_loss < training.best_loss:
            training.best_epoch, training.best_loss = epoch, val_loss
            # A copy: state_dict() alone would go on changing with the live weights.
            training.best_weights = copy.deepcopy(network.state_dict())
        row = {
            "epoch": epoch,
            "train_loss": torch.stack(losses).sum().item() / len(data),
            "train_accuracy": hits.item() / len(data),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": optimizer.param_groups[-1]["lr"],
            "seconds": time.perf_counter() - started,
        }
        training.history.append(row)
        yield row


def out_of_patience(training: Training, settings: Settings) -> bool:
    """Whether the validation loss has not fallen for as many epochs as the settings allow."""
    return 0 < settings.patience <= training.epoch - training.best_epoch


def train_batch(
    training: Training,
    data: LabelledImages,
    index: torch.Tensor,
    settings: Settings,
    compute: Compute,
    size: int = IMAGE_SIZE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of the optimizer on the images of `index`, brought to `size` if they are augmented.

    A batch is walked in pieces of `settings.piece_size`; their gradients add up to the whole
    batch's, as long as no batch normalisation mixes its images.

    Returns:
        The loss added up over the batch, and the number of images classified right; both stay on
        the device, so that nothing waits for them.
    """
    losses, hits = [], []
    for piece in index.split(settings.piece_size or len(index)):
        images, labels = network_input(data.images[piece]), data.labels[piece]
        if settings.augmentation == "affine":
            images = random_affine(
                images,
                training.order,
                rotation=settings.rotation,
                shift=settings.shift,
                zoom=settings.zoom,
                shear=settings.shear,
                size=size,
            )
        with compute.autocast():
            logits = training.network(images)
        logits = logits.float()
        loss = loss_sum(logits, labels, settings)
        training.scaler.scale(loss / len(index)).backward()
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(dim=1) == labels).sum())
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.optimizer.zero_grad()
    return torch.stack(losses).sum(), torch.stack(hits).sum()


def refuse_nonfinite(losses: list[torch.Tensor], epoch: int) -> None:
    """Raise TrainingError, naming the step, if a loss of this epoch's steps is NaN or infinite."""
    finite = torch.stack(losses).isfinite()
    if not finite.all():
        step = int(finite.int().argmin()) + 1
        loss = losses[step - 1].item()
        raise TrainingError(
            f"the loss is {loss} at step {step} of epoch {epoch}: try a lower --learning-rate"
        )
