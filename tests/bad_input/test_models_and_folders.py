"""Models that are none, and run folders that are somebody else's."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from digitkaggle.settings import make_settings
from tests.bad_input.conftest import RUN, assert_refused, model, write


def settings_with(**changes: object) -> dict[str, object]:
    return make_settings("fast", {"widths": (4, 4, 4)}).as_dict() | changes


class Touch:
    """Executes something when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


NAN_WEIGHTS = {name: value * float("nan") if value.is_floating_point() else value
               for name, value in model()["members"][0].items()}  # fmt: skip
MODELS = {
    "no network": (model(members=[]), "it holds no network"),
    "no settings": ({"members": []}, "its settings are missing or unknown"),
    "a list": ([1, 2, 3], "its settings are missing or unknown"),
    "a lone tensor": (torch.zeros(3), "its settings are missing or unknown"),
    "members in words": (model(members="two"), "its weights do not fit its settings"),
    "members that are numbers": (model(members=[7]), "its weights do not fit its settings"),
    "one layer less": (
        model(members=[dict(list(model()["members"][0].items())[1:])]),
        "its weights do not fit its settings",
    ),
    "other widths": (
        model(settings=settings_with(widths=[8, 8, 8])), "its weights do not fit its settings"
    ),
    "words for weights": (
        model(members=[dict.fromkeys(model()["members"][0], "no")]),
        "its weights do not fit its settings",
    ),
    "weights that are NaN": (model(members=[NAN_WEIGHTS]), "its weights are not all numbers"),
    "a preset of the future": (
        model(settings=settings_with(preset="next")), "its settings are missing or unknown"
    ),
    "a setting out of range": (
        model(settings=settings_with(views=99)), "its settings are missing or unknown"
    ),
    "code": ({"settings": Touch()}, "it is damaged, or would run code when opened"),
    "a bare hostile pickle": (Touch(), "it is damaged, or would run code when opened"),
}  # fmt: skip

GOOD_RUN = {"settings": {}, "data_digest": "", "source_digest": ""}
# What stands in the run's folder already, flags, and what is said.
FOLDERS = {
    "a file for a folder": (write("out", "mine"), [], "out is no folder"),
    "a file above the folder": (
        write("mine", "mine"), ["--out", "mine/out"], "mine/out cannot be used"
    ),
    "somebody's submission": (
        write("out/submission.csv", "mine"), [], "results or a checkpoint that no known run wrote"
    ),
    "somebody's model": (write("out/model.pt", "mine"), [], "that no known run wrote"),
    "a file called checkpoint": (write("out/checkpoint", "mine"), [], "that no known run wrote"),
    "a checkpoint without its run": (
        write("out/checkpoint/training-0001.pt", "mine"), [], "that no known run wrote"
    ),
    "a run that is no JSON": (write("out/checkpoint/run.json", "{"), [], "that no known run wrote"),
    "a run that is a list": (write("out/checkpoint/run.json", "[]"), [], "that no known run wrote"),
    "a run whose settings are a list": (
        write("out/checkpoint/run.json", json.dumps(GOOD_RUN | {"settings": []})),
        [], "that no known run wrote",
    ),
    "a run with other settings": (
        write("out/checkpoint/run.json", json.dumps(GOOD_RUN)), [], "preset None there, fast here"
    ),
    "metrics without settings": (
        lambda: (write("out/metrics.json", "{}")(), write("out/history.csv", "mine")()),
        [], "that no known run wrote",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_broken_models_are_refused_and_execute_nothing(desk, capsys, kind):
    content, expected = MODELS[kind]
    if kind.startswith("a bare"):
        Path("model.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, "model.pt")
    assert_refused(capsys, desk, ["predict", "model.pt", "--data", "digits"], expected)
    assert not (desk / "hacked").exists()


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_that_are_somebody_elses_are_refused(desk, capsys, kind):
    prepare, flags, expected = FOLDERS[kind]
    prepare()
    assert_refused(capsys, desk, [*RUN, *flags], expected)


def test_predictions_go_into_no_folder_and_come_from_no_training_file(desk, capsys):
    torch.save(model(), "model.pt")
    flags = ["predict", "model.pt", "--data", "digits"]
    assert_refused(capsys, desk, [*flags, "--out", "digits"], "digits cannot be written")
    train = ["predict", "model.pt", "--data", "digits/train.csv"]
    assert_refused(capsys, desk, train, "is this a training file?")
