"""The results.

What a run leaves on disk: the submission, the weights, the history of the training, metrics as
JSON, all probabilities, and one picture. Every file is written under another name and then renamed,
so it is either complete or not there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .basics import VERSION, Digits, InputError
from .run import Result

SUBMISSION, MODEL, HISTORY = "submission.csv", "model.pt", "history.csv"
METRICS, PICTURE = "metrics.json", "result.png"
PROBABILITIES, VALIDATION = "probabilities.npy", "validation.npz"


@dataclass(frozen=True)
class HeldOutPredictions:
    """The predictions for held-out images, each by a network that did not train on it."""

    row: np.ndarray  # int64, N: rows of train.csv, from 0
    label: np.ndarray  # int64, N: the true classes
    probabilities: np.ndarray  # float32, N x 10
    member: np.ndarray | None = None  # int64, N: the number of that network, if known

    def __len__(self) -> int:
        return len(self.row)

    @property
    def predicted(self) -> np.ndarray:
        """The most likely class of each image, int64, N."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of that class, float32, N."""
        return self.probabilities.max(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Whether that class is the true one, bool, N."""
        return self.predicted == self.label


def collect_held_out(result: Result, digits: Digits) -> HeldOutPredictions:
    """The members' predictions for the images that they held out."""
    rows = torch.cat([member.held_out_rows for member in result.members])
    counts = [len(member.held_out_rows) for member in result.members]
    return HeldOutPredictions(
        row=rows.numpy(),
        label=digits.train_labels[rows].numpy(),
        probabilities=torch.cat([m.held_out_probabilities for m in result.members]).numpy(),
        member=np.repeat([member.number for member in result.members], counts),
    )


def compute_data_digest(digits: Digits) -> str:
    """SHA-256 of all pixels and labels: the same for the same digits, however stored."""
    total = hashlib.sha256()
    tensors = (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels)
    for tensor in tensors:
        if tensor is not None:
            # The shape too: else a row moved from train to test would not change the digest.
            total.update(f"{tuple(tensor.shape)}".encode())
            total.update(tensor.contiguous().numpy().data)
    return total.hexdigest()


def write_results(
    folder: Path, result: Result, digits: Digits, metrics: dict, submission: str = SUBMISSION
) -> None:
    """Write a run's files; `metrics.json`, which marks a finished run, comes last."""
    from .drawing import QUICK_PNG, draw_result

    probabilities = result.probabilities.numpy()
    held_out = collect_held_out(result, digits)
    history = make_history_table(result)
    columns = ",".join(history.dtype.names)
    lines = [
        f"{number},{digit}\n" for number, digit in enumerate(probabilities.argmax(axis=1), start=1)
    ]
    weights = {member.number: member.weights for member in result.members}
    model = {"settings": vars(result.settings), "members": weights}
    write_file(folder / MODEL, lambda file: torch.save(model, file))
    write_file(
        folder / HISTORY,
        lambda file: np.savetxt(
            file, history, fmt="%.9g", delimiter=",", header=columns, comments=""
        ),
    )
    write_file(folder / PROBABILITIES, lambda file: np.save(file, probabilities))
    picture = draw_result(result, digits)
    write_file(folder / PICTURE, lambda file: picture.savefig(file, pil_kwargs=QUICK_PNG))
    write_file(folder / submission, "".join(["ImageId,Label\n", *lines]).encode())
    if len(held_out):
        write_file(folder / VALIDATION, lambda file: np.savez(file, **vars(held_out)))
    write_file(folder / METRICS, json.dumps(metrics, indent=2).encode())


def prepare_folder(folder: Path) -> None:
    """Create a folder for results; InputError, before any work, if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{folder} cannot be used ({error.strerror}): choose another --out"
        ) from error


def write_file(path: Path, save: Callable[[BinaryIO], object] | bytes) -> None:
    """Put bytes, or what `save` writes, at `path` in one step: readers see the old or new file."""
    temporary, buffer = path.with_name(f".{path.name}.{os.getpid()}.part"), io.BytesIO()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(save, bytes):
            buffer.write(save)
        else:  # through memory: torch would write the file's name into the file
            save(buffer)
        temporary.write_bytes(buffer.getbuffer())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        advice = "free some space, check its permissions, or name another folder"
        raise InputError(f"{path} cannot be written ({error.strerror}): {advice}") from error


def make_history_table(result: Result) -> np.ndarray:
    """The members' histories: one record per epoch, with named columns."""
    rows = [{"member": member.number, **row} for member in result.members for row in member.history]
    return np.array([tuple(row.values()) for row in rows], [(name, float) for name in rows[0]])


def collect_metrics(
    result: Result, digits: Digits, source_digest: str, seconds: dict[str, float]
) -> dict[str, Any]:
    """The contents of `metrics.json`; `best_epoch` and `epochs` of several members are lists."""
    members, compute = result.members, result.compute
    held_out = collect_held_out(result, digits)
    validation = None
    if len(held_out):
        # Each held-out image is predicted by its own member, which did not train on it.
        validation = measure_accuracy(held_out.probabilities, held_out.label)
        validation["loss"] = sum(member.best_loss for member in members) / len(members)
    spent = {part: sum(m.seconds[part] for m in members) for part in members[0].seconds}
    best_epochs, epochs = [m.best_epoch for m in members], [len(m.history) for m in members]
    several = result.settings.members > 1
    return {
        "settings": vars(result.settings),
        "versions": {"digitkaggle": VERSION, "torch": torch.__version__, "numpy": np.__version__},
        "source_digest": source_digest,
        "data": {
            "origin": digits.origin,
            "digest": compute_data_digest(digits),
            "training_images": len(digits.train_images),
            "test_images": len(digits.test_images),
        },
        "device": {"name": str(compute.device), "dtype": str(compute.dtype), "why": compute.reason},
        "warnings": [compute.warning] if compute.warning else [],
        "seconds": {name: round(value, 3) for name, value in (spent | seconds).items()},
        "validation": validation,
        "temperatures": [round(member.temperature, 3) for member in members],
        "best_epoch": best_epochs if several else best_epochs[0],
        "epochs": epochs if several else epochs[0],
    }


def measure_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy (0 to 1), its binomial standard error, and the number of images."""
    images = len(labels)
    accuracy = int((probabilities.argmax(axis=1) == labels).sum()) / images
    error = math.sqrt(accuracy * (1 - accuracy) / images)
    return {"accuracy": accuracy, "standard_error": error, "images": images}
