from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from digitkaggle.core.basics import Digits, InputError
from digitkaggle.core.device import choose_compute
from digitkaggle.core.networks import build_network
from digitkaggle.core.prediction import Model
from digitkaggle.core.run import Member, run, train_member
from digitkaggle.core.settings import Settings, derive_member_settings, make_settings
from tests.core import CPU, are_equal


@pytest.fixture
def three(quick_settings):
    """Settings of three members on two folds."""
    changes = {"members": 3, "validation_fraction": 0.5, "epochs": 1}
    return dataclasses.replace(quick_settings, **changes)


def are_same(first: Member, second: Member) -> bool:
    """Whether two members are equal except for the time they took."""
    rows = [[{**row, "seconds": 0} for row in member.history] for member in (first, second)]
    names = ("held_out_rows", "held_out_probabilities", "probabilities")
    pairs = [torch.equal(getattr(first, name), getattr(second, name)) for name in names]
    return rows[0] == rows[1] and are_equal(first.weights, second.weights) and all(pairs)


def test_the_result_does_not_depend_on_the_order_in_which_members_arrive(few_digits, three):
    plain = run(three, few_digits, CPU)
    assert [member.number for member in plain.members] == [1, 2, 3]
    other = run(
        three, few_digits, CPU, map_members=lambda train_one, numbers: map(train_one, numbers[::-1])
    )
    assert all(map(are_same, plain.members, other.members))
    assert torch.equal(plain.probabilities, other.probabilities)
    assert are_same(train_member(2, three, few_digits, CPU), plain.members[1])
    assert not are_equal(plain.members[0].weights, plain.members[2].weights), (
        "each has its own seed"
    )
    fewer = run(
        three, few_digits, CPU, map_members=lambda train_one, numbers: map(train_one, [3, 1])
    )
    assert all(map(are_same, fewer.members, [plain.members[0], plain.members[2]]))


def test_the_members_weights_give_the_runs_probabilities_to_the_byte(few_digits, three):
    result, networks = run(three, few_digits, CPU), []
    for member in result.members:
        networks.append(
            build_network(derive_member_settings(three, member.number), torch.Generator())
        )
        networks[-1].load_state_dict(member.weights)
        held_out = few_digits.train_images[member.held_out_rows]
        probabilities = Model(networks[-1:], three, CPU).predict(held_out)
        assert torch.equal(probabilities, member.held_out_probabilities)
    probabilities = Model(networks, three, CPU).predict(few_digits.test_images)
    assert torch.equal(result.probabilities, probabilities)


def test_a_wrapper_around_every_members_epochs_may_end_a_training(few_digits, three):
    rows = []

    def wrap_epochs(number, training, epochs):
        for row in epochs:
            rows.append((number, row["epoch"], training.epoch))
            training.epochs = 2
            yield row

    longer = dataclasses.replace(three, epochs=5, members=2)
    result = run(longer, few_digits, CPU, wrap_epochs=wrap_epochs)
    assert rows == [(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2)]
    assert [(len(m.history), m.planned_epochs) for m in result.members] == [(2, 5), (2, 5)]


# So that a run takes no more than a second.
SMALL = {
    "members": st.integers(1, 2),
    "image_sizes": st.lists(st.integers(15, 28), min_size=1, max_size=3),
    "widths": st.tuples(*[st.integers(1, 4)] * 3),
    "depths": st.tuples(*[st.integers(1, 3)] * 2),
    "epochs": st.integers(1, 2),
    "minimum_steps": st.integers(0, 3),
    "patience": st.integers(0, 2),
    "batch_size": st.integers(40, 200),
}


def draw_value(field: dataclasses.Field) -> st.SearchStrategy:
    """Any value that a setting allows."""
    low, high, choices = (field.metadata[name] for name in ("low", "high", "choices"))
    if choices or isinstance(field.default, bool):
        return st.sampled_from(choices or (False, True))
    if isinstance(field.default, int):
        return st.integers(int(low), int(high))
    return st.floats(low, high)


SOME_SETTINGS = {f.name: draw_value(f) for f in dataclasses.fields(Settings)[1:]} | SMALL


@given(changes=st.fixed_dictionaries({}, optional=SOME_SETTINGS))
@settings(max_examples=50)
@example(changes={"frozen_layers": 13})
@example(changes={"learning_rate": 1e6, "weight_decay": 1e6, "validation_fraction": 0})
@example(changes={"network": "classic"})
@example(changes={"piece_size": 1})
def test_a_run_with_any_settings_predicts_or_is_refused(few_digits, changes):
    images, labels = few_digits.train_images[:200], few_digits.train_labels[:200]
    digits = Digits(images, labels, few_digits.test_images[:5])
    quick = {"epochs": 1, "minimum_steps": 0, "widths": (4, 4, 4)}
    try:
        chosen = make_settings("fast", quick | changes)
        probabilities = run(chosen, digits, choose_compute(chosen, "cpu")).probabilities
    except InputError:
        return
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))
