"""The optimizer.

Muon steps each inner convolution by an orthogonalised gradient, so that no direction of its weights
is neglected; plain Nesterov SGD does the rest. With Adam `fast` loses 0.20 points (give or take
0.04, as always over three seeds and splits)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .settings import Settings


def orthogonalised(matrix: Tensor, iterations: int = 3) -> Tensor:
    """About the nearest matrix whose singular values are all 1, by Newton-Schulz iteration."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = wide @ wide.T
        # Keller Jordan's coefficients (https://kellerjordan.github.io/posts/muon/) climb fastest
        # from small singular values, and leave them between 0.7 and 1.2, not at 1.
        polynomial = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        wide = torch.addmm(wide, polynomial, wide, beta=3.4445)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


class Muon:
    """Momentum orthogonalised on convolutions of several input channels; Nesterov SGD on the rest.

    It is no `torch.optim.Optimizer`: making one imports torch's compiler, which takes two seconds.
    """

    # GradScaler then leaves it to us to undo its scale and mind its overflows: both stay on the
    # device, where torch would wait for every step to end, to ask whether it overflowed.
    _step_supports_amp_scaling = True
    found_inf = None

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        inner = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1]
        others = [p for p in network.parameters() if p.ndim != 4 or p.shape[1] == 1]
        groups: list[dict[str, Any]] = [
            {"params": inner, "lr": settings.muon_learning_rate, "orthogonal": True},
            {"params": others, "lr": settings.learning_rate, "orthogonal": False},
        ]
        self.param_groups = [group for group in groups if group["params"]]
        self.momentum, self.weight_decay = settings.momentum, settings.weight_decay
        parameters = (p for group in self.param_groups for p in group["params"])
        self.velocities = {parameter: torch.zeros_like(parameter) for parameter in parameters}

    @torch.no_grad()
    def step(self) -> None:
        """One step from the gradients that the parameters hold."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, velocity = parameter.grad, self.velocities[parameter]
                if self.found_inf is not None:  # an overflow counts as no gradient
                    gradient = torch.where(self.found_inf > 0, 0, gradient / self.grad_scale)
                if not group["orthogonal"]:
                    gradient = gradient.add(parameter, alpha=self.weight_decay)
                velocity.mul_(self.momentum).add_(gradient)
                update = gradient.add(velocity, alpha=self.momentum)
                if group["orthogonal"]:
                    filters = len(parameter)
                    # The filters' norm is held, as in airbench94_muon, in place of weight decay.
                    parameter.mul_(filters**0.5 / parameter.norm())
                    update = orthogonalised(update.reshape(filters, -1)).view_as(update)
                parameter.add_(update, alpha=-group["lr"])


def make_optimizer(settings: Settings, network: nn.Module) -> Muon | torch.optim.Optimizer:
    """The optimizer of the settings; each group remembers its peak rate as `peak_lr`."""
    optimizer: Muon | torch.optim.Optimizer = Muon(network, settings)
    if settings.optimizer == "adam":
        rate, decay = settings.learning_rate, settings.weight_decay
        on_gpu = next(network.parameters()).is_cuda  # where `fused` minds overflows by itself
        optimizer = torch.optim.Adam(
            network.parameters(), lr=rate, weight_decay=decay, fused=on_gpu or None
        )
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer
