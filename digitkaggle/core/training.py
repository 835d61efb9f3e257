"""Training.

One loop that fits on one screen. Three things besides Muon make it fast: a one-cycle schedule,
small images first, and label smoothing. The result is a copy of the weights of the epoch with the
lowest validation loss."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from .augment import augment
from .basics import Compute, LabeledImages, TrainingError
from .networks import build_network
from .optimizers import Muon, make_optimizer
from .settings import Settings

PREDICTION_BATCH = 1000  # limits the memory that prediction takes, and keeps any device busy
MOST_EPOCHS_FOR_STEPS = 100  # more would only memorize a handful of images


@dataclass
class Training:
    """Everything that training needs and changes, except the images."""

    settings: Settings
    compute: Compute
    network: nn.Sequential
    optimizer: Muon | torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    cpu_generator: torch.Generator  # order of the images; on a CPU also augmentation
    device_generator: torch.Generator  # first weights, dropout; on a GPU also augmentation
    epochs: int  # the plan; whoever iterates over `train` may lower it between two epochs
    epoch: int = 0  # epochs done
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_logits: Tensor | None = None  # of the held-out images by these weights, at full size


def start_training(settings: Settings, compute: Compute, images: int) -> Training:
    """A new network and all that trains it on N images, seeded by the settings."""
    cpu_generator = torch.Generator().manual_seed(settings.seed)
    device_generator = torch.Generator(compute.device).manual_seed(settings.seed)
    network = build_network(settings, device_generator, compute.memory_format)
    optimizer = make_optimizer(settings, network)
    # Small gradients vanish in float16: the scaler multiplies the loss, by less after an overflow.
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
    # Few images make few steps per epoch, so they need more epochs for the same training.
    needed = math.ceil(settings.minimum_steps / math.ceil(images / settings.batch_size))
    epochs = max(settings.epochs, min(needed, MOST_EPOCHS_FOR_STEPS))
    return Training(
        settings, compute, network, optimizer, scaler, cpu_generator, device_generator, epochs
    )


def train(
    training: Training, data: LabeledImages, held_out: LabeledImages | None
) -> Iterator[dict[str, float]]:
    """Train epoch by epoch, and yield each epoch's row of the history when it is done.

    Changes `training` in place; between two rows whoever iterates may save it, print, or stop. The
    data are on its device. Without held-out images the last epoch counts as the best. Raises
    TrainingError if the loss is NaN or infinite.
    """
    from .console import show_progress
    from .device import make_step

    network, optimizer, settings = training.network, training.optimizer, training.settings
    step = make_step(training, data)
    validates = held_out is not None and len(held_out) > 0
    while training.epoch < training.epochs:
        if 0 < settings.patience <= training.epoch - training.best_epoch:
            break
        epoch, started = training.epoch + 1, time.perf_counter()
        network.train()
        losses, correct = [], []
        # Drawn on the CPU, so that the order is the same on every device.
        order = torch.randperm(len(data), generator=training.cpu_generator).to(data.labels.device)
        batches = order.split(settings.batch_size)

        for batch in show_progress(batches, desc=f"epoch {epoch}/{training.epochs}"):
            steps = training.epoch * len(batches) + len(losses)
            fraction_done = (steps + 0.5) / (training.epochs * len(batches))
            for group in optimizer.param_groups:
                rate = group["peak_lr"] * learning_rate_factor(settings, fraction_done)
                on_device = isinstance(group["lr"], Tensor)  # where replayed CUDA graphs read it
                group["lr"] = group["lr"].fill_(rate) if on_device else rate
            # Small images first: they cost less and teach nearly all that can be learned early. Two
            # epochs at 28 x 28, which take about as long, lose 0.14 points (standard error 0.02).
            size = settings.image_sizes[int(fraction_done * len(settings.image_sizes))]
            loss, hits = step(batch, size)
            # Tensors, not numbers: `.item()` would wait for the device at every step.
            losses.append(loss)
            correct.append(hits)

        logits, val_loss, val_accuracy = None, math.nan, math.nan
        if validates:
            # At the size of the last step: a network that saw only smaller images fails at 28 x 28.
            logits, val_loss, val_accuracy = validate(training, held_out, size)
        train_loss = torch.stack(losses).sum().item() / len(data)
        if not math.isfinite(train_loss) or (validates and not math.isfinite(val_loss)):
            raise TrainingError(f"the loss is nan in epoch {epoch}: try a lower --learning-rate")

        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_accuracy": torch.stack(correct).sum().item() / len(data),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": float(optimizer.param_groups[-1]["lr"]),
            "seconds": time.perf_counter() - started,
        }
        training.epoch = epoch
        training.history.append(row)
        # Losses at different sizes do not compare. So an epoch at a smaller size is kept, in case
        # time is up, but any later epoch replaces it.
        at_full_size = size == settings.image_sizes[-1]
        if not validates or not at_full_size or val_loss < training.best_loss:
            training.best_epoch = epoch
            training.best_loss = val_loss if at_full_size else math.inf
            # A copy: the tensors of state_dict() itself change as training continues.
            training.best_weights = copy.deepcopy(network.state_dict())
            training.best_logits = logits if at_full_size else None
        yield row


def learning_rate_factor(settings: Settings, fraction_done: float) -> float:
    """The factor on the peak learning rate when a fraction (0 to 1) of the training is done."""
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "one-cycle":
        # Linear up, then linear down to zero. A constant rate loses `fast` 1.1 points.
        if fraction_done < settings.warmup:
            return fraction_done / settings.warmup
        return (1 - fraction_done) / (1 - settings.warmup)
    raise ValueError(f"there is no schedule {settings.schedule!r}")


def train_batch(
    training: Training, data: LabeledImages, batch: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """One step of the optimizer on the images of a batch's index, resampled to `size`.

    Returns the sum of the losses and the number of correct predictions, as tensors on the device.
    """
    settings, compute, losses, hits = training.settings, training.compute, [], []
    on_cpu = compute.device.type == "cpu"
    generator = training.cpu_generator if on_cpu else training.device_generator
    training.network.zero_grad()
    # Gradients of pieces add up to the batch's, except that batch normalization sees only a piece.
    for piece in batch.split(settings.piece_size or len(batch)):
        images = prepare_input(data.images[piece], compute.memory_format)
        images, labels = augment(images, settings, generator, size), data.labels[piece]
        # A first layer that has seen small images knows its strokes. Not to train it on larger ones
        # saves a seventh of the time of `fast` in float32 for 0.02 points, which is within noise.
        frozen = settings.frozen_layers if size > settings.image_sizes[0] else 0
        with compute.autocast():
            with torch.no_grad():
                images = training.network[:frozen](images)
            logits = training.network[frozen:](images)
        logits = logits.float()
        loss = compute_loss_sum(logits, labels, settings)
        training.scaler.scale(loss / len(batch)).backward()
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(dim=1) == labels).sum())
    training.scaler.step(training.optimizer)
    training.scaler.update()
    return torch.stack(losses).sum(), torch.stack(hits).sum()


def prepare_input(images: Tensor, memory_format=torch.channels_last) -> Tensor:
    """Stored images as a network's input: uint8 becomes float32 from 0 to 1; float stays."""
    pixels = images.float().div_(255) if images.dtype == torch.uint8 else images
    return pixels.contiguous(memory_format=memory_format)


