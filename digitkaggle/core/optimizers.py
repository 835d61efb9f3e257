"""The optimizer.

Muon steps each inner convolution by an orthogonalised gradient, so that no direction of its weights
is neglected; plain Nesterov SGD does the rest. With Adam `fast` loses 0.10 points (give or take
0.07, as always over three seeds and splits)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .settings import Settings


def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest ones, N x rows x columns, whose singular values are 1: Newton-Schulz."""
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = wide @ wide.mT
        # Keller Jordan's coefficients (https://kellerjordan.github.io/posts/muon/) climb fastest
        # from small singular values, and leave them between 0.7 and 1.2, not at 1.
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        wide = torch.baddbmm(wide, polynomial, wide, beta=3.4445)
    return wide.mT if tall else wide


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
        # Operations on lists: a GPU would wait longer for each to be launched than it takes.
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [parameter.grad for parameter in parameters]
            velocities = [self.velocities[parameter] for parameter in parameters]
            if self.found_inf is not None:  # an overflow counts as no gradient
                gradients = torch._foreach_mul(gradients, 1 / self.grad_scale)
                gradients = [g.masked_fill(self.found_inf > 0, 0) for g in gradients]
            if not group["orthogonal"]:
                gradients = torch._foreach_add(gradients, parameters, alpha=self.weight_decay)
            torch._foreach_mul_(velocities, self.momentum)
            torch._foreach_add_(velocities, gradients)
            updates = torch._foreach_add(gradients, velocities, alpha=self.momentum)
            if group["orthogonal"]:
                # The filters' norm is held, as in airbench94_muon, in place of weight decay.
                norms = torch._foreach_norm(parameters)
                sizes = [len(p) ** 0.5 / norm for p, norm in zip(parameters, norms, strict=True)]
                torch._foreach_mul_(parameters, sizes)
                updates = self.orthogonal(updates)
            if isinstance(group["lr"], Tensor):  # a recorded step reads it anew each time
                torch._foreach_sub_(parameters, torch._foreach_mul(updates, group["lr"]))
            else:
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    @staticmethod
    def orthogonal(updates: Sequence[Tensor]) -> list[Tensor]:
        """Each update orthogonalised, filters x the rest; those of one shape at once."""
        done = list(updates)
        for shape in {update.shape for update in updates}:
            places = [i for i, update in enumerate(updates) if update.shape == shape]
            together = torch.stack([updates[i].reshape(shape[0], -1) for i in places])
            for place, update in zip(places, orthogonalised(together), strict=True):
                done[place] = update.view(shape)
        return done


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
