from __future__ import annotations

import copy

import pytest
import torch

from digitkaggle.networks import SeededDropout, build_network, layer_table
from digitkaggle.optimizers import Muon, orthogonalised
from digitkaggle.settings import PRESETS, make_settings


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_classic_network_has_the_published_layers_and_shapes():
    table = layer_table(build_network(PRESETS["classic"], seeded())).splitlines()
    rows = [" ".join(line.split()) for line in table]
    assert rows == [
        "layer output parameters",
        "input 1 x 28 x 28",
        "convolution 5 x 5 64 x 24 x 24 1,664",
        "ReLU 64 x 24 x 24",
        "dropout 0.5 64 x 24 x 24",
        "max pooling 2 x 2 64 x 12 x 12",
        "convolution 3 x 3 256 x 10 x 10 147,712",
        "ReLU 256 x 10 x 10",
        "dropout 0.5 256 x 10 x 10",
        "max pooling 2 x 2 256 x 5 x 5",
        "flatten 6400",
        "linear 256 1,638,656",
        "ReLU 256",
        "dropout 0.5 256",
        "linear 64 16,448",
        "ReLU 64",
        "dropout 0.5 64",
        "linear 10 650",
        "total 1,805,130",
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_network_that_gives_ten_logits(preset):
    network = build_network(PRESETS[preset], seeded()).eval()
    logits = network(torch.zeros(3, 1, 28, 28))
    assert logits.shape == (3, 10)
    assert layer_table(network).splitlines()[-1].startswith("total")


def test_weights_come_from_the_generator_alone():
    settings = PRESETS["fast"]
    torch.manual_seed(1)
    first = build_network(settings, seeded(5)).state_dict()
    torch.manual_seed(2)
    second = build_network(settings, seeded(5)).state_dict()
    other = build_network(settings, seeded(6)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_first_weights_are_spread_as_torch_spreads_them():
    weight = build_network(PRESETS["classic"], seeded())[9].weight
    bound = 1 / 6400**0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


def test_dropout_drops_its_share_keeps_the_mean_and_obeys_its_generator():
    values = torch.ones(100, 1000)
    dropped = SeededDropout(0.3, seeded(1))(values)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropped, SeededDropout(0.3, seeded(1))(values))
    assert torch.equal(SeededDropout(0.3, seeded(1)).eval()(values), values)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_is_even_over_places_and_passes_gradients_where_it_passes_values(
    probability, memory_format
):
    values = torch.ones(500, 3, 5, 7).contiguous(memory_format=memory_format).requires_grad_()
    dropped = SeededDropout(probability, seeded(2))(values)
    assert dropped.is_contiguous(memory_format=memory_format)
    shares = (dropped == 0).float().mean(dim=0)
    # Each place saw 500 draws: six standard errors either way.
    assert (shares - probability).abs().max() < 6 * (probability * (1 - probability) / 500) ** 0.5
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


@pytest.mark.parametrize("shape", [(16, 9), (9, 16), (32, 288)])
def test_orthogonalising_brings_all_singular_values_near_one_and_turns_nothing(shape):
    matrix = torch.randn(*shape, generator=seeded())
    result = orthogonalised(matrix, iterations=5)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    singular = torch.linalg.svdvals(result)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    # In the basis of the matrix itself the result is diagonal.
    diagonal = left.T @ result @ right.T
    off = diagonal - torch.diag(diagonal.diagonal())
    assert off.abs().max() < 1e-3


def test_muon_steps_inner_convolutions_by_orthogonal_matrices_and_the_rest_by_nesterov():
    network = build_network(
        make_settings("fast", {"widths": (4, 6, 8), "depths": (1, 1)}), seeded()
    )
    before = copy.deepcopy(network.state_dict())
    options = {"learning_rate": 0.1, "muon_learning_rate": 0.2}
    optimizer = Muon(network, **options, momentum=0.6, weight_decay=0.01)
    network(torch.rand(8, 1, 28, 28, generator=seeded())).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    optimizer.step()
    after = network.state_dict()
    head = before["13.weight"]
    # A first step: velocity is the gradient, so Nesterov's look-ahead makes it 1 + momentum.
    expected = head - 0.1 * 1.6 * (gradients["13.weight"] + 0.01 * head)
    torch.testing.assert_close(after["13.weight"], expected)
    inner = before["3.weight"]
    start = inner * (len(inner) ** 0.5 / inner.norm())
    direction = orthogonalised((1.6 * gradients["3.weight"]).reshape(len(inner), -1))
    torch.testing.assert_close(after["3.weight"], start - 0.2 * direction.view_as(start))
