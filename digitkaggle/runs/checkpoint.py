"""What a resume needs, on disk: members that are done, and the last epoch of those that are not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..core.basics import logger
from ..core.optimizers import Muon
from ..core.results import write_file
from ..core.run import Epochs, Member
from ..core.training import Training
from .folder import CHECKPOINT

# Plain values; the plan of epochs is not among them, for a run that goes on has time of its own.
PLAIN = ("epoch", "history", "best_epoch", "best_loss", "best_weights")


def checkpoint_file(folder: Path, part: str, number: int) -> Path:
    """Where a `member` that is done is kept, or the last epoch of its `training`."""
    return folder / CHECKPOINT / f"{part}-{number:04}.pt"


def resumed(folder: Path, number: int, training: Training, epochs: Epochs) -> Epochs:
    """A watch: go on where the folder's checkpoint stops, and save after every epoch."""
    path = checkpoint_file(folder, "training", number)
    if state := load_state(path):
        restore(training, state)
        logger.info("Going on after epoch %d, from the checkpoint in %s.", training.epoch, folder)
    for row in epochs:
        write_file(path, lambda file: torch.save(training_state(training), file))
        yield row


def training_state(training: Training) -> dict[str, Any]:
    """A training as tensors, numbers and plain containers; shares memory with the live one."""
    optimizer = training.optimizer
    muon = isinstance(optimizer, Muon)
    return {name: getattr(training, name) for name in PLAIN} | {
        "network": training.network.state_dict(),
        "optimizer": list(optimizer.velocities.values()) if muon else optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "order": training.order.get_state(),
        "noise": training.noise.get_state(),
    }


def restore(training: Training, state: dict[str, Any]) -> None:
    """Take up a training where `state` left it."""
    optimizer = training.optimizer
    training.network.load_state_dict(state["network"])
    if isinstance(optimizer, Muon):
        for velocity, value in zip(optimizer.velocities.values(), state["optimizer"], strict=True):
            velocity.copy_(value)
    else:
        optimizer.load_state_dict(state["optimizer"])
    # Empty where the numbers needed no scaling; a GPU's float16 may have come to need it.
    if state["scaler"]:
        training.scaler.load_state_dict(state["scaler"])
    training.order.set_state(state["order"])
    # Another kind of device has another generator: there dropout begins its draws anew.
    if state["noise"].shape == training.noise.get_state().shape:
        training.noise.set_state(state["noise"])
    for name in PLAIN:
        setattr(training, name, state[name])


def save_member(folder: Path, member: Member) -> None:
    """Keep a member that is trained, whole; what its training kept goes."""
    path = checkpoint_file(folder, "member", member.number)
    write_file(path, lambda file: torch.save(asdict(member), file))
    checkpoint_file(folder, "training", member.number).unlink(missing_ok=True)


def load_member(folder: Path, number: int) -> Member | None:
    """A member that was trained before, if it was."""
    state = load_state(checkpoint_file(folder, "member", number))
    return Member(**state) if state else None


def load_state(path: Path) -> dict[str, Any] | None:
    """What was saved; None where nothing was, or where it is damaged, which is said."""
    if not path.exists():
        return None
    try:
        # Onto the CPU first: a run may go on where there is no GPU. Nothing in it is executed.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        reason = str(error).partition("\n")[0][:100]
        logger.warning("%s cannot be read (%s): that part starts anew.", path, reason)
        return None
