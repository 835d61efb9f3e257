from __future__ import annotations

import pytest
import torch

from digitkaggle.core.basics import InputError
from digitkaggle.core.folds import split_fold
from digitkaggle.core.settings import make_settings
from digitkaggle.core.split import split_for_member, split_indices


def test_a_split_by_class_holds_out_the_same_fraction_of_every_class_by_its_seed(sample):
    splits = [split_indices(sample.train_labels, 0.1, seed, by_class=True) for seed in (1, 1, 2)]
    (rows, held_out), again, other = splits
    assert sample.train_labels[held_out].bincount().tolist() == [40] * 10
    assert sorted(torch.cat([rows, held_out]).tolist()) == list(range(4000))
    assert torch.equal(held_out, again[1])
    assert not torch.equal(held_out, other[1])


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 1], [0, 0, 1, 1, 2, 2], [3]])
def test_too_few_images_to_split_are_an_error(labels):
    with pytest.raises(InputError, match=r"too few images .*--validation-fraction 0"):
        split_indices(torch.tensor(labels), 0.1, seed=0, by_class=True)
    with pytest.raises(
        InputError, match=r"10 folds need 10 images of every class: --validation-fraction 0"
    ):
        split_fold(torch.tensor(labels), 10, 0, seed=0, by_class=len(labels) > 1)


def test_the_folds_of_several_members_hold_out_every_image_once_by_class(sample):
    settings = make_settings("fast", {"members": 5, "validation_fraction": 0.25})
    members = [split_for_member(sample.train_labels, settings, number) for number in range(1, 6)]
    for rows, held_out in members:
        assert sorted(torch.cat([rows, held_out]).tolist()) == list(range(4000))
        assert sample.train_labels[held_out].bincount().tolist() == [100] * 10
    folds = [held_out for _, held_out in members]
    assert sorted(torch.cat(folds[:4]).tolist()) == list(range(4000))
    assert not torch.equal(folds[4], folds[0]), "the second round shuffles again"
