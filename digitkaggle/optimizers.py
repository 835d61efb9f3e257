"""Muon, with Nesterov SGD for what Muon is not made for, in one optimizer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


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
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised on inner convolutions; plain Nesterov SGD on all other parameters.

    torch's own Muon is missing before 2.9 and takes matrices only. As in airbench94_muon, a
    convolution's filters are also held at one norm, which takes the place of weight decay.

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
        groups = [
            {"params": inner, "lr": muon_learning_rate, "orthogonal": True},
            {"params": others, "lr": learning_rate, "orthogonal": False},
        ]
        super().__init__(
            [group for group in groups if group["params"]],
            {"momentum": momentum, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step from the gradients that the parameters hold."""
        for group in self.param_groups:
            for parameter in _with_gradients(group["params"]):
                gradient = parameter.grad
                if not group["orthogonal"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                velocity = self.state[parameter].setdefault("velocity", torch.zeros_like(parameter))
                velocity.mul_(group["momentum"]).add_(gradient)
                update = gradient.add(velocity, alpha=group["momentum"])
                if group["orthogonal"]:
                    filters = len(parameter)
                    parameter.mul_(filters**0.5 / parameter.norm())
                    update = orthogonalised(update.reshape(filters, -1)).view_as(update)
                parameter.add_(update, alpha=-group["lr"])


def _with_gradients(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.grad is not None]
