from __future__ import annotations

import pytest
import torch

from digitkaggle.core.networks import build_network
from digitkaggle.core.prediction import VIEWS, predict_probabilities, viewed
from digitkaggle.core.settings import make_settings
from digitkaggle.core.training import PREDICTION_BATCH, network_input
from tests.core import CPU, seeded


@pytest.fixture
def networks() -> list[torch.nn.Module]:
    settings = make_settings("fast", {"widths": (4, 4, 4)})
    return [build_network(settings, seeded(seed)) for seed in range(3)]


def test_probabilities_sum_to_one_and_are_the_mean_over_networks_and_views(few_digits, networks):
    images = network_input(few_digits.test_images)
    together = predict_probabilities(networks, few_digits.test_images, CPU, views=len(VIEWS))
    assert (together.dtype, together.shape) == (torch.float32, (50, 10))
    torch.testing.assert_close(together.sum(dim=1), torch.ones(50))
    logits = [network.eval()(viewed(view, images)) for network in networks for view in VIEWS]
    torch.testing.assert_close(together, torch.stack(logits).softmax(dim=2).mean(dim=0).detach())


def test_every_image_is_predicted_in_order_whatever_the_batches(few_digits, networks):
    times = 2 * PREDICTION_BATCH // 50 + 1  # two batches and a rest
    copies = few_digits.test_images.repeat(times, 1, 1, 1)
    expected = predict_probabilities(networks, few_digits.test_images, CPU).repeat(times, 1)
    torch.testing.assert_close(predict_probabilities(networks, copies, CPU), expected)
    assert predict_probabilities(networks, copies[:0], CPU).shape == (0, 10)
