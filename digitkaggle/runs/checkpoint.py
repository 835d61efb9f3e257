"""The checkpoint that a resume needs: finished members, and the last epoch of unfinished ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ..core.basics import logger
from ..core.optimizers import Muon
from ..core.results import write_file
from ..core.run import Epochs, Member
from ..core.training import Training
from .folder import CHECKPOINT

# Made again from the settings at a resume. The plan of epochs too: a resume has its own time.
NOT_SAVED = ("settings", "compute", "epochs")
SAVED = [f.name for f in dataclasses.fields(Training) if f.name not in NOT_SAVED]


def get_checkpoint_file(folder: Path, part: str, number: int) -> Path:
    """The file of a finished `member`, or of the last epoch of its `training`."""
    return folder / CHECKPOINT / f"{part}-{number:04}.pt"


def resume_epochs(folder: Path, number: int, training: Training, epochs: Epochs) -> Epochs:
    """Wrap a member's epochs: restore the checkpoint before the first, save after each."""
    path = get_checkpoint_file(folder, "training", number)
    if state := load_state(path):
        restore_training(training, state)
        logger.info("Resuming after epoch %d, from the checkpoint in %s.", training.epoch, folder)
    for row in epochs:
        state = collect_state(training)
        write_file(path, lambda file, state=state: torch.save(state, file))
        yield row


def collect_state(training: Training) -> dict[str, Any]:
    """Every field of a training as tensors, numbers and plain containers; not copies."""
    return {name: get_state(getattr(training, name)) for name in SAVED}


def get_state(value: Any) -> Any:
    """A field's state: of a network, optimizer, scaler or generator, or the plain value itself."""
    if isinstance(value, Muon):
        return list(value.velocities.values())
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.state_dict() if hasattr(value, "state_dict") else value


def restore_training(training: Training, state: dict[str, Any]) -> None:
    """Continue a training from a state that `collect_state` returned."""
    for name in SAVED:
        current, saved = getattr(training, name), state[name]
        if isinstance(current, Muon):
            for velocity, value in zip(current.velocities.values(), saved, strict=True):
                velocity.copy_(value)
        elif isinstance(current, torch.Generator):
            # Another kind of device has another generator: its draws start again from the seed.
            if saved.shape == current.get_state().shape:
                current.set_state(saved)
        elif isinstance(current, torch.amp.GradScaler):
            if saved:  # empty if the dtype needed no scaling; a GPU's float16 may need it now
                current.load_state_dict(saved)
        elif hasattr(current, "load_state_dict"):
            current.load_state_dict(saved)
        else:
            setattr(training, name, saved)


def save_member(folder: Path, member: Member) -> None:
    """Save a finished member, and delete the checkpoint of its training."""
    path = get_checkpoint_file(folder, "member", member.number)
    write_file(path, lambda file: torch.save(dataclasses.asdict(member), file))
    get_checkpoint_file(folder, "training", member.number).unlink(missing_ok=True)


def load_member(folder: Path, number: int) -> Member | None:
    """A member that was finished before, or None."""
    state = load_state(get_checkpoint_file(folder, "member", number))
    return Member(**state) if state else None


def load_state(path: Path) -> dict[str, Any] | None:
    """A saved state; None if there is none, or (logged) if it is damaged."""
    if not path.exists():
        return None
    try:
        # To the CPU first: a run may resume where there is no GPU. Nothing in it is executed.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise all kinds over damaged files
        reason = str(error).partition("\n")[0][:100]
        logger.warning("%s cannot be read (%s): this part starts again.", path, reason)
        return None
