"""The networks as a scikit-learn classifier: `fit`, `predict`, `cross_val_score`."""

from __future__ import annotations

import dataclasses
import inspect
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
NOT_PARAMETERS = ("preset", "seed", "learn_from_test")
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
            X: n x side**2 or n x side x side, numbers from 0 to 1, 16 or 255; side from 8 to 64.
            y: n labels of any kind, of 2 to 10 classes.

        Raises:
            ValueError: X or y has a wrong shape, type or range.
        """
        X, y = validate_data(self, flatten_images(X), y, dtype="numeric")
        check_classification_targets(y)
        self.classes_, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
        if not 1 < len(self.classes_) <= CLASSES:
            raise ValueError(f"2 to {CLASSES} classes are needed, not {len(self.classes_)} class")
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

    def prepare_images(self, X: np.ndarray) -> torch.Tensor:
        """Validated values, n x side**2, as images, uint8, n x 1 x 28 x 28."""
        side = round(X.shape[1] ** 0.5)
        if side**2 != X.shape[1] or side not in SIDES:
            raise ValueError(f"{X.shape[1]} pixels are not a square of 8 to 64 a side")
        if X.min() < 0 or X.max() > self.scale_:
            raise ValueError(f"pixels lie from {X.min():g} to {X.max():g}, not 0 to {self.scale_}")
        images = torch.from_numpy((X / self.scale_).astype(np.float32)).view(-1, 1, side, side)
        if side != IMAGE_SIZE:
            size = (IMAGE_SIZE, IMAGE_SIZE)
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        return images.mul(255).round().to(torch.uint8)


def flatten_images(X: Any) -> Any:
    """Images n x side x side as rows of pixels; anything else as it is."""
    return X.reshape(len(X), -1) if getattr(X, "ndim", 2) == 3 else X
