from __future__ import annotations

import pytest
import torch

from digitkaggle.core.networks import build_network
from digitkaggle.core.settings import PRESETS
from tests.core import same, seeded

COUNTS = {
    "fast": 61_050,
    "balanced": 278_890,
    "best": 278_890,
    "record": 625690,
    "classic": 1_805_130,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_presets_network_has_its_parameters_and_gives_ten_logits(preset):
    network = build_network(PRESETS[preset], seeded()).eval()
    assert sum(p.numel() for p in network.parameters()) == COUNTS[preset]
    assert network(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_the_compact_networks_stages_have_their_shapes_at_any_size_of_image():
    network, shapes = build_network(PRESETS["fast"], seeded()).eval(), []
    for layer in network:
        if isinstance(layer, torch.nn.ReLU):
            layer.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape[1:])))
    network(torch.zeros(2, 1, 28, 28))
    assert shapes == [(16, 14, 14), (32, 6, 6), (64, 6, 6), (64, 4, 4)]
    assert network(torch.zeros(2, 1, 15, 15)).shape == (2, 10)


def test_weights_come_from_the_generator_alone_and_are_spread_as_torch_spreads_them():
    torch.manual_seed(1)
    first = build_network(PRESETS["classic"], seeded(5)).state_dict()
    torch.manual_seed(2)
    assert same(first, build_network(PRESETS["classic"], seeded(5)).state_dict())
    other = build_network(PRESETS["classic"], seeded(6)).state_dict()
    assert not torch.equal(first["9.weight"], other["9.weight"])
    bound = 1 / 6400**0.5
    assert first["9.weight"].abs().max() <= bound
    assert first["9.weight"].std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
