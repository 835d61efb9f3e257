from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from digitkaggle.core.networks import build_network
from digitkaggle.core.optimizers import Muon, make_optimizer, newton_schulz
from digitkaggle.core.settings import PRESETS, make_settings
from tests.core import make_generator


@pytest.mark.parametrize("shape", [(16, 9), (9, 16), (32, 288)])
def test_newton_schulz_brings_all_singular_values_near_one_and_keeps_the_singular_vectors(shape):
    matrix = torch.randn(*shape, generator=make_generator())
    result = newton_schulz(matrix[None], iterations=5)[0]
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    singular = torch.linalg.svdvals(result)
    assert 0.6 < singular.min() <= singular.max() < 1.3
    # In the basis of the matrix itself the result is diagonal.
    diagonal = left.T @ result @ right.T
    assert (diagonal - torch.diag(diagonal.diagonal())).abs().max() < 1e-3


def test_muon_steps_as_its_formulas_do():
    changes = {"widths": (4, 6, 8), "depths": (1, 1), "learning_rate": 0.1, "momentum": 0.6}
    settings = make_settings("fast", changes | {"muon_learning_rate": 0.2, "weight_decay": 0.01})
    network = build_network(settings, make_generator())
    images = torch.rand(8, 1, 28, 28, generator=make_generator())
    optimizer = Muon(network, settings)
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
                update = 2 * newton_schulz(update.flatten(1)[None]).view_as(weight)
            weights[name] = weight - 0.1 * update
        optimizer.step()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.detach(), weights[name], msg=name)


def test_an_unknown_optimizer_is_an_error():
    network = build_network(PRESETS["fast"], make_generator())
    settings = SimpleNamespace(**vars(PRESETS["fast"]) | {"optimizer": "sgd"})
    with pytest.raises(ValueError, match="no optimizer 'sgd'"):
        make_optimizer(settings, network)
