from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from digitkaggle.networks import (
    MomentNormalisation,
    SeededDropout,
    build_network,
    layer_table,
)
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


def blot(spread: float, lean: float, right: float, down: float, size: int = 28) -> torch.Tensor:
    """A blot of ink, 5 pixels of 28 high (its deviation), as wide as asked, leaning to the right.

    Args:
        spread: standard deviation across, from the blot's own axis, pixels of 28.
        lean: pixels to the left for each that it goes down.
        right: where its middle is, from that of the image, pixels of 28.
        down: the same.
        size: pixels along a side of the image.
    """
    place = ((torch.arange(size) + 0.5) / size - 0.5) * 28
    x, y = place - right, (place - down)[:, None]
    return torch.exp(-0.5 * (((x + lean * y) / spread) ** 2 + (y / 5) ** 2))[None, None]


def moments(image: torch.Tensor) -> tuple[float, float, float, float]:
    """Of the ink, in pixels of 28: middle across, lean, deviation from the axis, middle down."""
    size = image.shape[-1]
    place = (((torch.arange(size) + 0.5) / size - 0.5) * 28).double().numpy()
    ink = image[0, 0].double().numpy()
    x, y = np.meshgrid(place, place)
    middle_x, middle_y = np.average(x, weights=ink), np.average(y, weights=ink)
    covariance = np.average((x - middle_x) * (y - middle_y), weights=ink)
    lean = covariance / np.average((y - middle_y) ** 2, weights=ink)
    across = np.average((x - middle_x - lean * (y - middle_y)) ** 2, weights=ink) ** 0.5
    return middle_x, lean, across, middle_y


@given(
    spread=st.floats(2, 3.5),
    lean=st.floats(-0.4, 0.4),
    right=st.floats(-3, 3),
    down=st.floats(-1, 1),
    width=st.integers(4, 8),
    size=st.sampled_from([20, 28]),
)
def test_ink_is_set_upright_in_the_middle_across_and_to_the_width(
    spread, lean, right, down, width, size
):
    image = blot(spread, lean, right, down, size)
    middle_x, lean_after, across, middle_y = moments(MomentNormalisation(width)(image))
    assert middle_x == pytest.approx(0, abs=0.1)
    assert lean_after == pytest.approx(0, abs=0.02)
    # Bilinear reading blurs by part of a pixel; the edge cuts the blot's tails off.
    assert across == pytest.approx(width / 2, abs=0.4)
    assert middle_y == pytest.approx(moments(image)[3], abs=0.1), "up and down it stays"


def test_upright_digits_are_those_of_a_straight_stroke():
    leaning, straight = blot(2, 0.3, 2, 0), blot(2, 0, 0, 0)
    upright = MomentNormalisation(4)(torch.cat([leaning, straight]))
    assert (upright[1] - straight[0]).abs().max() < 0.02, "already as wide, upright and in place"
    assert (upright[0] - straight[0]).abs().max() < 0.06


def test_without_ink_or_width_nothing_is_moved():
    blank = torch.zeros(2, 1, 28, 28)
    assert torch.equal(MomentNormalisation(8)(blank), blank)
    image = torch.rand(2, 1, 28, 28, generator=seeded())
    assert MomentNormalisation(0)(image) is image


def test_the_width_of_digits_goes_with_the_weights_and_changes_no_other_network():
    plain = build_network(PRESETS["fast"], seeded())
    upright = build_network(make_settings("fast", {"digit_widths": [8]}), seeded())
    assert [type(layer) for layer in plain] == [type(layer) for layer in upright][1:]
    assert torch.equal(plain[0].weight, upright[1].weight), "the same draws"
    assert "upright, width 8" in layer_table(upright)
    other = build_network(make_settings("fast", {"digit_widths": [11]}), seeded(1))
    other.load_state_dict(upright.state_dict())
    images = torch.rand(3, 1, 28, 28, generator=seeded())
    assert torch.equal(other.eval()(images), upright.eval()(images))


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
