from __future__ import annotations

import dataclasses

import pytest
import torch

from digitkaggle.core.networks import build_network
from digitkaggle.core.prediction import predict_probabilities
from digitkaggle.core.run import Member, run, train_member
from digitkaggle.core.settings import member_settings
from tests.core import CPU, same


@pytest.fixture
def three(quick_settings):
    """Settings of three members on two folds, of whom the second erases squares."""
    changes = {"members": 3, "validation_fraction": 0.5, "epochs": 1, "erasing": (0, 8)}
    return dataclasses.replace(quick_settings, **changes)


def equal(first: Member, second: Member) -> bool:
    """Whether two members say and hold the same, but for the time they took."""
    rows = [[{**row, "seconds": 0} for row in member.history] for member in (first, second)]
    names = ("held_rows", "held_probabilities", "probabilities")
    answers = [torch.equal(getattr(first, name), getattr(second, name)) for name in names]
    return rows[0] == rows[1] and same(first.weights, second.weights) and all(answers)


def test_members_in_whatever_order_they_arrive_give_the_same_result(few_digits, three):
    plain = run(three, few_digits, CPU)
    assert [member.number for member in plain.members] == [1, 2, 3]
    other = run(three, few_digits, CPU, each=lambda learn, numbers: map(learn, numbers[::-1]))
    assert all(map(equal, plain.members, other.members))
    assert torch.equal(plain.probabilities, other.probabilities)
    assert equal(train_member(2, three, few_digits, CPU), plain.members[1])
    assert not same(plain.members[0].weights, plain.members[2].weights), "a seed of its own each"
    fewer = run(three, few_digits, CPU, each=lambda learn, numbers: map(learn, [3, 1]))
    assert all(map(equal, fewer.members, [plain.members[0], plain.members[2]]))


def test_the_answers_are_those_of_the_members_weights_to_the_byte(few_digits, three):
    result, networks = run(three, few_digits, CPU), []
    for member in result.members:
        networks.append(build_network(member_settings(three, member.number), torch.Generator()))
        networks[-1].load_state_dict(member.weights)
        held_out = few_digits.train_images[member.held_rows]
        answers = predict_probabilities(networks[-1:], held_out, CPU, three.views)
        assert torch.equal(answers, member.held_probabilities)
    together = predict_probabilities(networks, few_digits.test_images, CPU, three.views)
    assert torch.equal(result.probabilities, together)


def test_a_watch_wraps_the_epochs_of_every_member_and_may_end_a_training(few_digits, three):
    seen = []

    def watch(number, training, epochs):
        for row in epochs:
            seen.append((number, row["epoch"], training.epoch))
            training.epochs = 2
            yield row

    longer = dataclasses.replace(three, epochs=5, members=2)
    result = run(longer, few_digits, CPU, watch=watch)
    assert seen == [(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2)]
    assert [(len(m.history), m.planned_epochs) for m in result.members] == [(2, 5), (2, 5)]


def test_a_second_round_learns_from_test_images_as_the_first_names_them(few_digits, three):
    plain = run(three, few_digits, CPU)
    taught = run(dataclasses.replace(three, learn_from_test=True), few_digits, CPU)
    assert all(map(equal, taught.teachers, plain.members))
    assert [member.number for member in taught.members] == [4, 5, 6]
    settings = dataclasses.replace(three, learn_from_test=True)
    student = train_member(5, settings, few_digits, CPU, test_answers=plain.probabilities)
    assert equal(student, taught.members[1])
    wrong = torch.full_like(plain.probabilities, 0.1)
    assert not same(student.weights, train_member(5, three, few_digits, CPU).weights)
    assert not same(
        student.weights, train_member(5, three, few_digits, CPU, test_answers=wrong).weights
    )
    hurried = run(settings, few_digits, CPU, each=lambda learn, numbers: map(learn, [numbers[0]]))
    assert [member.number for member in hurried.members] == [1], "no second round without a first"