def compute_loss_sum(logits: Tensor, labels: Tensor, settings: Settings) -> Tensor:
    """The sum of the cross-entropy over the batch, with label smoothing."""
    # The published recipe applies softmax before a loss that applies it again. That bounds the loss
    # to 1.4612 to 2.4612 per image.
    scores = logits.softmax(dim=1) if settings.softmax_head else logits
    # Smoothing asks for 91 % in place of 100 %: 0.13 points (standard error 0.02).
    smoothing = settings.label_smoothing
    return functional.cross_entropy(scores, labels, reduction="sum", label_smoothing=smoothing)


def validate(training: Training, held_out: LabeledImages, size: int) -> tuple[Tensor, float, float]:
    """Logits, mean loss and accuracy (0 to 1) in evaluation mode, on images of a size."""
    from .affine import resize

    transform = partial(resize, size=size)
    logits = predict_logits(training.network, held_out.images, training.compute, transform)
    labels = held_out.labels.to(logits.device)
    # With label smoothing: the plain loss would choose epoch 5 of a run, at 99.14 %, over epoch 8,
    # at 99.45 %, because smoothed networks become less confident as they improve.
    loss = compute_loss_sum(logits, labels, training.settings).item() / len(labels)
    return logits, loss, (logits.argmax(dim=1) == labels).sum().item() / len(labels)


@torch.no_grad()
def predict_logits(
    network: nn.Module, images: Tensor, compute: Compute, transform: Callable = torch.positive
) -> Tensor:
    """Logits, float32, N x 10 on the network's device, of transformed images on any device."""
    network.eval()
    logits = []
    for batch in images.split(PREDICTION_BATCH):
        pixels = transform(prepare_input(batch.to(compute.device), compute.memory_format))
        with compute.autocast():
            logits.append(network(pixels).float())
    return torch.cat(logits)
