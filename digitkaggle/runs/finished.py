"""A finished run, read back from its folder: for its report, its model, and comparisons."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.basics import CLASSES, Compute, Digits, InputError, logger
from ..core.device import choose_compute
from ..core.kaggle import KAGGLE_TEST_IMAGES
from ..core.networks import build_network
from ..core.prediction import Model, average_members
from ..core.results import (
    HISTORY,
    METRICS,
    MODEL,
    PROBABILITIES,
    VALIDATION,
    HeldOutPredictions,
    compute_data_digest,
)
from ..core.settings import Settings
from .data import find_default_data, read_data
from .files import read_json, restore_settings
from .folder import MEMBERS, STRANGENESS


@dataclass(frozen=True)
class FinishedRun:
    """The contents of a finished run's folder."""

    folder: Path
    metrics: Mapping[str, Any]
    best_epochs: list[int]  # for each member, the epoch of its weights
    history: np.ndarray  # one record per epoch and member, with named columns
    probabilities: np.ndarray  # float32, test images x 10
    held_out: HeldOutPredictions | None  # None: it trained on all images
    member_digits: np.ndarray | None  # uint8, members x test images; None: one network


def read_run(folder: Path) -> FinishedRun:
    """Read a run's folder; InputError if it holds no finished run, or a damaged one."""
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder} holds no finished run: name the folder of one")
    metrics = read_json(folder / METRICS)
    best_epoch = metrics.get("best_epoch")
    history = read_file(folder / HISTORY, parse_history)
    probabilities = read_file(folder / PROBABILITIES, parse_array)
    validation = read_file(folder / VALIDATION, parse_arrays, optional=True)
    members = read_file(folder / MEMBERS, parse_arrays, optional=True)
    known = [field.name for field in dataclasses.fields(HeldOutPredictions)]
    validation = {name: validation[name] for name in known if name in validation}
    if validation and not {"row", "label", "probabilities"} <= validation.keys():
        raise InputError(f"{folder / VALIDATION} lacks an array: run it again with --fresh")
    if best_epoch is None:
        raise InputError(f"{folder / METRICS} has no best_epoch: run it again with --fresh")
    return FinishedRun(
        folder=folder,
        metrics=metrics,
        best_epochs=best_epoch if isinstance(best_epoch, list) else [best_epoch],
        history=history,
        probabilities=probabilities,
        held_out=HeldOutPredictions(**validation) if validation else None,
        member_digits=members.get("digits"),
    )


def read_file(path: Path, parse: Callable[[bytes], Any], *, optional: bool = False) -> Any:
    """What `parse` makes of a file's bytes; without an optional file, an empty dict."""
    if optional and not path.exists():
        return {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): run it again") from error
    try:
        return parse(content)
    except Exception as error:  # numpy's readers raise all kinds over damaged files
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}): run it again with --fresh") from error


def parse_history(content: bytes) -> np.ndarray:
    """The records of a history.csv."""
    table = np.genfromtxt(io.StringIO(content.decode()), delimiter=",", names=True)
    history = np.atleast_1d(table)
    if np.isnan(history["train_accuracy"]).any():
        raise ValueError("the file is cut off")
    return history


def parse_array(content: bytes) -> np.ndarray:
    """The array of an .npy file."""
    return np.load(io.BytesIO(content), allow_pickle=False)


def parse_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def average_by_row(held_out: HeldOutPredictions) -> HeldOutPredictions:
    """One prediction per image, by `row`: the average of members that share an image."""
    row, first, counts = np.unique(held_out.row, return_index=True, return_counts=True)
    order, ends = np.argsort(held_out.row, kind="stable"), np.cumsum(counts)
    probabilities = np.empty((len(row), CLASSES), dtype=held_out.probabilities.dtype)
    for count in np.unique(counts):
        images = np.flatnonzero(counts == count)
        members = [held_out.probabilities[order[ends[images] - k]] for k in range(count, 0, -1)]
        probabilities[images] = average_members(members)
    return HeldOutPredictions(row, held_out.label[first], probabilities)


