from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    Normalizer,
    StandardScaler,
)
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import digitkaggle

QUICK = {"widths": (8, 16, 16), "epochs": 40, "batch_size": 64}


class AnyFeatures(digitkaggle.DigitClassifier):
    """Takes any data that scikit-learn's checks make up: each feature is a field's brightness."""

    def prepare_images(self, X: np.ndarray) -> torch.Tensor:
        side = int(np.ceil(X.shape[1] ** 0.5))
        fields = np.zeros((len(X), side**2))
        fields[:, : X.shape[1]] = 1 / (1 + np.exp(-X.astype(float).clip(-20, 20)))
        images = torch.from_numpy(fields).float().view(-1, 1, side, side)
        return torch.nn.functional.interpolate(images, (28, 28)).mul(255).round().to(torch.uint8)


CLASSIFIER = AnyFeatures(
    "fast", random_state=0, augmentation="none", image_sizes=(28,), views=1, **QUICK
)


@parametrize_with_checks([CLASSIFIER])
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def own_digits() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's 8 x 8 digits of three classes, with values up to 16 and words for labels."""
    X, y = load_digits(n_class=3, return_X_y=True)
    return X, np.array(["none", "one", "two"])[y]


@pytest.fixture
def classifier() -> digitkaggle.DigitClassifier:
    return digitkaggle.DigitClassifier("fast", random_state=0, **(QUICK | {"epochs": 12}))


def test_scikit_learns_digits_are_classified_in_any_form_that_they_come_in(own_digits, classifier):
    X, y = own_digits
    classifier.fit(X[:400], y[:400])
    assert (classifier.scale_, classifier.n_features_in_) == (16, 64)
    assert classifier.classes_.tolist() == ["none", "one", "two"]
    assert classifier.score(X[400:], y[400:]) > 0.95
    assert len(classifier.history_) == 12
    assert classifier.settings_.widths == (8, 16, 16)
    probabilities = classifier.predict_proba(X[400:])
    assert probabilities.shape == (len(X) - 400, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    for other in (X.reshape(-1, 8, 8) / 16, (X.reshape(-1, 8, 8) * 15.9375).astype(np.uint8)):
        again = clone(classifier).fit(other[:400], list(y[:400]))
        assert (again.predict(other[400:]) == classifier.predict(X[400:])).mean() > 0.98
    frame = clone(classifier).fit(pd.DataFrame(X[:400]), pd.Series(y[:400]))
    np.testing.assert_array_equal(frame.predict_proba(pd.DataFrame(X[400:])), probabilities)
    restored = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(restored.predict_proba(X[400:]), probabilities)


def test_scikit_learns_tools_work_with_it(own_digits, classifier):
    X, y = own_digits
    assert cross_val_score(classifier, X, y, cv=2, n_jobs=2).min() > 0.9
    search = GridSearchCV(classifier, {"rotation": [0.0, 10.0]}, cv=2).fit(X, y)
    assert search.best_params_["rotation"] in (0, 10)
    pipeline = make_pipeline(FunctionTransformer(np.sqrt), classifier)
    estimators = [
        ("ours", pipeline),
        ("svc", SVC()),
        ("kn", KNeighborsClassifier()),
    ]
    assert VotingClassifier(estimators).fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.95
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(X[:400], y[:400])
    assert calibrated.predict_proba(X[400:]).shape == (len(X) - 400, 3)


@pytest.mark.parametrize(
    ("X", "y", "problem"),
    [
        (np.zeros((4, 65)), [0, 1, 0, 1], "not a square"),
        (np.zeros((4, 49)), [0, 1, 0, 1], "8 to 64"),
        (np.full((4, 64), -1.0), [0, 1, 0, 1], "pixels lie from -1"),
        (np.full((4, 64), 300), [0, 1, 0, 1], "not 0 to 255"),
        (np.zeros((4, 64)), [1, 1, 1, 1], "not 1 class$"),
        (np.zeros((11, 64)), list(range(11)), "not 11 classes"),
    ],
)
def test_data_that_are_not_images_of_two_to_ten_classes_are_an_error(classifier, X, y, problem):
    with pytest.raises(ValueError, match=problem):
        classifier.fit(X, y)


def test_its_parameters_are_the_settings_and_nothing_else(classifier):
    assert classifier.get_params()["rotation"] is None
    assert classifier.set_params(rotation=5.0).rotation == 5
    with pytest.raises(TypeError, match="nonsense"):
        digitkaggle.DigitClassifier(nonsense=1)
    with pytest.raises(digitkaggle.InputError, match="rotation"):
        classifier.set_params(rotation=-1.0).fit(np.zeros((4, 64)), [0, 1, 0, 1])


@pytest.fixture(scope="module")
def fitted(sample) -> digitkaggle.DigitClassifier:
    """Fitted on 300 digits with white at 255."""
    X, y = sample.train_images[:300].flatten(1).numpy(), sample.train_labels[:300].numpy()
    quick = {"widths": (4, 4, 4), "epochs": 2, "batch_size": 64}
    return digitkaggle.DigitClassifier("fast", random_state=0, **quick).fit(X, y)


def test_images_with_an_axis_for_their_channel_are_taken_as_arrays_and_as_tensors(fitted, sample):
    images = sample.test_images[:20]
    expected = fitted.predict_proba(images.flatten(1).numpy())
    for other in (images.numpy(), images, images.permute(0, 2, 3, 1), images[:, 0].numpy()):
        np.testing.assert_array_equal(fitted.predict_proba(other), expected)
    with pytest.raises(ValueError, match="not gray: give one channel"):
        fitted.predict(images.repeat(1, 3, 1, 1))


def test_logarithms_of_probabilities_are_those_of_the_probabilities(fitted, sample):
    X = sample.test_images[:20].flatten(1).numpy()
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), fitted.predict_proba(X), 1e-5)


def test_another_scale_in_predict_than_in_fit_is_a_warning_with_both_scales(fitted, sample):
    X = sample.test_images[:20].flatten(1).numpy()
    with pytest.warns(UserWarning, match="from 0 to 1, but white was 255 in fit"):
        fitted.predict(X / 255)
    fitted.predict(np.zeros((3, 784)))  # blank images have no scale
    with pytest.raises(ValueError, match="from 0 to 510, not 0 to 255"):
        fitted.predict(X * 2.0)


@pytest.mark.parametrize("scaler", [StandardScaler(), Normalizer(), MinMaxScaler((-1, 1))])
def test_scaled_pixels_are_refused_with_the_advice_to_give_raw_ones(scaler, sample):
    X, y = sample.train_images[:50].flatten(1).numpy(), sample.train_labels[:50].numpy()
    with pytest.raises(ValueError, match="give raw pixels; scaling is done inside"):
        digitkaggle.DigitClassifier("fast").fit(scaler.fit_transform(X), y)


def test_a_grid_search_over_numpys_ranges_fits(sample):
    X, y = sample.train_images[:200].flatten(1).numpy(), sample.train_labels[:200].numpy()
    quick = digitkaggle.DigitClassifier("fast", random_state=0, widths=(4, 4, 4), batch_size=64)
    grid = {"learning_rate": np.logspace(-2, -1, 2), "epochs": np.arange(1, 3)}
    search = GridSearchCV(quick, grid, cv=2, error_score="raise").fit(X, y)
    assert set(search.best_params_) == set(grid)
