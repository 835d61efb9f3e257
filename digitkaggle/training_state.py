"""The state of a training: what its steps change, a checkpoint holds, and a resume puts back."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .optimizers import Muon

# Fields that a checkpoint holds otherwise than as they are: by what they say of themselves, ...
WITH_STATE_DICT = ("network", "optimizer", "scaler")
GENERATORS = ("order", "noise")
# ... as one tensor, a number for each step, ...
BY_STEP = ("losses", "hits")
# ... and not at all: a run that goes on has time of its own.
NOT_KEPT = ("out_of_time",)


@dataclass
class Training:
    """Everything that a step changes: what a checkpoint holds, and a resume puts back.

    A new field that holds plain values is kept and put back without further ado.
    """

    network: nn.Sequential
    optimizer: Muon | torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    order: torch.Generator  # on the CPU: order of the images, augmentation
    noise: torch.Generator  # on the device: first weights, dropout
    piece_size: int  # images at once; 0 is the whole batch
    epoch: int = 0  # done
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    # Of the epoch that is under way: its images' order, what its steps gave, its seconds so far.
    images_order: torch.Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    losses: list[torch.Tensor] = dataclasses.field(default_factory=list)
    hits: list[torch.Tensor] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    out_of_time: bool = False

    def finish_epoch(self, row: dict[str, float]) -> None:
        """Enter an epoch's row, keep its weights if they are the best so far, be ready for more."""
        self.epoch = int(row["epoch"])
        self.history.append(row)
        self.losses, self.hits, self.seconds = [], [], 0.0
        self.images_order = torch.empty(0)
        validated = not math.isnan(row["val_loss"])
        if row["val_loss"] < self.best_loss or not validated:
            self.best_epoch = self.epoch
            self.best_loss = row["val_loss"] if validated else math.inf
            # A copy: state_dict() alone would go on changing with the live weights.
            self.best_weights = copy.deepcopy(self.network.state_dict())

    def best_network(self) -> nn.Sequential:
        """The network with the weights of its best epoch, in evaluation mode."""
        self.network.load_state_dict(self.best_weights)
        return self.network.eval()

    def state(self) -> dict[str, Any]:
        """All of it as tensors, numbers and plain containers; shares memory with the live run."""
        kept = {name: getattr(self, name) for name in kept_fields()}
        kept |= {name: kept[name].state_dict() for name in WITH_STATE_DICT}
        kept |= {name: kept[name].get_state() for name in GENERATORS}
        for name in BY_STEP:
            kept[name] = torch.stack(kept[name]) if kept[name] else torch.empty(0)
        return kept

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a run where `state` left it; one that does not fit raises whatever it may."""
        plain = {name: state[name] for name in kept_fields()}
        self.network.load_state_dict(plain.pop("network"))
        self.optimizer.load_state_dict(plain.pop("optimizer"))
        # Empty where the numbers needed no scaling; a GPU's float16 may have come to need it.
        if scaler := plain.pop("scaler"):
            self.scaler.load_state_dict(scaler)
        self.order.set_state(plain.pop("order"))
        # Another kind of device has another generator: there dropout begins its draws anew.
        if (noise := plain.pop("noise")).shape == self.noise.get_state().shape:
            self.noise.set_state(noise)
        for name in BY_STEP:
            setattr(self, name, list(plain.pop(name).to(self.noise.device)))
        for name, value in plain.items():
            setattr(self, name, value)


def kept_fields() -> list[str]:
    """The fields of Training that a checkpoint holds, in their order."""
    return [field.name for field in dataclasses.fields(Training) if field.name not in NOT_KEPT]