def describe_accuracy(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences: accuracy, its error, and the errors to expect on Kaggle's 28,000 images."""
    sentences = ["No images were held out, so only Kaggle can measure the accuracy."]
    if found := metrics.get("validation"):
        images, error = found["images"], found["standard_error"]
        wrong = round((1 - found["accuracy"]) * images)
        expected = wrong / images * KAGGLE_TEST_IMAGES
        margin = error * KAGGLE_TEST_IMAGES
        estimate = f"about {expected:,.0f} errors, give or take {margin:,.0f}"
        if not wrong:  # at 95 % confidence the true number is below 3 in N
            estimate = f"up to {3 / images * KAGGLE_TEST_IMAGES:,.0f} errors"
        sentences = [
            f"{wrong:,} of {images:,} held-out images are misclassified: an accuracy of "
            f"{found['accuracy']:.2%}, with a standard error of {error:.2%}.",
            f"On Kaggle's {KAGGLE_TEST_IMAGES:,} test images expect {estimate}.",
        ]
    if found := metrics.get("test"):
        sentences.append(
            f"The sample's test labels are known: {found['accuracy']:.2%} of its "
            f"{found['images']:,} test digits are correct."
        )
    return sentences


def find_digits_of_run(metrics: Mapping[str, Any], sample: Callable[[], Digits]) -> Digits | None:
    """The digits that a run trained on, identified by their digest; None (logged) without them.

    They are searched where the run found them, and where a run would find them today; `sample`
    loads those of a run on the sample.
    """
    origin, digest = str(metrics["data"].get("origin")), metrics["data"].get("digest")
    for place in filter(None, (Path(origin), find_default_data())):
        with contextlib.suppress(InputError):
            # Only the sample has labels of test images.
            digits = sample() if metrics.get("test") else read_data(place)
            if compute_data_digest(digits) == digest:
                return digits
    logger.warning("Without images: the run's data are neither in %s nor in data/.", origin)
    return None


def build_model(
    settings: Settings, members: Mapping[int, dict[str, Tensor]], compute: Compute
) -> Model:
    """A model with the members' weights, by number; InputError if they do not fit."""
    networks = []
    for weights in members.values():
        network = build_network(settings, torch.Generator())
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:  # how torch reports weights that do not fit
            reason = str(error).partition("\n")[0][:100]
            raise InputError(f"the weights do not fit ({reason})") from error
        networks.append(network.eval())
    return move_model(Model(networks, settings, compute), compute)


def load_model(run: Path, *, device: str = "auto", compute: Compute | None = None) -> Model:
    """The model in a run's folder, or in a model.pt itself, on the chosen device.

    Raises:
        InputError: the file is missing, damaged, or not a model of ours (nothing in it is
            executed); the device does not work.
    """
    path = run / MODEL if run.is_dir() else run
    advice = "name the folder of a finished run; a run of an older version has to be run again"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise all kinds over damaged files
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:100]
        raise InputError(f"{path} cannot be read ({reason}): {advice}") from error
    try:
        check_content(content)
        settings = restore_settings(content["settings"])
        on_cpu = Compute(torch.device("cpu"), torch.float32, "")
        model = build_model(settings, content["members"], on_cpu)
    except InputError as error:
        raise InputError(f"{path} is not a model of ours ({error}): {advice}") from error
    return move_model(model, compute or choose_compute(settings, device))


def load_statistics(run: Path) -> dict[str, np.ndarray]:
    """What `fit_strangeness` left in a run's folder, or beside a model.pt; empty without it."""
    folder = run if run.is_dir() else run.parent
    return read_file(folder / STRANGENESS, parse_arrays, optional=True)


def move_model(model: Model, compute: Compute) -> Model:
    """The model on another device, in its memory format; the networks are the same objects."""
    for network in model.networks:
        network.to(device=compute.device, memory_format=compute.memory_format)
    return Model(model.networks, model.settings, compute)


def check_content(content: Any) -> None:
    """InputError unless a model.pt has settings, and tensors by name for each member."""
    found = content if isinstance(content, dict) else {}
    members = found.get("members")
    if not isinstance(found.get("settings"), dict) or not isinstance(members, dict) or not members:
        raise InputError("it has no settings and members")
    for weights in members.values():
        if not isinstance(weights, dict) or not all(
            isinstance(w, Tensor) for w in weights.values()
        ):
            raise InputError("a member has no weights")
