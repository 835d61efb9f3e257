"""The training loop: one plain function, an epoch at a time, the best validated weights kept.

It comes to rest where it is asked to, in mid-epoch too, and goes on from there to the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional

from .augment import augmented
from .device import Compute, is_out_of_memory
from .digits import IMAGE_SIZE
from .errors import InputError, TrainingError
from .log import logger
from .networks import build_network
from .optimizers import make_optimizer
from .prediction import network_input, predict_logits
from .progress import make_bar
from .settings import Settings
from .training_set import LabelledImages
from .training_state import Training

# How many steps may pass before a loss that is no number is noticed: looking waits for the device.
STEPS_BETWEEN_LOOKS = 25
# A handful of images gets no more epochs than this for its steps: it knows them by heart then.
MOST_EPOCHS_FOR_STEPS = 100


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
        piece_size=settings.piece_size,
    )


def progress_of(step: int, steps: int, *, begun: int, time_spent: float) -> float:
    """How far a training is in the middle of a step, 0 to 1: by steps, or by time if that is ahead.

    Where time is short its share overtakes that of the steps, so that the schedule ends with it.

    Args:
        step: steps done before this one, in all epochs.
        steps: how many there will be, if time allows.
        begun: steps that were done when the clock began; they took none of its time.
        time_spent: share of the time since then, 0 to 1 or more; 0 where there is no hurry.
    """
    by_steps = (step + 0.5) / steps
    by_time = begun / steps + (1 - begun / steps) * min(time_spent, 1.0)
    return max(by_steps, by_time)


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
        progress: share of the training that is done, 0 to 1.
    """
    return sizes[min(int(progress * len(sizes)), len(sizes) - 1)]


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
    held_out: LabelledImages | None,
    settings: Settings,
    compute: Compute,
    *,
    progress_bar: bool = False,
    pause: Callable[[], bool] = lambda: False,
    time_spent: Callable[[], float] = lambda: 0.0,
    step: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None = None,
    validation: Callable[..., tuple[float, float]] | None = None,
) -> Iterator[dict[str, float] | None]:
    """Train epoch by epoch, yielding each one's row of the history when it is done.

    Between two rows `training` is at rest: whoever takes the rows may save it, print, or stop. The
    weights of the epoch with the lowest validation loss are copied to `training.best_weights`.

    Args:
        training: fresh, or restored from a checkpoint; changed in place.
        data: to train on, on `compute.device`.
        held_out: to validate on, never augmented. None: nothing is validated, the row's figures of
            validation are NaN, and the last epoch is the best.
        progress_bar: show one on standard error within each epoch, if that is a terminal.
        pause: asked after each step; where it says so, `training` comes to rest within the epoch,
            and None is yielded.
        time_spent: asked after each step for the share of the time there is; 1 or more ends the
            epoch and the training, whose schedule ends in time.
        step: takes the place of `train_batch_within_memory`.
        validation: takes the place of `validate`.

    Raises:
        TrainingError: the loss went to NaN or infinity; `training.best_weights` are still good.
        InputError: the device has no memory for a single image.
    """
    network, optimizer = training.network, training.optimizer
    step, validation = step or train_batch_within_memory, validation or validate
    epochs = number_of_epochs(settings, len(data))
    steps = math.ceil(len(data) / settings.batch_size)
    begun = training.epoch * steps + len(training.losses)
    spent = time_spent()
    while training.epoch < epochs and not (
        training.out_of_time or out_of_patience(training, settings)
    ):
        epoch, started = training.epoch + 1, time.perf_counter()
        network.train()
        if not training.losses:
            training.images_order = torch.randperm(len(data), generator=training.order)
        batches = training.images_order.to(compute.device).split(settings.batch_size)
        for index in make_bar(
            batches[len(training.losses) :],
            shown=progress_bar,
            desc=f"epoch {epoch}/{epochs}",
            unit="batch",
            initial=len(training.losses),
            total=steps,
            delay=0,
        ):
            done = training.epoch * steps + len(training.losses)
            progress = progress_of(done, epochs * steps, begun=begun, time_spent=spent)
            factor = learning_rate_factor(settings.schedule, settings.warmup, progress)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            size = image_size(settings.image_sizes, progress)
            loss, hits = step(training, data, index, settings, compute, size)
            training.losses.append(loss)
            training.hits.append(hits)
            spent, taken = time_spent(), len(training.losses)
            training.out_of_time = spent >= 1 and (epoch, taken) != (epochs, steps)
            if training.out_of_time:
                break
            if taken % STEPS_BETWEEN_LOOKS == 0:
                refuse_nonfinite(training.losses, epoch)
            if taken < steps and pause():
                refuse_nonfinite(training.losses, epoch)
                training.seconds += time.perf_counter() - started
                yield None
                started = time.perf_counter()

        refuse_nonfinite(training.losses, epoch)
        val_loss, val_accuracy = math.nan, math.nan
        if held_out is not None:
            val_loss, val_accuracy = validation(network, held_out, settings, compute)
        if held_out is not None and not math.isfinite(val_loss):
            raise TrainingError(
                f"the validation loss is {val_loss} after epoch {epoch}: "
                "try a lower --learning-rate"
            )
        images = min(len(training.losses) * settings.batch_size, len(data))
        row = {
            "epoch": epoch,
            "train_loss": torch.stack(training.losses).sum().item() / images,
            "train_accuracy": torch.stack(training.hits).sum().item() / images,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": optimizer.param_groups[-1]["lr"],
            "seconds": training.seconds + time.perf_counter() - started,
        }
        training.finish_epoch(row)
        yield row


