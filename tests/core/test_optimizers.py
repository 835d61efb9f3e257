from __future__ import annotations

import pytest
import torch

from digitkaggle.core.networks import build_network
from digitkaggle.core.optimizers import Muon, orthogonalised
from digitkaggle.core.settings import make_settings
from tests.core import seeded


@pytest.mark.parametrize("shape", [(16, 9), (9, 16), (32, 288)])
def test_orthogonalising_brings_all_singular_values_near_one_and_turns_nothing(shape):
    matrix = torch.randn(*shape, generator=seeded())
    result = orthogonalised(matrix[None], iterations=5)[0]
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    singular = torch.linalg.svdvals(result)
    assert 0.6 < singular.min() <= singular.max() < 1.3
    # In the basis of the matrix itself the result is diagonal.
    diagonal = left.T @ result @ right.T
    assert (diagonal - torch.diag(diagonal.diagonal())).abs().max() < 1e-3


def test_muon_steps_as_written_out_plainly():
    changes = {"widths": (4, 6, 8), "depths": (1, 1), "learning_rate": 0.1, "momentum": 0.6}
    settings = make_settings("fast", changes | {"muon_learning_rate": 0.2, "weight_decay": 0.01})
    network = build_network(settings, seeded())
    optimizer, images = Muon(network, settings), torch.rand(8, 1, 28, 28, generator=seeded())
    weights = {name: p.detach().clone() for name, p in network.named_parameters()}
    velocities, inner = dict.fromkeys(weights, 0.0), {"3.weight", "7.weight"}
    for _ in range(3):
        network.zero_grad()
        network(images).square().sum().backward()
        for name, parameter in network.named_parameters():
            weight = weights[name]
            gradient = parameter.grad + (0 if name in inner else 0.01 * weight)
            velocities[name] = 0.6 * velocities[name] + gradient
            update = gradient + 0.6 * velocities[name]  # Nesterov's look-ahead
            if name in inner:
                weight = weight * len(weight) ** 0.5 / weight.norm()
                update = 2 * orthogonalised(update.flatten(1)[None]).view_as(weight)
            weights[name] = weight - 0.1 * update
        optimizer.step()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.detach(), weights[name], msg=name)
