"""The optimizer.

Muon replaces the gradient of each inner convolution by a nearby orthogonal matrix, so that no
direction of its weights is neglected. Nesterov SGD updates all other parameters. With Adam instead,
`fast` loses 0.10 points (standard error 0.07, over three seeds and splits)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .settings import Settings


def newton_schulz(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Roughly the nearest orthogonal matrices, N x rows x columns, by Newton-Schulz iterations."""
    # The products below are rows x rows, so the shorter side comes first.
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    # The iteration converges only from singular values of at most 1, which the norm ensures.
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = wide @ wide.mT
        # Keller Jordan's coefficients (https://kellerjordan.github.io/posts/muon/) grow small
        # singular values fastest. They end between 0.7 and 1.2, not at 1, which is good enough.
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        wide = torch.baddbmm(wide, polynomial, wide, beta=3.4445)
    return wide.mT if tall else wide


def orthogonalize_by_shape(updates: Sequence[Tensor]) -> list[Tensor]:
    """`newton_schulz` of each update as a matrix, filters x the rest; equal shapes in one call."""
    results = list(updates)
    for shape in {update.shape for update in updates}:
        indices = [i for i, update in enumerate(updates) if update.shape == shape]
        matrices = torch.stack([updates[i].reshape(shape[0], -1) for i in indices])
        for index, update in zip(indices, newton_schulz(matrices), strict=True):
            results[index] = update.view(shape)
    return results


class Muon:
    """Orthogonalized momentum for inner convolutions, Nesterov SGD for all other parameters."""

    # Not a torch.optim.Optimizer: to make one imports torch's compiler, which takes two seconds.

    # Tells GradScaler to leave scale and overflows to `step`, which keeps both on the device. torch
    # itself would wait for every step to end, to ask whether it overflowed.
    _step_supports_amp_scaling = True
    found_inf = None  # GradScaler sets it before a step, and then `grad_scale`, too

    def __init__(self, network: nn.Module, settings: Settings) -> None:
        # The first convolution has one input channel: nothing to orthogonalize.
        inner = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1]
        others = [p for p in network.parameters() if p.ndim != 4 or p.shape[1] == 1]
        groups: list[dict[str, Any]] = [
            {"params": inner, "lr": settings.muon_learning_rate, "orthogonalize": True},
            {"params": others, "lr": settings.learning_rate, "orthogonalize": False},
        ]
        self.param_groups = [group for group in groups if group["params"]]
        self.momentum, self.weight_decay = settings.momentum, settings.weight_decay
        parameters = (p for group in self.param_groups for p in group["params"])
        self.velocities = {parameter: torch.zeros_like(parameter) for parameter in parameters}

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters from the gradients that they hold."""
        # On lists of tensors: on a GPU a small operation takes less time than its launch.
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:  # all are frozen
                continue
            gradients = [parameter.grad for parameter in parameters]
            velocities = [self.velocities[parameter] for parameter in parameters]
            if self.found_inf is not None:  # after an overflow the gradient counts as zero
                gradients = torch._foreach_mul(gradients, 1 / self.grad_scale)
                gradients = [g.masked_fill(self.found_inf > 0, 0) for g in gradients]
            if not group["orthogonalize"]:
                gradients = torch._foreach_add(gradients, parameters, alpha=self.weight_decay)
            torch._foreach_mul_(velocities, self.momentum)
            torch._foreach_add_(velocities, gradients)
            # Nesterov: the gradient once more, as if the momentum had already moved on.
            updates = torch._foreach_add(gradients, velocities, alpha=self.momentum)
            if group["orthogonalize"]:
                # In place of weight decay the norm of the filters is fixed, as in airbench94_muon.
                norms = torch._foreach_norm(parameters)
                scales = [len(p) ** 0.5 / norm for p, norm in zip(parameters, norms, strict=True)]
                torch._foreach_mul_(parameters, scales)
                updates = orthogonalize_by_shape(updates)
            if isinstance(group["lr"], Tensor):  # replayed CUDA graphs read the rate from there
                torch._foreach_sub_(parameters, torch._foreach_mul(updates, group["lr"]))
            else:
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def make_optimizer(settings: Settings, network: nn.Module) -> Muon | torch.optim.Optimizer:
    """The optimizer that the settings name; each group keeps its peak rate as `peak_lr`."""
    from .classic import make_adam

    optimizer: Muon | torch.optim.Optimizer
    if settings.optimizer == "muon":
        optimizer = Muon(network, settings)
    elif settings.optimizer == "adam":
        optimizer = make_adam(network, settings.learning_rate, settings.weight_decay)
    else:
        raise ValueError(f"there is no optimizer {settings.optimizer!r}")
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer
