from __future__ import annotations

import pytest
import torch
from torch import nn

from digitkaggle.core.device import choose_compute, fastest_dtype
from digitkaggle.core.networks import MomentNormalisation, build_network
from digitkaggle.core.optimizers import Muon, make_optimizer, orthogonalised
from digitkaggle.core.settings import make_settings


def built(preset: str, seed: int = 0, **changes) -> nn.Sequential:
    return build_network(make_settings(preset, changes), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("preset", "parameters"), [("classic", 1_805_130), ("fast", 61_306), ("balanced", 279_402)]
)
def test_networks_have_their_parameters_and_ten_logits(preset, parameters):
    network = built(preset)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network.eval()(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_any_size_of_image_goes_in():
    assert built("fast").eval()(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


def test_weights_are_those_of_the_seed():
    first, same, other = (built("fast", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_upright_digits_stand_in_the_middle_at_their_width():
    leaning = torch.zeros(1, 1, 28, 28)
    for row in range(5, 23):
        leaning[0, 0, row, (30 - row) // 2 : (30 - row) // 2 + 3] = 1
    ink = MomentNormalisation(6)(leaning)[0, 0]
    x = torch.arange(28) - 13.5
    middle = (ink * x).sum() / ink.sum()
    lean = (ink * x * x[:, None]).sum() / ink.sum()
    deviation = ((ink * x**2).sum() / ink.sum() - middle**2).sqrt()
    assert abs(middle) < 0.1
    assert abs(lean) < 0.3
    assert abs(2 * deviation - 6) < 1  # bilinear widening
    assert torch.equal(MomentNormalisation(0)(leaning), leaning)


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((5, 40), (40, 5)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalised(matrix, iterations=6))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muons_other_half_is_torchs_nesterov_sgd():
    settings = make_settings("fast", {"learning_rate": 0.1, "momentum": 0.6, "weight_decay": 0.01})
    ours, theirs = (nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = (
        Muon(ours, settings),
        torch.optim.SGD(
            theirs.parameters(), lr=0.1, momentum=0.6, nesterov=True, weight_decay=0.01
        ),
    )
    for _ in range(3):
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            layer.zero_grad()
            layer(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_muon_holds_the_norm_of_inner_convolutions():
    network = built("fast")
    optimizer = make_optimizer(make_settings("fast", {"muon_learning_rate": 1e-9}), network)
    network(torch.rand(8, 1, 28, 28)).square().sum().backward()
    optimizer.step()
    inner = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1]
    assert inner
    assert all(abs(p.norm() - len(p) ** 0.5) < 1e-3 for p in inner)


def test_the_cpu_works_and_a_device_that_does_not_is_named():
    from digitkaggle.core.basics import InputError

    compute = choose_compute("cpu", "float32")
    assert (compute.device.type, compute.dtype) == ("cpu", torch.float32)
    for name in ("cuda:9", "toaster"):
        with pytest.raises(InputError, match=name):
            choose_compute(name)


def test_a_t4_counts_in_float16_for_it_only_emulates_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert fastest_dtype(torch.device("cuda")) == torch.float16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert fastest_dtype(torch.device("cuda")) == torch.bfloat16
