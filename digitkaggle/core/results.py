"""The results.

What a run leaves: the submission, the weights, the history of the training, a few figures as JSON,
what it says of every image, and one picture to look at. Every file is written beside its place and
renamed, so it is whole or not there."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from .basics import CLASSES, IMAGE_SIZE, VERSION, Digits, InputError
from .run import Result

SUBMISSION, MODEL, HISTORY = "submission.csv", "model.pt", "history.csv"
METRICS, PICTURE = "metrics.json", "result.png"
PROBABILITIES, VALIDATION = "probabilities.npy", "validation.npz"
FIRST, SECOND = "#2563c9", "#c2510c"  # colours of training and validation


def write_results(
    folder: Path, result: Result, digits: Digits, metrics: dict, submission: str = SUBMISSION
) -> None:
    """Put a run's files into a folder, last of all `metrics.json`, from `run_metrics`."""
    probabilities, held_out = result.probabilities.numpy(), held_out_answers(result, digits)
    table, lines = history_table(result), enumerate(probabilities.argmax(axis=1), start=1)
    answers = "".join(["ImageId,Label\n", *(f"{number},{digit}\n" for number, digit in lines)])
    weights = {member.number: member.weights for member in result.members}
    model = {"settings": vars(result.settings), "members": weights}
    how = {"fmt": "%.9g", "delimiter": ",", "header": ",".join(table.dtype.names), "comments": ""}
    write_file(folder / MODEL, lambda file: torch.save(model, file))
    write_file(folder / HISTORY, lambda file: np.savetxt(file, table, **how))
    write_file(folder / PROBABILITIES, lambda file: np.save(file, probabilities))
    write_file(folder / PICTURE, lambda file: picture(result, digits).savefig(file))
    write_file(folder / submission, lambda file: file.write(answers.encode()))
    if len(held_out["row"]):
        write_file(folder / VALIDATION, lambda file: np.savez(file, **held_out))
    write_file(folder / METRICS, lambda file: file.write(json.dumps(metrics, indent=2).encode()))


def write_file(path: Path, save: Callable[[BinaryIO], object] | bytes) -> None:
    """Put bytes, or what `save` writes, at `path` in one step: a reader sees old or new, whole."""
    aside, buffer = path.with_name(f".{path.name}.{os.getpid()}.part"), io.BytesIO()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Through memory: torch would put a file's name among the bytes.
        buffer.write(save) if isinstance(save, bytes) else save(buffer)
        aside.write_bytes(buffer.getbuffer())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        advice = "free some space, mind its rights, or name another folder"
        raise InputError(f"{path} cannot be written ({error.strerror}): {advice}") from error


def history_table(result: Result) -> np.ndarray:
    """The members' histories, one record an epoch, with its columns by name."""
    members = result.teachers + result.members
    rows = [{"member": m.number, **row} for m in members for row in m.history]
    return np.array([tuple(row.values()) for row in rows], [(name, float) for name in rows[0]])


def held_out_answers(result: Result, digits: Digits) -> dict[str, np.ndarray]:
    """Of every held-out image its row in train.csv, label, probabilities, and who judged it."""
    members = result.members
    rows = torch.cat([member.held_rows for member in members])
    return {
        "row": rows.numpy(),
        "label": digits.train_labels[rows].numpy(),
        "probabilities": torch.cat([member.held_probabilities for member in members]).numpy(),
        "member": np.repeat([m.number for m in members], [len(m.held_rows) for m in members]),
    }


