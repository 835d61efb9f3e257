from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from digitkaggle.device import choose_compute
from digitkaggle.errors import InputError
from digitkaggle.members import train_member
from digitkaggle.models import load_model, save_model
from digitkaggle.networks import build_network
from digitkaggle.pipeline import predict_run, run
from digitkaggle.prediction import predict_probabilities
from digitkaggle.settings import make_settings, member_settings
from digitkaggle.split import fold_rows, member_rows, split_rows
from tests.conftest import contents
from tests.test_pipeline import cut_off_after, history_of
from tests.test_resume import same_results


@pytest.fixture
def three(quick_settings):
    """Settings of three members on two folds, of whom the second sees upright digits."""
    return dataclasses.replace(
        quick_settings, members=3, validation_fraction=0.5, epochs=1, digit_widths=(0, 8)
    )


def test_the_folds_of_several_members_hold_every_image_out_once_by_class(sample):
    settings = make_settings("fast", {"members": 4, "validation_fraction": 0.25})
    held = []
    for number in range(1, 5):
        train_rows, held_rows = member_rows(sample.train_labels, settings, number)
        assert sorted(torch.cat([train_rows, held_rows]).tolist()) == list(range(4000))
        assert sample.train_labels[held_rows].bincount().tolist() == [100] * 10
        held.append(held_rows)
    assert sorted(torch.cat(held).tolist()) == list(range(4000))
    _, fifth = member_rows(sample.train_labels, settings, 5)
    assert not torch.equal(fifth, held[0]), "the second round shuffles anew"


def test_the_only_member_holds_out_what_one_network_always_did(sample):
    settings = make_settings("fast", {"split_seed": 3})
    rows = split_rows(sample.train_labels, 0.1, 3, by_class=True)
    for ours, expected in zip(member_rows(sample.train_labels, settings, 1), rows, strict=True):
        assert torch.equal(ours, expected)


def test_members_take_the_widths_of_digits_in_turn_and_each_a_seed_of_its_own():
    settings = make_settings("fast", {"members": 4, "seed": 7, "digit_widths": [0, 8, 11]})
    assert member_settings(settings, 1) == settings
    told = [member_settings(settings, number) for number in range(1, 5)]
    assert [one.digit_widths[0] for one in told] == [0, 8, 11, 0]
    assert [one.seed for one in told] == [7, 8, 9, 10]


def test_a_model_knows_the_widths_of_its_members_even_where_one_is_missing(tmp_path):
    settings = make_settings("fast", {"widths": (4, 4, 4), "digit_widths": (0, 8, 11)})
    networks = [
        build_network(member_settings(settings, number), torch.Generator()).eval()
        for number in (1, 3, 4)
    ]
    save_model(tmp_path / "model.pt", networks, settings)
    loaded = load_model(tmp_path / "model.pt", choose_compute("cpu", "float32"))
    assert [network[0].width for network in loaded] == [0, 11, 0]
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for before, after in zip(networks, loaded, strict=True):
        assert torch.equal(before(images), after(images))


@pytest.mark.parametrize("width", [torch.tensor(torch.nan), torch.zeros(2), "wide", None])
def test_a_model_whose_width_of_digits_is_none_is_refused(tmp_path, width):
    settings = make_settings("fast", {"widths": (4, 4, 4), "digit_widths": (8,)})
    weights = build_network(settings, torch.Generator()).state_dict() | {"0._extra_state": width}
    torch.save({"settings": settings.as_dict(), "members": [weights]}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="is no model that can be used"):
        load_model(tmp_path / "model.pt", choose_compute("cpu", "float32"))


def test_folds_without_enough_images_of_a_class_are_refused():
    labels = torch.tensor([0] * 20 + [1] * 3)
    with pytest.raises(InputError, match="3 training images of one class cannot be shared out"):
        fold_rows(labels, 10, 0, seed=0, by_class=True)
    with pytest.raises(InputError, match="3 training images cannot be shared out among 10"):
        fold_rows(labels[:3], 10, 0, seed=0, by_class=False)


def test_a_run_of_several_members_leaves_what_each_says_and_their_mean(
    tmp_path, few_source, few_digits, three, data_folder
):
    folder = run(three, few_source, out=tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [row["member"] for row in history_of(folder)] == ["1", "2", "3"]
    assert metrics["best_epoch"] == [1, 1, 1]
    assert [figures["member"] for figures in metrics["members"]] == [1, 2, 3]
    assert "members" not in metrics["validation"]

    held = np.load(folder / "validation.npz")
    assert held["member"].dtype == np.int64
    assert held["member"].tolist() == [1] * 150 + [2] * 150 + [3] * 150
    assert sorted(held["row"][:300].tolist()) == list(range(300))
    right = held["probabilities"].argmax(axis=1) == few_digits.train_labels.numpy()[held["row"]]
    assert metrics["validation"]["images"] == 450
    assert metrics["validation"]["accuracy"] == pytest.approx(right.mean())
    assert metrics["members"][1]["accuracy"] == pytest.approx(right[150:300].mean())
    losses = [figures["loss"] for figures in metrics["members"]]
    assert metrics["validation"]["loss"] == pytest.approx(sum(losses) / 3)

    networks = load_model(folder / "model.pt", compute := choose_compute())
    assert [network[0].width for network in networks] == [0, 8, 0]
    by_member = [predict_probabilities([net], few_digits.test_images, compute, three.views)
                 for net in networks]  # fmt: skip
    answers = np.load(folder / "members.npz")["digits"]
    assert answers.dtype == np.uint8
    assert answers.tolist() == [said.argmax(dim=1).tolist() for said in by_member]
    mean = np.load(folder / "probabilities.npy")
    np.testing.assert_allclose(mean, sum(by_member).numpy() / 3, atol=1e-6)
    together = predict_probabilities(networks, few_digits.test_images, compute, three.views)
    assert together.numpy().tobytes() == mean.tobytes(), "summed up in the same order"
    again = predict_run(folder, data_folder, tmp_path / "again.csv")
    assert again.read_bytes() == (folder / "submission.csv").read_bytes()


def test_a_member_depends_on_its_number_and_not_on_those_before_it(few_digits, three, tmp_path):
    compute = choose_compute()

    def weights(number: int, seed: int, folder: str) -> dict[str, torch.Tensor]:
        settings = dataclasses.replace(three, seed=seed)
        return train_member(number, few_digits, settings, compute, tmp_path / folder).weights

    def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(first[name], second[name]) for name in first)

    first, second = (weights(number, 0, "one") for number in (1, 2))
    assert same(second, weights(2, 0, "another"))
    assert not same(first, second)


@pytest.mark.parametrize("saves", [3])
def test_a_run_of_several_members_goes_on_after_those_that_are_done(
    tmp_path, few_source, three, monkeypatch, saves, caplog
):
    caplog.set_level("INFO", "digitkaggle")
    whole = run(three, few_source, out=tmp_path / "whole")
    with monkeypatch.context() as patched:
        cut_off_after(saves, patched)
        with pytest.raises(KeyboardInterrupt):
            run(three, few_source, out=tmp_path / "cut")
    caplog.clear()
    resumed = run(three, few_source, out=tmp_path / "cut")
    same_results(resumed, whole)
    assert (resumed / "members.npz").read_bytes() == (whole / "members.npz").read_bytes()
    assert set(contents(resumed)) == set(contents(whole))
    assert "from the checkpoint" in caplog.text
