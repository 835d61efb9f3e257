from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from digitkaggle.core.layers import BatchNorm, SeededDropout
from digitkaggle.core.networks import build_network
from digitkaggle.core.settings import PRESETS, make_settings
from tests.core import are_equal, make_generator

COUNTS = {
    "fast": 61_050,
    "balanced": 278_890,
    "best": 278_890,
    "record": 625690,
    "classic": 1_805_130,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_presets_network_has_its_parameters_and_gives_ten_logits(preset):
    network = build_network(PRESETS[preset], make_generator()).eval()
    assert sum(p.numel() for p in network.parameters()) == COUNTS[preset]
    assert network(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize(
    ("depths", "shapes"),
    [
        ((1, 2), [(16, 14, 14), (32, 6, 6), (64, 6, 6), (64, 4, 4)]),
        ((2, 1), [(16, 14, 14), (32, 12, 12), (32, 6, 6), (64, 4, 4)]),
        ((3, 3), [(16, 14, 14), *[(32, 12, 12)] * 2, (32, 6, 6), *[(64, 6, 6)] * 2, (64, 4, 4)]),
    ],
)
def test_the_compact_networks_stages_have_their_shapes_and_take_images_of_any_size(depths, shapes):
    network, found = build_network(make_settings("fast", {"depths": depths}), make_generator()), []
    for layer in network.eval():
        if isinstance(layer, torch.nn.ReLU):
            layer.register_forward_hook(lambda *call: found.append(tuple(call[2].shape[1:])))
    network(torch.zeros(2, 1, 28, 28))
    assert found == shapes
    assert network(torch.zeros(2, 1, 15, 15)).shape == (2, 10)


def test_weights_depend_only_on_the_generator_and_have_torchs_default_distribution():
    torch.manual_seed(1)
    first = build_network(PRESETS["classic"], make_generator(5)).state_dict()
    torch.manual_seed(2)
    assert are_equal(first, build_network(PRESETS["classic"], make_generator(5)).state_dict())
    other = build_network(PRESETS["classic"], make_generator(6)).state_dict()
    assert not torch.equal(first["9.weight"], other["9.weight"])
    bound = 1 / 6400**0.5
    assert first["9.weight"].abs().max() <= bound
    assert first["9.weight"].std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


MAPS = torch.linspace(-1, 2, 2 * 3 * 4 * 4).view(2, 3, 4, 4)


def test_an_unknown_network_is_an_error():
    settings = SimpleNamespace(**vars(PRESETS["fast"]) | {"network": "resnet"})
    with pytest.raises(ValueError, match="no network 'resnet'"):
        build_network(settings, make_generator())


def test_batch_normalization_takes_a_lone_image_by_the_statistics_so_far():
    ours, torchs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    torch.testing.assert_close(ours(MAPS), torchs(MAPS))
    lone = MAPS[:1, :, :1, :1]
    torch.testing.assert_close(ours(lone), torchs.eval()(lone))
    torch.testing.assert_close(ours.running_var, torchs.running_var)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_its_fraction_of_values_everywhere_and_of_gradients_too(
    probability, memory_format
):
    values = torch.ones(500, 3, 5, 7).contiguous(memory_format=memory_format).requires_grad_()
    dropout = SeededDropout(probability, make_generator(2))
    dropped = dropout(values)
    assert torch.equal(dropped, SeededDropout(probability, make_generator(2))(values))
    assert not torch.equal(dropped, dropout(values)), "each call draws a new mask"
    assert dropout.eval()(values) is values
    fractions = (dropped == 0).float().mean(dim=0)
    # Each place has 500 draws: six standard errors either way.
    assert fractions.mean().item() == pytest.approx(probability, abs=0.01)
    limit = 6 * (probability * (1 - probability) / 500) ** 0.5
    assert (fractions - probability).abs().max() < limit
    assert dropped.max().item() == pytest.approx(1 / (1 - probability)), "the mean is unchanged"
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())
