from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from digitkaggle.core.networks import MomentNormalisation, build_network
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


def blot(spread: float, lean: float, right: float, size: int) -> torch.Tensor:
    """Ink that deviates by 5 pixels of 28 up and down and by `spread` across, and leans right."""
    y = (((torch.arange(size) + 0.5) / size - 0.5) * 28)[:, None]
    return torch.exp(-0.5 * (((y.T - right + lean * y) / spread) ** 2 + (y / 5) ** 2))[None, None]


@given(
    spread=st.floats(2, 3.5),
    lean=st.floats(-0.4, 0.4),
    right=st.floats(-3, 3),
    width=st.integers(4, 8),
    size=st.sampled_from([20, 28]),
)
def test_ink_is_set_upright_in_the_middle_and_to_the_width(spread, lean, right, width, size):
    upright = MomentNormalisation(width)(blot(spread, lean, right, size))
    # Bilinear reading blurs by part of a pixel; the edge cuts the blot's tails off.
    torch.testing.assert_close(upright, blot(width / 2, 0, 0, size), atol=0.1, rtol=0)


def test_without_ink_or_width_nothing_is_moved():
    blank, image = torch.zeros(2, 1, 28, 28), torch.rand(2, 1, 28, 28, generator=seeded())
    assert torch.equal(MomentNormalisation(8)(blank), blank)
    assert MomentNormalisation(0)(image) is image
