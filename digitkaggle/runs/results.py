"""What a finished run left in its folder, read back: for its report, its model, to compare it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.basics import Compute, Digits, InputError, logger
from ..core.data import KAGGLE_TEST_IMAGES
from ..core.device import choose_compute
from ..core.networks import build_network
from ..core.results import HISTORY, METRICS, MODEL, PROBABILITIES, VALIDATION
from ..core.settings import Settings, member_settings
from .files import find_data, read_data, read_json, recorded_settings
from .folder import MEMBERS


@dataclass(frozen=True)
class HeldOutAnswers:
    """What a run said of the images that it held out."""

    row: np.ndarray  # int64, N: places in train.csv
    label: np.ndarray  # int64, N: the true classes
    probabilities: np.ndarray  # float32, N x 10
    member: np.ndarray | None = None  # int64, N: whose images they are, where that is known

    @property
    def predicted(self) -> np.ndarray:
        """The most likely class of each image, int64, N."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of that class, float32, N."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether that class is the true one, bool, N."""
        return self.predicted == self.label


@dataclass(frozen=True)
class Results:
    """A finished run, as its folder has it."""

    folder: Path
    metrics: Mapping[str, Any]
    best_epochs: list[int]  # of each member, the epoch of its weights
    history: np.ndarray  # a record for each epoch and member, with its columns by name
    probabilities: np.ndarray  # float32, test images x 10
    held_out: HeldOutAnswers | None  # None: it trained on all images
    member_digits: np.ndarray | None  # uint8, members x test images; None: one network


def read_results(folder: Path) -> Results:
    """All of a run's folder; InputError if it holds no finished run, or a damaged one."""
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder} holds no finished run: name the folder of one")
    try:
        metrics = read_json(folder / METRICS)
        best_epochs = np.atleast_1d(metrics["best_epoch"]).tolist()
        with (folder / HISTORY).open() as file:
            history = np.atleast_1d(np.genfromtxt(file, delimiter=",", names=True))
        probabilities = np.load(folder / PROBABILITIES, allow_pickle=False)
        arrays, said = read_arrays(folder / VALIDATION), read_arrays(folder / MEMBERS)
        held_out, digits = HeldOutAnswers(**arrays) if arrays else None, said.get("digits")
        if np.isnan(history["train_accuracy"]).any():
            raise ValueError(f"{HISTORY} is cut off")
    except Exception as error:  # whatever damaged files make their readers raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{folder} cannot be read ({reason}): do it again, --fresh") from error
    return Results(folder, metrics, best_epochs, history, probabilities, held_out, digits)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name; none where there is no such file."""
    if not path.exists():
        return {}
    # Through memory: np.load leaves a damaged zip's file open.
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        return dict(arrays)


def merged_by_row(answers: HeldOutAnswers) -> HeldOutAnswers:
    """One answer an image, in the order of `row`: where members share an image, their mean."""
    import pandas as pd

    row, first = np.unique(answers.row, return_index=True)
    means = pd.DataFrame(answers.probabilities).groupby(answers.row).mean()
    return HeldOutAnswers(row, answers.label[first], means.to_numpy())


def accuracy_in_words(metrics: Mapping[str, Any]) -> list[str]:
    """How well a run did, its error, and the wrong images to expect of Kaggle's 28,000."""
    sentences = ["Nothing was held out, so how well it does is for Kaggle to say."]
    if found := metrics.get("validation"):
        images, error = found["images"], found["standard_error"]
        wrong = round((1 - found["accuracy"]) * images)
        about = f"about {wrong / images * KAGGLE_TEST_IMAGES:,.0f} wrong"
        expected = f"{about}, give or take {error * KAGGLE_TEST_IMAGES:,.0f}"
        if not wrong:  # with 95 % the true share is below 3 of so many
            expected = f"up to {3 / images * KAGGLE_TEST_IMAGES:,.0f} wrong"
        sentences = [
            f"{wrong:,} of {images:,} held-out images are named wrong: an accuracy of "
            f"{found['accuracy']:.2%}, with a standard error of {error:.2%}.",
            f"Of Kaggle's {KAGGLE_TEST_IMAGES:,} test images expect {expected}.",
        ]
    if found := metrics.get("test"):
        share = f"{found['accuracy']:.2%} of the {found['images']:,} test digits"
        sentences.append(f"The sample's answers are known: {share} are right.")
    if metrics["settings"].get("learn_from_test"):
        sentences.append("It learned from the test's pixels, too, as a first round named them.")
    return sentences


def digits_of_run(metrics: Mapping[str, Any], sample: Callable[[], Digits]) -> Digits | None:
    """The very digits that a run learned from, by their digest; None, which is said, without them.

    They are looked for where the run found them, and where a run today would; `sample` makes those
    of a run on the sample.
    """
    origin, digest = str(metrics["data"].get("origin")), metrics["data"].get("digest")
    for place in filter(None, (Path(origin), find_data())):
        with contextlib.suppress(InputError):
            # The labels of test images are known of the sample alone.
            digits = sample() if metrics.get("test") else read_data(place)
            if digits.digest() == digest:
                return digits
    logger.warning("Without images: the run's data are neither in %s now nor in data/.", origin)
    return None


def load_model(path: Path, compute: Compute) -> list[nn.Sequential]:
    """The networks of a model.pt, on `compute.device`, in evaluation mode; see `open_model`."""
    return open_model(path, compute=compute)[0]


def networks_of(
    settings: Settings, members: Mapping[int, dict[str, torch.Tensor]]
) -> list[nn.Sequential]:
    """The networks of members' weights by number, on the CPU, in evaluation mode."""
    networks = []
    for number, weights in members.items():
        network = build_network(member_settings(settings, number), torch.Generator())
        network.load_state_dict(weights)
        networks.append(network.eval())
    return networks


def open_model(
    run: Path, *, device: str = "auto", compute: Compute | None = None
) -> tuple[list[nn.Sequential], Settings, Compute]:
    """The networks of a run's folder, or of a model.pt itself, on the device that is chosen.

    Raises:
        InputError: the file is missing, damaged, or no model of ours (nothing in it is executed);
            the device does not work.
    """
    path = run / MODEL if run.is_dir() else run
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        settings, members = recorded_settings(content["settings"]), content["members"]
        networks = networks_of(settings, members)
    except Exception as error:  # whatever torch's readers raise, and weights that do not fit
        reason = str(error).partition("\n")[0][:100]
        advice = "name the folder of a finished run; an older version's has to be done again"
        raise InputError(f"{path} is no model of ours ({reason}): {advice}") from error
    compute = compute or choose_compute(settings, device)
    how = {"device": compute.device, "memory_format": compute.memory_format}
    return [network.to(**how) for network in networks], settings, compute
