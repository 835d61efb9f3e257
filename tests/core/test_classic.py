from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from digitkaggle.core.classic import SeededDropout, classic_expanded_set, classic_network
from tests.core import seeded


def test_the_expanded_set_is_what_scipy_makes_image_by_image(sample):
    images = sample.train_images[::400]
    pixels = images[:, 0].numpy().astype(np.float32) / 255
    expected = [pixels]
    for offset in [(0, -1), (0, 1), (-1, 0), (1, 0)]:
        expected.append([ndimage.shift(image, offset, order=3, cval=0) for image in pixels])
    for degrees in (-10, 10):
        expected.append([ndimage.rotate(image, degrees, reshape=False) for image in pixels])
    expanded = classic_expanded_set(images)
    assert (expanded.dtype, expanded.shape) == (torch.float32, (7 * len(images), 1, 28, 28))
    np.testing.assert_allclose(expanded[:, 0], np.concatenate(expected), atol=1e-6)


def test_the_network_has_the_published_layers():
    network = classic_network(0.5, seeded())
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in network]
    assert [size for size in sizes if size] == [1_664, 147_712, 1_638_656, 16_448, 650]
    assert [type(layer) for layer in network].count(SeededDropout) == 4


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_its_share_everywhere_and_of_gradients_likewise(probability, memory_format):
    values = torch.ones(500, 3, 5, 7).contiguous(memory_format=memory_format).requires_grad_()
    dropout = SeededDropout(probability, seeded(2))
    dropped = dropout(values)
    assert torch.equal(dropped, SeededDropout(probability, seeded(2))(values))
    assert not torch.equal(dropped, dropout(values)), "the generator goes on"
    assert dropout.eval()(values) is values
    shares = (dropped == 0).float().mean(dim=0)
    # Each place saw 500 draws: six standard errors either way.
    assert shares.mean().item() == pytest.approx(probability, abs=0.01)
    assert (shares - probability).abs().max() < 6 * (probability * (1 - probability) / 500) ** 0.5
    assert dropped.max().item() == pytest.approx(1 / (1 - probability)), "the mean stays"
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())
