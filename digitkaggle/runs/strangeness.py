"""How unlike the training digits an image is, by what a trained network computes from it.

The softmax is confident of letters, too. The layers before it are not: the features of each class
form one cloud, and most of what is not a digit lies outside. Distance: Lee et al., A Simple Unified
Framework for Detecting Out-of-Distribution Samples (2018). Energy: Liu et al., Energy-based
Out-of-distribution Detection (2020). Only the first member is asked: it takes 2 % of a run's time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..core.basics import CLASSES, Digits
from ..core.prediction import Model
from ..core.training import predict_logits

# Training images for the features, held-out images for the threshold: more gain a point.
FIT_IMAGES = THRESHOLD_IMAGES = 2000
# This fraction of the mean variance is added to every feature's: some are constant.
SHRINKAGE = 0.01
# Of the energy, both in standard deviations: 8 points fewer letters are accepted.
ENERGY_WEIGHT = 0.3
# The fraction of held-out digits that are not strange.
ACCEPTED = 0.99
# Below this even the most likely class is a guess: fewer than 1 in 100 MNIST digits are.
LEAST_PROBABILITY = 0.7


def fit_strangeness(model: Model, digits: Digits, held_out_rows: Tensor) -> dict[str, np.ndarray]:
    """The statistics of a model's features: `means`, 10 x D, `precision`, D x D, float64; weights.

    `held_out_rows` of the training images are those that the network has not trained on.
    """
    trained_on = torch.ones(len(digits.train_labels), dtype=torch.bool)
    trained_on[held_out_rows] = False
    rows = trained_on.nonzero().squeeze(1)[:FIT_IMAGES]
    labels = digits.train_labels[rows].numpy()
    features, logits = compute_features(model, digits.train_images[rows])
    one_hot = np.eye(CLASSES)[labels]
    means = one_hot.T @ features / one_hot.sum(axis=0)[:, None].clip(1)
    residuals = features - means[labels]
    covariance = residuals.T @ residuals / len(residuals)
    shrinkage = SHRINKAGE * max(covariance.diagonal().mean(), 1e-9)
    precision = np.linalg.inv(covariance + shrinkage * np.eye(len(covariance)))
    statistics = {"means": means, "precision": precision, "energy_weight": np.zeros(())}
    distances = measure_strangeness(features, logits, statistics)
    weight = ENERGY_WEIGHT * distances.std() / max(np.logaddexp.reduce(logits, axis=1).std(), 1e-9)
    statistics["energy_weight"] = np.array(weight)
    # Without held-out images, those that were trained on make the threshold too low.
    rows = held_out_rows[:THRESHOLD_IMAGES] if len(held_out_rows) else rows
    scores = measure_strangeness(*compute_features(model, digits.train_images[rows]), statistics)
    return statistics | {"threshold": np.quantile(scores, ACCEPTED)}


def find_strange(model: Model, images: Tensor, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which images, uint8, N x 1 x 28 x 28, are unlike digits: bool, N; none without statistics."""
    if not statistics:
        return np.zeros(len(images), dtype=bool)
    scores = measure_strangeness(*compute_features(model, images), statistics)
    return scores > statistics["threshold"]


def measure_strangeness(
    features: np.ndarray, logits: np.ndarray, statistics: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Mahalanobis' distance from the predicted class, and the weighted energy: float64, N."""
    residuals = features - statistics["means"][logits.argmax(axis=1)]
    squared = ((residuals @ statistics["precision"]) * residuals).sum(axis=1)
    return np.sqrt(squared.clip(0)) - statistics["energy_weight"] * np.logaddexp.reduce(
        logits, axis=1
    )


def compute_features(model: Model, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features, N x D, and logits, N x 10, of a model's first network, float64.

    The features are each feature map's mean after a ReLU, and the last layer's inputs.
    """
    network = model.networks[0]
    relus = [layer for layer in network.modules() if type(layer) is nn.ReLU]
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    parts: dict[nn.Module, list[Tensor]] = {layer: [] for layer in [*relus, last]}

    def save_features(layer: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> None:
        values = inputs[0] if layer is last else outputs
        parts[layer].append(values.mean(dim=(2, 3)) if values.dim() == 4 else values)

    hooks = [layer.register_forward_hook(save_features) for layer in parts]
    try:
        with torch.inference_mode():
            logits = predict_logits(network, images, model.compute)
    finally:
        for hook in hooks:
            hook.remove()
    features = torch.cat([torch.cat(batches) for batches in parts.values()], dim=1)
    return features.cpu().double().numpy(), logits.cpu().double().numpy()
