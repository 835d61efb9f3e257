from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest

from digitkaggle.core.console import find_size_changes, log_epoch, log_plan
from digitkaggle.core.settings import PRESETS


@pytest.mark.parametrize(
    ("sizes", "epochs", "expected"),
    [
        ((16, 20, 28), 3, [(1, 16), (2, 20), (3, 28)]),
        ((20, 20, 28), 14, [(1, 20), (10, 28)]),  # epoch 10 begins at 20 and ends at 28
        ((16, 20, 28), 27, [(1, 16), (10, 20), (19, 28)]),
        ((28,), 150, [(1, 28)]),
        ((16, 20, 28), 1, [(1, 28)]),
        ((), 9, []),
    ],
)
def test_the_size_of_each_epoch_is_that_of_its_last_step(sizes, epochs, expected):
    assert find_size_changes(sizes, epochs) == expected


def test_the_plan_explains_small_images_to_a_newcomer(caplog):
    with caplog.at_level(logging.INFO, "digitkaggle"):
        log_plan(SimpleNamespace(settings=PRESETS["balanced"], epochs=27), 3600, 400)
        log_plan(SimpleNamespace(settings=PRESETS["classic"], epochs=150), 220_500, 10_500)
    assert [record.message for record in caplog.records] == [
        "3,600 images to train on, 400 held out to validate on",
        "Small images first: epochs 1 to 18 of 27 on 20 x 20 pixels, "
        "epochs 19 to 27 of 27 on 28 x 28 pixels; validation uses the same sizes.",
        "220,500 images to train on, 10,500 held out to validate on",
    ]


def test_only_an_epoch_at_full_size_is_marked_as_the_best(caplog):
    row = {"epoch": 3, "train_loss": 0.7, "train_accuracy": 0.98, "seconds": 1.26}
    row |= {"val_loss": 0.6, "val_accuracy": 0.9921, "learning_rate": 0.1}
    with caplog.at_level(logging.INFO, "digitkaggle"):
        log_epoch(row, SimpleNamespace(epochs=14, best_epoch=3, best_loss=math.inf))
        log_epoch(row, SimpleNamespace(epochs=14, best_epoch=3, best_loss=0.6))
    small, full = [record.message for record in caplog.records]
    assert small == (
        "epoch   3/14  loss 0.7000  accuracy  98.00%  validation loss 0.6000  accuracy  99.21%"
        "    1.3 s"
    )
    assert full == f"{small}  best"
