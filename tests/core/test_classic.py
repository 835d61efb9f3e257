from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from digitkaggle.core.basics import LabeledImages
from digitkaggle.core.classic import build_classic_network, expand_classic_set
from digitkaggle.core.layers import SeededDropout
from tests.core import make_generator


def test_the_expanded_set_equals_scipys_results_image_by_image_with_the_labels_repeated(sample):
    images, labels = sample.train_images[::400], sample.train_labels[::400]
    pixels = images[:, 0].numpy().astype(np.float32) / 255
    expected = [pixels]
    for offset in [(0, -1), (0, 1), (-1, 0), (1, 0)]:
        expected.append([ndimage.shift(image, offset, order=3, cval=0) for image in pixels])
    for degrees in (-10, 10):
        expected.append([ndimage.rotate(image, degrees, reshape=False) for image in pixels])
    expanded = expand_classic_set(LabeledImages(images, labels))
    assert expanded.images.dtype == torch.float32
    assert expanded.images.shape == (7 * len(images), 1, 28, 28)
    np.testing.assert_allclose(expanded.images[:, 0], np.concatenate(expected), atol=1e-6)
    assert expanded.labels.tolist() == 7 * labels.tolist()


def test_the_network_has_the_published_layers():
    network = build_classic_network(0.5, make_generator())
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in network]
    assert [size for size in sizes if size] == [1_664, 147_712, 1_638_656, 16_448, 650]
    assert [type(layer) for layer in network].count(SeededDropout) == 4