def run_metrics(
    result: Result, digits: Digits, source_digest: str, seconds: dict[str, float]
) -> dict[str, Any]:
    """What `metrics.json` says; `best_epoch` and `epochs` of several members are lists.

    The accuracy is that of each held-out image's own member, which never learned from it.
    """
    members, compute, held_out = result.members, result.compute, held_out_answers(result, digits)
    best, epochs = [m.best_epoch for m in members], [len(m.history) for m in members]
    loss = {"loss": sum(member.best_loss for member in members) / len(members)}
    images = {"training_images": len(digits.train_images), "test_images": len(digits.test_images)}
    all_members = result.teachers + members
    spent = {part: sum(m.seconds[part] for m in all_members) for part in members[0].seconds}
    judged = accuracy(held_out["probabilities"], held_out["label"]) | loss
    return {
        "settings": vars(result.settings),
        "versions": {"digitkaggle": VERSION, "torch": torch.__version__, "numpy": np.__version__},
        "source_digest": source_digest,
        "data": {"origin": digits.origin, "digest": digits.digest()} | images,
        "device": {"name": str(compute.device), "dtype": str(compute.dtype), "why": compute.reason},
        "warnings": [compute.warning] if compute.warning else [],
        "seconds": {name: round(value, 3) for name, value in (spent | seconds).items()},
        "validation": judged if judged["images"] else None,
        "temperatures": [round(member.temperature, 3) for member in members],
        "best_epoch": best if result.settings.members > 1 else best[0],
        "epochs": epochs if result.settings.members > 1 else epochs[0],
    }


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy (0 to 1), its binomial standard error, and the number of images; 0 of none."""
    images = len(labels)
    right = int((probabilities.argmax(axis=1) == labels).sum()) / max(images, 1)
    error = math.sqrt(right * (1 - right) / max(images, 1))
    return {"accuracy": right, "standard_error": error, "images": images}


def picture(result: Result, digits: Digits) -> Any:
    """Curves, confusions and the surest mistakes, as one matplotlib figure."""
    # A Figure of its own needs no display; imported here, for it costs a second.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 10))
    losses, errors, confusion, mistakes = figure.subplots(2, 2).flat
    draw_curves(losses, history_table(result), "loss")
    draw_curves(errors, history_table(result), "accuracy")
    held_out = held_out_answers(result, digits)
    if len(held_out["row"]):
        draw_confusion(confusion, held_out)
        draw_mistakes(mistakes, digits, held_out)
    return figure


def draw_curves(axes: Any, history: np.ndarray, quantity: str) -> None:
    """`loss`, or `accuracy` as errors on a scale that shows one in a thousand, over epochs."""
    for part, label, colour in (("train", "training", FIRST), ("val", "held out", SECOND)):
        for number in np.unique(history["member"]):
            rows = history[history["member"] == number]
            values = rows[f"{part}_{quantity}"]
            values = values if quantity == "loss" else (1 - values).clip(min=2e-4)
            named = {"label": label} if number == history["member"].min() else {}
            axes.plot(rows["epoch"], values, ".-", color=colour, alpha=0.8, **named)
    axes.set(xlabel="epoch", title="loss" if quantity == "loss" else "share named wrong")
    axes.set_yscale("linear" if quantity == "loss" else "log")
    axes.legend()


def draw_confusion(axes: Any, held_out: Mapping[str, np.ndarray]) -> None:
    """How often each true class was taken for each other; colours on a logarithmic scale."""
    pairs = CLASSES * held_out["label"] + held_out["probabilities"].argmax(axis=1)
    counts = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    axes.imshow(counts + 0.5, cmap="Blues", norm="log")
    for row, column in np.argwhere(counts):
        colour = "white" if row == column else "black"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    ticks = {"xticks": range(CLASSES), "yticks": range(CLASSES)}
    axes.set(xlabel="predicted digit", ylabel="true digit", **ticks)


def draw_mistakes(axes: Any, digits: Digits, held_out: Mapping[str, np.ndarray]) -> None:
    """The held-out images that were named wrong, the surest first: what was said, how surely."""
    predicted, labels = held_out["probabilities"].argmax(axis=1), held_out["label"]
    confidence = held_out["probabilities"].max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    first = wrong[np.argsort(-confidence[wrong], kind="stable")][:40]
    captions = [f"{predicted[i]}, {confidence[i]:.0%}\nis a {labels[i]}" for i in first]
    draw_images(axes, digits.train_images[held_out["row"][first]], captions)
    axes.set_title(f"the surest of {len(wrong)} mistakes among {len(labels)} held-out images")


def draw_images(axes: Any, images: Tensor, captions: Sequence[str] = (), columns: int = 10) -> None:
    """Small images, uint8, N x 1 x 28 x 28, in rows, dark on white as one reads, captions below."""
    high, wide = IMAGE_SIZE + (16 if captions else 4), IMAGE_SIZE + 4
    rows = max(1, -(-len(images) // columns))
    canvas = np.zeros((rows * columns, high, wide), dtype=np.uint8)
    canvas[: len(images), :IMAGE_SIZE, 2:-2] = images.squeeze(1).numpy()
    canvas = canvas.reshape(rows, columns, high, wide).swapaxes(1, 2).reshape(rows * high, -1)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)
    axes.axis("off")
    for place, caption in enumerate(captions):
        x, y = place % columns * wide + wide / 2, place // columns * high + IMAGE_SIZE + 1
        axes.text(x, y, caption, ha="center", va="top", fontsize=7)
