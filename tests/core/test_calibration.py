from __future__ import annotations

import pytest
import torch
from torch import nn

from digitkaggle.core.calibration import calibrate
from digitkaggle.core.prediction import Model
from digitkaggle.core.settings import make_settings
from digitkaggle.core.training import predict_logits
from tests.core import CPU, are_equal


@pytest.mark.parametrize(("mistakes", "expected"), [(20, 0.98), (100, 0.9), (0, 0.999)])
def test_a_calibrated_networks_confidence_is_its_accuracy_on_held_out_images(mistakes, expected):
    # It predicts a 1, with logits of 1 and 0, for each of 1,000 blank images; the first are 2s.
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.eye(10)[1])
    labels = torch.ones(1000, dtype=torch.int64)
    labels[:mistakes] = 2
    images = torch.zeros(1000, 1, 28, 28, dtype=torch.uint8)
    logits = predict_logits(network, images, CPU)
    temperature = calibrate(network, logits, labels)
    model = Model([network], make_settings("fast", {"views": 1}), CPU)
    confidence = model.predict(images)[0, 1].item()
    assert confidence == pytest.approx(expected, abs=5e-3)
    assert torch.tensor([1 / temperature] + [0.0] * 9).softmax(0)[0] == pytest.approx(confidence)


@pytest.mark.parametrize("last", [nn.ReLU(), nn.LayerNorm(10), nn.LogSoftmax(dim=1)])
def test_a_network_whose_last_layer_is_not_linear_is_refused_and_left_alone(few_digits, last):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), last)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    labels = few_digits.train_labels
    with pytest.raises(TypeError, match="only the logits of a linear layer"):
        calibrate(network, torch.zeros(len(labels), 10), labels)
    assert are_equal(before, network.state_dict())