def out_of_patience(training: Training, settings: Settings) -> bool:
    """Whether the validation loss has not fallen for as many epochs as the settings allow."""
    return 0 < settings.patience <= training.epoch - training.best_epoch


def train_batch_within_memory(
    training: Training,
    data: LabelledImages,
    index: torch.Tensor,
    settings: Settings,
    compute: Compute,
    size: int = IMAGE_SIZE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`train_batch`, tried again in pieces of half the size for as long as memory runs out.

    Each try draws the same random numbers. Batch normalisation's running means may have seen the
    images of one that failed; with it the result is another in pieces anyway, which is said. No
    memory for a single image is an InputError.
    """
    while True:
        order, noise = training.order.get_state(), training.noise.get_state()
        try:
            return train_batch(training, data, index, settings, compute, size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler, whose traceback would hold what the failed try allocated.
        tried = min(training.piece_size or len(index), len(index))
        if tried == 1:
            raise InputError(
                f"the memory of {compute.device} has no room to train on a single image: free "
                "some, or choose a smaller network by --widths"
            )
        training.order.set_state(order)
        training.noise.set_state(noise)
        training.optimizer.zero_grad()
        training.piece_size = math.ceil(tried / 2)
        if compute.device.type == "cuda":
            torch.cuda.empty_cache()
        change = ", which changes the result, for batch normalisation sees a piece at a time"
        mixes = any(isinstance(layer, nn.BatchNorm2d) for layer in training.network)
        logger.warning(
            "A batch of %d does not fit the memory of %s: going on in pieces of %d%s.",
            *(len(index), compute.device, training.piece_size, change if mixes else ""),
        )


def train_batch(
    training: Training,
    data: LabelledImages,
    index: torch.Tensor,
    settings: Settings,
    compute: Compute,
    size: int = IMAGE_SIZE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of the optimizer on the images of `index`, brought to `size` if they are augmented.

    A batch is walked in pieces of `training.piece_size`; their gradients add up to the whole
    batch's, as long as no batch normalisation mixes its images.

    Returns:
        The loss added up over the batch, and the number of images classified right; both stay on
        the device, so that nothing waits for them.
    """
    losses, hits = [], []
    for piece in index.split(training.piece_size or len(index)):
        images, labels = network_input(data.images[piece]), data.labels[piece]
        images = augmented(images, settings, training.order, size)
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
