"""A run in a few words, for the terminal's last screen and the head of its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .digits import KAGGLE_TEST_IMAGES


def headline(metrics: Mapping[str, Any]) -> str:
    """The result in one line."""
    found = metrics.get("validation")
    if not found:
        return "Trained on all images, none held out"
    return (
        f"{100 * found['accuracy']:.2f} % of {found['images']:,} held\u2011out digits named right"
    )


def accuracy_in_words(metrics: Mapping[str, Any]) -> list[str]:
    """What the accuracy means: its error, and the wrong images to expect of Kaggle's 28,000."""
    sentences = []
    if found := metrics.get("validation"):
        wrong = (1 - found["accuracy"]) * KAGGLE_TEST_IMAGES
        error = found["standard_error"] * KAGGLE_TEST_IMAGES
        if wrong:
            sentences = [
                f"The standard error is {100 * found['standard_error']:.2f} %: of Kaggle's "
                f"{KAGGLE_TEST_IMAGES:,} test images expect about {wrong:,.0f} wrong, give or "
                f"take {error:,.0f}."
            ]
        else:
            # No mistake among N: with 95 % the true share is below 3/N.
            most = 3 / found["images"] * KAGGLE_TEST_IMAGES
            sentences = [
                f"No mistake among {found['images']:,}; up to {most:,.0f} wrong of Kaggle's "
                f"{KAGGLE_TEST_IMAGES:,} test images would still fit that."
            ]
    else:
        sentences = ["Nothing was held out, so how well it does is for Kaggle to say."]
    if rests_on := str(metrics.get("refit") or ""):
        sentences.append(f"{rests_on[0].upper()}{rests_on[1:]}.")
    if found := metrics.get("test"):
        sentences.append(
            f"Of the {found['images']:,} test digits, whose answers are known here, "
            f"{100 * found['accuracy']:.2f} % are right."
        )
    return sentences


def facts_of(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run, where and how long, as names and values."""
    settings, data, device = metrics["settings"], metrics["data"], metrics["device"]
    best = metrics["best_epoch"]
    kept = f"epochs {', '.join(map(str, best))}" if isinstance(best, list) else f"epoch {best}"
    seconds = metrics["seconds"]
    facts = [
        ("Preset", f"{settings.get('preset')}, seed {settings.get('seed')}"),
        ("Data", str(data.get("origin"))),
        (
            "Images",
            f"{data['training_images']:,} to learn from, {data['test_images']:,} to predict",
        ),
        ("Device", f"{device.get('name')}, {device.get('dtype')}".replace("torch.", "")),
        ("Why", str(device.get("why"))),
        ("Time", f"{_duration(seconds['total'])}, training {_duration(seconds['train'])}"),
        ("Weights kept", f"{kept} of {metrics.get('epochs')}"),
    ]
    if metrics.get("refit"):
        facts[-1] = ("Best validated", facts[-1][1])
        facts.append(("Refit", str(metrics["refit"])))
    if metrics.get("time_budget"):
        facts.append(("Time budget", str(metrics["time_budget"])))
    return facts


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}\u00a0min {rest}\u00a0s" if minutes else f"{seconds:.1f}\u00a0s"
