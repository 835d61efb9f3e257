from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitkaggle.errors import InputError
from digitkaggle.settings import PRESETS, Settings, make_settings, recorded_settings


def test_the_classic_preset_is_the_published_recipe():
    classic = PRESETS["classic"]
    assert (classic.validation_fraction, classic.split_by_class) == (0.25, False)
    assert (classic.augmentation, classic.network, classic.dropout) == ("expanded", "classic", 0.5)
    assert (classic.optimizer, classic.learning_rate, classic.weight_decay) == ("adam", 2e-4, 0)
    assert (classic.batch_size, classic.epochs, classic.schedule) == (4096, 150, "constant")
    assert classic.softmax_head
    assert classic.label_smoothing == classic.patience == classic.minimum_steps == 0


def test_presets_carry_their_own_names():
    assert all(settings.preset == name for name, settings in PRESETS.items())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 0}, "epochs 0 is outside [1, 1e9]"),
        ({"epochs": 1.5}, "epochs is a whole number, not 1.5"),
        ({"epochs": True}, "epochs is a whole number, not True"),
        ({"validation_fraction": 1.5}, "validation_fraction 1.5 is outside (0, 1)"),
        ({"validation_fraction": 0}, "validation_fraction 0 is outside (0, 1)"),
        ({"batch_size": -1}, "batch_size -1 is outside"),
        ({"learning_rate": float("nan")}, "learning_rate nan is outside (0, 1e6]"),
        ({"learning_rate": float("inf")}, "learning_rate inf is outside"),
        ({"learning_rate": "0.1"}, "learning_rate is a number, not '0.1'"),
        ({"dropout": 1.0}, "dropout 1.0 is outside [0, 1)"),
        ({"seed": -1}, "seed -1 is outside"),
        ({"network": "resnet"}, "network is one of compact, classic, not 'resnet'"),
        ({"softmax_head": 1}, "softmax_head is true or false, not 1"),
        ({"widths": (8, 8)}, "has three stages"),
        ({"widths": [8, 0, 8]}, "widths 0 is outside"),
        ({"widths": 8}, "widths is a list of whole numbers"),
        ({"widht": 8}, "there is no setting 'widht'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(changes, expected):
    with pytest.raises(InputError) as caught:
        make_settings("fast", changes)
    assert expected in str(caught.value)


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="fast, balanced, best, classic"):
        make_settings("quick", {})


def test_settings_survive_json():
    settings = make_settings("fast", {"widths": (4, 5, 6), "learning_rate": 1})
    values = json.loads(json.dumps(settings.as_dict()))
    assert make_settings(values.pop("preset"), values) == settings


def test_whoever_sets_epochs_gets_them_even_where_the_preset_asks_for_more_steps():
    assert PRESETS["balanced"].minimum_steps > 0
    assert make_settings("balanced", {"epochs": 1}).minimum_steps == 0
    assert make_settings("balanced", {"epochs": 1, "minimum_steps": 9}).minimum_steps == 9


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(Settings)][1:]),
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
            st.lists(st.integers(), max_size=4), st.dictionaries(st.text(), st.none(), max_size=1),
        ),
        max_size=3,
    )
)  # fmt: skip
def test_any_values_either_make_settings_or_are_refused(changes):
    try:
        settings = make_settings("fast", changes)
    except InputError:
        return
    assert dataclasses.replace(settings) == settings
    assert all(type(getattr(settings, name)) is type(getattr(PRESETS["fast"], name))
               for name in changes)  # fmt: skip


def test_recorded_settings_come_back_from_any_version_that_has_the_same_values():
    recorded = json.loads(json.dumps(PRESETS["best"].as_dict()))
    assert recorded_settings(recorded) == PRESETS["best"]
    del recorded["shear"]
    assert recorded_settings(recorded | {"dropped_later": 3}) == PRESETS["best"]
    with pytest.raises(InputError, match="network is one of compact"):
        recorded_settings(recorded | {"network": "of another version"})
