from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from digitkaggle.core.affine import apply_view
from digitkaggle.core.networks import build_network
from digitkaggle.core.prediction import (
    CONFIDENT_MARGIN,
    TTA_VIEWS,
    Model,
    average_members,
    is_confident,
    predict_with_tta,
)
from digitkaggle.core.settings import make_settings
from digitkaggle.core.training import PREDICTION_BATCH, prepare_input
from tests.core import CPU, make_generator

SETTINGS = make_settings("fast", {"widths": (4, 4, 4), "views": len(TTA_VIEWS)})


@pytest.fixture
def model() -> Model:
    """Three networks that were never trained, and so are never confident."""
    networks = [build_network(SETTINGS, make_generator(seed)) for seed in range(3)]
    return Model(networks, SETTINGS, CPU)


def test_probabilities_sum_to_one_and_are_the_mean_over_networks_and_views(few_digits, model):
    images = prepare_input(few_digits.test_images)
    probabilities = model.predict(few_digits.test_images)
    assert (probabilities.dtype, probabilities.shape) == (torch.float32, (50, 10))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(50))
    logits = [
        network.eval()(apply_view(view, images)) for network in model.networks for view in TTA_VIEWS
    ]
    expected = torch.stack(logits).softmax(dim=2).mean(dim=0).detach()
    torch.testing.assert_close(probabilities, expected)


def test_a_model_takes_as_many_views_as_its_settings_have(few_digits, model):
    one = Model(model.networks[:1], dataclasses.replace(SETTINGS, views=1), CPU)
    logits = one.networks[0].eval()(prepare_input(few_digits.test_images)).detach()
    torch.testing.assert_close(one.predict(few_digits.test_images), logits.softmax(dim=1))


def test_every_image_is_predicted_in_order_whatever_the_batches(few_digits, model):
    times = 2 * PREDICTION_BATCH // 50 + 1  # two batches and a rest
    copies = few_digits.test_images.repeat(times, 1, 1, 1)
    expected = model.predict(few_digits.test_images).repeat(times, 1)
    torch.testing.assert_close(model.predict(copies), expected)
    assert model.predict(copies[:0]).shape == (0, 10)


def test_members_are_averaged_by_the_arithmetic_mean():
    members = torch.rand(5, 7, 10, generator=make_generator())
    torch.testing.assert_close(average_members(list(members)), members.mean(dim=0))
    assert torch.equal(average_members(list(members[:1])), members[0])


def test_a_network_is_confident_where_the_first_class_leads_the_second_by_the_margin():
    lead = torch.tensor([CONFIDENT_MARGIN + 0.001, CONFIDENT_MARGIN - 0.001])
    probabilities = functional.pad(torch.stack([(1 + lead) / 2, (1 - lead) / 2], dim=1), (8, 0))
    assert is_confident(probabilities).tolist() == [True, False]


class Brightness(torch.nn.Module):
    """Confident of a 1 where the center pixel is white, else torn between 2 and 3.

    It counts the images that it receives.
    """

    received = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.received += len(pixels)
        logits = torch.zeros(len(pixels), 10)
        logits[:, 1] = 20 * pixels[:, 0, 14, 14] - 10
        logits[:, 2] = 1 + pixels[:, 0, 13, 13]  # white in the view that is shifted right and down
        logits[:, 3] = 1.5
        return logits


def test_more_views_are_taken_only_of_images_without_a_confident_prediction():
    images = torch.zeros(5, 1, 28, 28, dtype=torch.uint8)
    images[:2, :, 14, 14] = images[3, :, 12, 12] = 255
    network = Brightness()
    digits = predict_with_tta(network, images, CPU, tta_views=2).argmax(dim=1)
    assert network.received == 5 + 3
    assert digits.tolist() == [1, 1, 3, 2, 3]
