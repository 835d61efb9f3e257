from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitkaggle.core.basics import InputError
from digitkaggle.core.settings import PRESETS, Settings, make_settings, member_settings


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
        {"erasing": (8, 29)},
        {"widht": 8},
        {"image_sizes": (20, 28), "augmentation": "none"},
        {"patience": 3, "validation_fraction": 0},
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_setting(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        make_settings("fast", changes)


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="fast, balanced, best, record, classic"):
        make_settings("quick", {})


def test_whoever_sets_epochs_gets_them_even_where_the_preset_asks_for_more_steps():
    assert PRESETS["balanced"].minimum_steps > 0
    assert make_settings("balanced", {"epochs": 1}).minimum_steps == 0
    assert make_settings("balanced", {"epochs": 1, "minimum_steps": 9}).minimum_steps == 9


ANY_VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=4), st.dictionaries(st.text(), st.none(), max_size=1),
)  # fmt: skip
NAMES = [field.name for field in dataclasses.fields(Settings)][1:]


@given(st.dictionaries(st.sampled_from(NAMES), ANY_VALUE, max_size=3))
def test_any_values_either_make_settings_of_the_right_types_or_are_refused(changes):
    try:
        settings = make_settings("fast", changes)
    except InputError:
        return
    for name, value in vars(PRESETS["fast"]).items():
        assert type(getattr(settings, name)) is type(value)


def test_members_erase_squares_of_their_sizes_in_turn_and_each_a_seed_of_its_own():
    settings = make_settings("fast", {"members": 4, "seed": 7, "erasing": [0, 8, 11]})
    members = [member_settings(settings, number) for number in range(1, 5)]
    assert [one.erasing for one in members] == [(0,), (8,), (11,), (0,)]
    assert [one.seed for one in members] == [7, 8, 9, 10]
    last = member_settings(make_settings("fast", {"seed": 2**63 - 1}), 2)
    assert last.seed == 0
