from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitkaggle.core.basics import InputError
from digitkaggle.core.settings import (
    PRESETS,
    Settings,
    derive_member_settings,
    make_settings,
)


def test_the_classic_preset_is_the_published_recipe():
    classic = PRESETS["classic"]
    assert (classic.augmentation, classic.network, classic.dropout) == ("expanded", "classic", 0.5)
    assert (classic.optimizer, classic.learning_rate, classic.weight_decay) == ("adam", 2e-4, 0)
    assert (classic.batch_size, classic.epochs, classic.schedule) == (4096, 150, "constant")
    assert (classic.validation_fraction, classic.split_by_class) == (0.25, False)


@pytest.mark.parametrize(
    "changes",
    [
        *({"epochs": value} for value in (0, 1.5, True, 10**12)),
        *({"validation_fraction": value} for value in (1.0, -0.1)),
        *({"learning_rate": value} for value in (0, float("nan"), float("inf"), "0.1")),
        *({"dropout": value} for value in (1.0, None)),
        *({"seed": value} for value in (-1, 2**63)),
        *({"widths": value} for value in (8, (), (8, 8), (8, 0, 8), (8, True, 8))),
        {"split_seed": 2**32},
        {"network": "resnet"},
        {"image_sizes": (8, 29)},
        {"widht": 8},
        {"image_sizes": (20, 28), "augmentation": "none"},
        {"image_sizes": (20, 28), "network": "classic"},
        {"patience": 3, "validation_fraction": 0},
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_setting(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        make_settings("fast", changes)


def test_an_unknown_preset_is_an_error_that_lists_the_presets():
    with pytest.raises(InputError, match="fast, balanced, best, record, classic"):
        make_settings("quick", {})


def test_epochs_that_are_given_switch_minimum_steps_off_and_both_flags_say_so():
    assert PRESETS["balanced"].minimum_steps > 0
    assert make_settings("balanced", {"epochs": 1}).minimum_steps == 0
    assert make_settings("balanced", {"epochs": 1, "minimum_steps": 9}).minimum_steps == 9
    meanings = {field.name: field.metadata["meaning"] for field in dataclasses.fields(Settings)}
    assert "minimum_steps" in meanings["epochs"]
    assert "epochs are given" in meanings["minimum_steps"]


ANY_VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=4), st.dictionaries(st.text(), st.none(), max_size=1),
)  # fmt: skip
NAMES = [field.name for field in dataclasses.fields(Settings)][1:]


@given(st.dictionaries(st.sampled_from(NAMES), ANY_VALUE, max_size=3))
def test_any_values_make_settings_of_the_right_types_or_are_an_error(changes):
    try:
        settings = make_settings("fast", changes)
    except InputError:
        return
    for name, value in vars(PRESETS["fast"]).items():
        assert type(getattr(settings, name)) is type(value)


def test_each_member_has_its_own_seed_and_nothing_else():
    settings = make_settings("fast", {"members": 4, "seed": 7})
    members = [derive_member_settings(settings, number) for number in range(1, 5)]
    assert [member.seed for member in members] == [7, 8, 9, 10]
    assert all(dataclasses.replace(member, seed=7) == settings for member in members)
    last = derive_member_settings(make_settings("fast", {"seed": 2**63 - 1}), 2)
    assert last.seed == 0


NUMPY = {
    "epochs": np.int64(2),
    "learning_rate": np.float32(0.5),
    "rotation": np.int32(5),
    "split_by_class": np.bool_(False),
    "schedule": np.str_("constant"),
    "widths": np.array([4, 8, 16]),
    "image_sizes": [np.int64(20), np.int64(28)],
}


@pytest.mark.parametrize("name", NUMPY)
def test_numpys_values_are_settings_as_pythons_are(name):
    value = NUMPY[name]
    settings = make_settings("fast", {name: value})
    plain = getattr(settings, name)
    assert type(plain) is type(getattr(PRESETS["fast"], name))
    assert np.array_equal(plain, value)
    assert json.loads(json.dumps(vars(settings)))  # numpy's own types are not JSON


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epochs", np.float64(2.5)), ("epochs", np.bool_(True)), ("dropout", np.float64("nan"))),
        *(("widths", np.array([4.5, 8, 16])), ("widths", np.ones((3, 1), int))),
    ],
)
def test_numpys_values_of_a_wrong_type_are_an_error_too(name, value):
    with pytest.raises(InputError, match=name):
        make_settings("fast", {name: value})
