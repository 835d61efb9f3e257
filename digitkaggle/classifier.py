"""The networks as a scikit-learn classifier: `fit`, `predict`, `cross_val_score`."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn import functional

from .core.basics import CLASSES, IMAGE_SIZE, Digits
from .core.device import choose_compute
from .core.run import run
from .core.settings import Settings, make_settings
from .runs.finished import build_model

SCALES = (1, 16, 255)  # the value of white: of fractions, of scikit-learn's own digits, of bytes
SIDES = range(8, 65)  # pixels
NOT_PARAMETERS = ("preset", "seed")
SETTINGS = [f.name for f in dataclasses.fields(Settings) if f.name not in NOT_PARAMETERS]


class DigitClassifier(ClassifierMixin, BaseEstimator):
    """Convolutional networks of a preset, for images of digits, or of up to ten other classes.

    Args:
        preset: `fast`, `balanced`, `best`, `record` or `classic`.
        random_state: seed of weights, order and augmentation; None, an int, or a RandomState.
        device: `auto`, `cpu`, `cuda` or `mps`.
        **settings: any field of `Settings`; None keeps the preset's value.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: pixels per image.
        scale_: the value of white in X, 1, 16 or 255: the smallest that no pixel of `fit` exceeds.
        history_: a dict per epoch and member: losses, accuracies, seconds.
        settings_: all settings of the run.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        given = self.__init__.__signature__.bind(*args, **settings)
        given.apply_defaults()
        for name, value in given.arguments.items():
            setattr(self, name, value)

    # scikit-learn reads the parameters from the signature: each field of Settings is one.
    __init__.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            for name, default in (
                *(("preset", "balanced"), ("random_state", None), ("device", "auto")),
                *((name, None) for name in SETTINGS),
            )
        ]
    )

    def fit(self, X: Any, y: Any) -> DigitClassifier:
        """Train on images and their labels; where classes are too small, none is held out.

        Args:
            X: raw pixels from 0 to 1, 16 or 255 (scaling is done inside), as n x side**2,
                n x side x side, or with an axis for the one channel; side from 8 to 64. Arrays,
                data frames or torch tensors.
            y: n labels of any kind, of 2 to 10 classes.

        Raises:
            ValueError: X or y has a wrong shape, type or range.
        """
        X, y = validate_data(self, flatten_images(X), y, dtype="numeric")
        check_classification_targets(y)
        self.classes_, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
        if not 1 < len(self.classes_) <= CLASSES:
            ending = "es" * (len(self.classes_) != 1)
            raise ValueError(
                f"2 to {CLASSES} classes are needed, not {len(self.classes_)} class{ending}"
            )
        self.scale_ = next((scale for scale in SCALES if X.max() <= scale), SCALES[-1])
        changes = {n: getattr(self, n) for n in SETTINGS if getattr(self, n) is not None}
        seed = int(check_random_state(self.random_state).randint(2**31))
        settings = make_settings(self.preset, changes | {"seed": seed})
        if counts.min() * settings.validation_fraction < 1 or counts.min() < settings.members:
            settings = dataclasses.replace(settings, validation_fraction=0.0, patience=0)
        digits = Digits(
            train_images=self.prepare_images(X),
            train_labels=torch.from_numpy(labels.astype(np.int64)),
            test_images=torch.empty(0, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8),
        )
        result = run(settings, digits, choose_compute(settings, self.device))
        self.settings_ = settings
        # Weights, not networks: the networks' generators cannot be pickled.
        self.weights_ = {member.number: member.weights for member in result.members}
        self.history_ = [{"member": m.number, **row} for m in result.members for row in m.history]
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, float32, n x classes, of the classes in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, flatten_images(X), dtype="numeric", reset=False)
        compute = choose_compute(self.settings_, self.device)
        model = build_model(self.settings_, self.weights_, compute)
        probabilities = model.predict(self.prepare_images(X)).numpy()
        # The network has ten outputs, also for fewer classes.
        probabilities = probabilities[:, : len(self.classes_)]
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most likely label of each image, n."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):  # the logarithm of 0 is -inf
            return np.log(self.predict_proba(X))

    def prepare_images(self, X: np.ndarray) -> torch.Tensor:
        """Validated values, n x side**2, as images, uint8, n x 1 x 28 x 28."""
        side = round(X.shape[1] ** 0.5)
        if side**2 != X.shape[1] or side not in SIDES:
            raise ValueError(f"{X.shape[1]} pixels are not a square of 8 to 64 a side")
        if X.min() < 0 or X.max() > self.scale_ or has_unit_norm(X):
            found = f"pixels lie from {X.min():g} to {X.max():g}, not 0 to {self.scale_}"
            raise ValueError(f"{found}: give raw pixels; scaling is done inside")
        if 0 < X.max() <= 1 < self.scale_:
            message = f"pixels lie from 0 to {X.max():g}, but white was {self.scale_} in fit"
            warnings.warn(f"{message}: give both on one scale", stacklevel=4)
        images = torch.from_numpy((X / self.scale_).astype(np.float32)).view(-1, 1, side, side)
        if side != IMAGE_SIZE:
            size = (IMAGE_SIZE, IMAGE_SIZE)
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        return images.mul(255).round().to(torch.uint8)


def has_unit_norm(X: np.ndarray) -> bool:
    """Whether scikit-learn's Normalizer made these rows, which no pixels would add up to."""
    norms = np.linalg.norm(X.astype(np.float64), axis=1)
    return len(X) > 1 and bool(np.allclose(norms, 1, atol=1e-6))


def flatten_images(X: Any) -> Any:
    """Images n x side x side, with an axis for one channel or without, as rows of pixels."""
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    if not isinstance(X, np.ndarray) or X.ndim < 3:
        return X
    if X.ndim == 4 and 1 not in (X.shape[1], X.shape[3]):
        raise ValueError(f"images of shape {X.shape[1:]} are not gray: give one channel")
    return X.reshape(len(X), -1) if X.ndim <= 4 else X
