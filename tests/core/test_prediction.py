from __future__ import annotations

import pytest
import torch

from digitkaggle.core.basics import LabelledImages
from digitkaggle.core.networks import build_network
from digitkaggle.core.prediction import VIEWS, calibrate, predict_probabilities, viewed
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


class Brightness(torch.nn.Module):
    """Sure of a 1 where the middle pixel is white, else torn between 2 and 3; counts its images."""

    seen = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixels)
        logits = torch.zeros(len(pixels), 10)
        logits[:, 1] = 20 * pixels[:, 0, 14, 14] - 10
        logits[:, 2] = 1 + pixels[:, 0, 13, 13]  # white in the view that is shifted right and down
        logits[:, 3] = 1.5
        return logits


def test_further_views_are_taken_of_the_images_alone_that_it_is_unsure_of():
    images = torch.zeros(5, 1, 28, 28, dtype=torch.uint8)
    images[:2, :, 14, 14] = images[3, :, 12, 12] = 255
    network = Brightness()
    digits = predict_probabilities([network], images, CPU, views=2).argmax(dim=1)
    assert network.seen == 5 + 3
    assert digits.tolist() == [1, 1, 3, 2, 3]


@pytest.mark.parametrize(("wrong", "expected"), [(20, 0.98), (100, 0.9), (0, 0.999)])
def test_calibrated_a_network_is_as_sure_as_it_is_right_of_what_was_held_out(wrong, expected):
    # Of 1,000 blank images, all of which it calls a 1 with logits of 1 and 0, so many are 2s.
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.eye(10)[1])
    labels = torch.ones(1000, dtype=torch.int64)
    labels[:wrong] = 2
    images = torch.zeros(1000, 1, 28, 28, dtype=torch.uint8)
    temperature = calibrate(network, LabelledImages(images, labels), CPU)
    confidence = predict_probabilities([network], images, CPU)[0, 1].item()
    assert confidence == pytest.approx(expected, abs=5e-3)
    assert torch.tensor([1 / temperature] + [0.0] * 9).softmax(0)[0] == pytest.approx(confidence)
