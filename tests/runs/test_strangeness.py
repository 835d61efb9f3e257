from __future__ import annotations

import numpy as np
import pytest
import torch

from digitkaggle.core.basics import InputError
from digitkaggle.runs.finished import load_model, load_statistics
from digitkaggle.runs.strangeness import compute_features, find_strange, fit_strangeness


def test_a_run_accepts_nearly_all_test_digits_and_hardly_any_noise(trained, sample):
    model, statistics = load_model(trained, device="cpu"), load_statistics(trained)
    assert find_strange(model, sample.test_images, statistics).mean() < 0.04
    noise = torch.randint(256, (100, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    assert find_strange(model, noise, statistics).mean() > 0.9


def test_the_statistics_are_the_same_each_time_with_and_without_held_out_images(trained, sample):
    model = load_model(trained, device="cpu")
    for held_out in (torch.arange(100, 300), torch.arange(0)):
        one, other = (fit_strangeness(model, sample, held_out) for _ in range(2))
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert {values.dtype for values in one.values()} == {np.dtype(np.float64)}


def test_the_features_are_the_channels_means_and_the_last_layers_inputs(trained, sample):
    model = load_model(trained, device="cpu")
    features, logits = compute_features(model, sample.test_images[:5])
    assert logits.shape == (5, 10)
    assert features.shape == (5, load_statistics(trained)["means"].shape[1])
    last = model.networks[0][-1]
    weight, bias = (values.detach().double().numpy() for values in (last.weight, last.bias))
    expected = features[:, -last.in_features :] @ weight.T + bias
    np.testing.assert_allclose(
        logits, expected, atol=0.2
    )  # computed in bfloat16, where there is it


def test_a_model_without_statistics_finds_nothing_strange(trained, sample, tmp_path):
    model = load_model(trained, device="cpu")
    assert load_statistics(tmp_path) == {}
    assert not find_strange(model, sample.test_images[:50], {}).any()
    (tmp_path / "strangeness.npz").write_bytes(b"something else")
    with pytest.raises(InputError, match="strangeness"):
        load_statistics(tmp_path)
