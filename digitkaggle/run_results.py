"""What a run leaves behind: what its networks are and say, and what `metrics.json` tells of it.

`results` reads it back.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .budget import TimeBudget
from .data import Digits
from .device import Compute
from .files import write_array, write_arrays, write_text
from .members import Member
from .models import save_weights
from .prediction import mean_probabilities
from .run_folder import HISTORY, MEMBERS, MODEL, PROBABILITIES, VALIDATION
from .settings import VERSION, Settings
from .submission import write_submission


def write_results(
    folder: Path, settings: Settings, members: Sequence[Member], digits: Digits, submission: str
) -> None:
    """Put into a run's folder what its members are and say, all but `metrics.json` and the report.

    Args:
        folder: the run's.
        settings: the run's.
        members: those that are trained.
        digits: what they learned from.
        submission: the name of the file with the mean's answers.

    Raises:
        InputError: a file cannot be written.
    """
    save_weights(folder / MODEL, [member.weights for member in members], settings)
    write_text(folder / HISTORY, history_csv(members))
    probabilities = mean_probabilities([member.probabilities for member in members])
    write_array(folder / PROBABILITIES, probabilities.numpy())
    rows = torch.cat([member.held_rows for member in members])
    held_probabilities = torch.cat([member.held_probabilities for member in members])
    arrays = {
        "row": rows.numpy(),
        "label": digits.train_labels[rows].numpy(),
        "probabilities": held_probabilities.numpy(),
    }
    if settings.members > 1:
        answers = [member.probabilities.argmax(dim=1).byte() for member in members]
        write_arrays(folder / MEMBERS, digits=torch.stack(answers).numpy())
        sizes = [len(member.held_rows) for member in members]
        arrays["member"] = np.repeat([member.number for member in members], sizes)
    write_arrays(folder / VALIDATION, **arrays)
    write_submission(folder / submission, probabilities.argmax(dim=1), len(digits.test_images))


def history_csv(members: Sequence[Member]) -> str:
    """The members' histories as CSV text, one row an epoch.

    The epochs on all images of a refit go on numbering after the validated ones; their columns of
    validation are empty.
    """
    lines = [",".join(("member", *members[0].history[0]))]
    for member in members:
        for row in member.history:
            values = (member.number, *row.values())
            lines.append(",".join("" if value != value else f"{value:.9g}" for value in values))
    return "\n".join(lines) + "\n"


def run_metrics(
    settings: Settings, members: Sequence[Member], digits: Digits, time_budget: TimeBudget | None
) -> dict[str, Any]:
    """What `metrics.json` says of the settings and the result.

    Of several members, the accuracy is that of each held-out image's own member: no image is judged
    by a network that learned from it. `best_epoch` and `epochs` are lists then.
    """
    labels = digits.train_labels
    by_member = [
        {
            "member": member.number,
            "best_epoch": member.best_epoch,
            "epochs": member.validated_epochs,
        }
        | accuracy_metrics(member.held_probabilities, labels[member.held_rows])
        | {"loss": member.best_loss}
        for member in members
    ]
    rows = torch.cat([member.held_rows for member in members])
    held_probabilities = torch.cat([member.held_probabilities for member in members])
    metrics: dict[str, Any] = {
        "settings": settings.as_dict(),
        "versions": versions_used(),
        "best_epoch": [figures["best_epoch"] for figures in by_member],
        "epochs": [figures["epochs"] for figures in by_member],
        "validation": accuracy_metrics(held_probabilities, labels[rows])
        | {"loss": sum(member.best_loss for member in members) / len(members)},
    }
    if settings.members == 1:
        metrics |= {name: metrics[name][0] for name in ("best_epoch", "epochs")}
    else:
        metrics["members"] = by_member
    if digits.test_labels is not None:
        probabilities = mean_probabilities([member.probabilities for member in members])
        metrics["test"] = accuracy_metrics(probabilities, digits.test_labels)
    if settings.refit:
        metrics["refit"] = refit_in_words(members, len(labels))
    cuts = [f"member {member.number}: {member.cut}" for member in members if member.cut]
    if len(members) < settings.members:
        cuts.append(f"{len(members)} of {settings.members} members are trained")
    if time_budget or cuts:
        seconds = time_budget.seconds if time_budget else None  # a run before this one had it
        metrics["time_budget"] = {"seconds": seconds, "cut": "; ".join(cuts)}
    return metrics


def accuracy_metrics(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Accuracy (0 to 1), its binomial standard error, and the number of images it rests on."""
    images = len(labels)
    accuracy = (probabilities.argmax(dim=1) == labels).sum().item() / images
    return {
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / images),
        "images": images,
    }


def refit_in_words(members: Sequence[Member], images: int) -> str:
    """What the model of a refitted run was trained on, and what its accuracy rests on."""
    again = [member for member in members if member.refit_epochs]
    if not again:
        return "no network was trained on all images: the model is what was validated"
    if len(members) == 1:
        return (
            f"the accuracy is that of a network trained on {images - len(members[0].held_rows):,} "
            f"of the {images:,} images; that of the model was trained anew on all of them, for "
            f"the {again[0].refit_epochs} epochs that were best there, and is itself not validated"
        )
    return (
        f"the accuracy is that of networks trained without the images they are judged by; "
        f"{len(again)} of the {len(members)} in the model were trained anew on all {images:,}, "
        "for as many epochs as were best there, and are themselves not validated"
    )


def device_in_words(compute: Compute) -> dict[str, str]:
    """The device, its numbers and the reason, as `metrics.json` has them."""
    return {"name": str(compute.device), "dtype": str(compute.dtype), "why": compute.reason}


def seconds_by_stage(load: float, members: Sequence[Member], total: float) -> dict[str, float]:
    """Seconds of each stage, over all members, and of the whole run, to the millisecond."""
    spent = {"load": load}
    for stage in ("augment", "train", "predict"):
        spent[stage] = sum(member.seconds[stage] for member in members)
    return {stage: round(value, 3) for stage, value in (spent | {"total": total}).items()}


def versions_used() -> dict[str, str]:
    """The versions of what made a run."""
    return {
        "digitkaggle": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
