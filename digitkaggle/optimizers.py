"""Muon, with Nesterov SGD for what Muon is not made for, in one optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .settings import Settings


def orthogonalised(matrix: torch.Tensor, iterations: int = 3) -> torch.Tensor:
    """About the nearest matrix whose singular values are all 1, by Newton-Schulz iteration.

    The quintic's coefficients are Keller Jordan's (https://kellerjordan.github.io/posts/muon/):
    they climb fastest from small singular values, and leave them between 0.7 and 1.2, not at 1.

    Args:
        matrix: float, rows x columns.

    Returns:
        The same shape and dtype.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = wide @ wide.T
        polynomial = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        wide = torch.addmm(wide, polynomial, wide, beta=3.4445)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


class Muon:
    """Momentum orthogonalised on inner convolutions; plain Nesterov SGD on all other parameters.

    torch's own Muon is missing before 2.9 and takes matrices only. As in airbench94_muon, a
    convolution's filters are also held at one norm, which takes the place of weight decay.

    It has what a loop needs of `torch.optim.Optimizer` and is none: making one imports torch's
    compiler, which takes two seconds, more than an epoch of a small network on a GPU.

    Args:
        network: what to train; its convolutions of more than one input channel take Muon.
        muon_learning_rate: of those convolutions.
        learning_rate: of everything else.
        momentum: of both.
        weight_decay: L2 penalty on everything else.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        muon_learning_rate: float,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        inner = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1]
        others = [p for p in network.parameters() if p.ndim != 4 or p.shape[1] == 1]
        groups: list[dict[str, Any]] = [
            {"params": inner, "lr": muon_learning_rate, "orthogonal": True},
            {"params": others, "lr": learning_rate, "orthogonal": False},
        ]
        self.param_groups = [group for group in groups if group["params"]]
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.velocities = {
            parameter: torch.zeros_like(parameter)
            for group in self.param_groups
            for parameter in group["params"]
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.velocities:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the velocities in order, which are the live ones."""
        return {"velocities": list(self.velocities.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the velocities that `state_dict` gave.

        Raises:
            ValueError, RuntimeError: they are not those of such a network.
        """
        for velocity, kept in zip(self.velocities.values(), state["velocities"], strict=True):
            velocity.copy_(kept)

    @torch.no_grad()
    def step(self) -> None:
        """One step from the gradients that the parameters hold."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, velocity = parameter.grad, self.velocities[parameter]
                if not group["orthogonal"]:
                    gradient = gradient.add(parameter, alpha=self.weight_decay)
                velocity.mul_(self.momentum).add_(gradient)
                update = gradient.add(velocity, alpha=self.momentum)
                if group["orthogonal"]:
                    filters = len(parameter)
                    parameter.mul_(filters**0.5 / parameter.norm())
                    update = orthogonalised(update.reshape(filters, -1)).view_as(update)
                parameter.add_(update, alpha=-group["lr"])


def make_optimizer(settings: Settings, network: nn.Module) -> Muon | torch.optim.Optimizer:
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
