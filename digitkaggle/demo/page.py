"""The page to draw on: one HTML file with the model in it, which fetches nothing.

The network is in it as layers (`layers.py`) and as the program that runs them (`network.js`).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import date
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..core.basics import VERSION, Compute, Digits
from ..core.prediction import Model
from ..core.results import METRICS, MODEL, HeldOutPredictions, write_file
from ..runs.finished import FinishedRun, average_by_row, load_model, read_run
from ..runs.strangeness import LEAST_PROBABILITY
from .layers import convert_model

TRIALS, MISTAKES = 40, 10  # digits to click on, and misclassified ones


def write_page(run: Path, out: Path, digits: Digits | None) -> str:
    """Write the page of a run's model to `out`, with digits of its data; describe it.

    Args:
        run: a run's folder, or a model.pt, which is without an accuracy.
        digits: the run's data; None leaves out all held-out digits.

    Raises:
        InputError: there is no model, the page does not know one of its layers, or the file cannot
            be written.
    """
    import jinja2

    cpu = Compute(torch.device("cpu"), torch.float32, "", torch.contiguous_format)
    model = load_model(run, compute=cpu)
    finished = read_run(run) if (run / METRICS).is_file() else None
    held_out = average_by_row(finished.held_out) if finished and finished.held_out else None
    trials, mistakes = choose_digits(held_out) if held_out and digits else ([], [])
    rows = [*trials, *mistakes]
    here = resources.files(__package__)
    html, style, script, *worker = (
        (here / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page.js", "network.js", "drawing.js", "worker.js")
    )
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(html).render(
        version=VERSION,
        style=style,
        script=script,
        worker="\n".join(worker),
        model=convert_model(model),
        page={
            "leastProbability": LEAST_PROBABILITY,
            "digits": stack_digits(digits, held_out.row[rows]) if rows else None,
        },
        facts=list_facts(run, model, finished),
        members=len(model.networks),
        trials=held_out.label[trials].tolist() if rows else [],
        mistakes=[(held_out.label[i], held_out.predicted[i]) for i in mistakes],
        errors=int((~held_out.correct).sum()) if held_out else 0,
        images=len(held_out) if held_out else 0,
    )
    write_file(out, page.encode())
    return f"{out}: {len(page.encode()) / 1e3:,.0f} kB, a page that needs nothing: open or mail it"


def choose_digits(held_out: HeldOutPredictions) -> tuple[list[int], list[int]]:
    """Positions of held-out digits: drawn at random, and the most confident errors."""
    random = np.random.default_rng(0)
    trials = random.choice(len(held_out), min(TRIALS, len(held_out)), replace=False)
    wrong = np.flatnonzero(~held_out.correct)
    mistakes = wrong[np.argsort(-held_out.confidence[wrong], kind="stable")][:MISTAKES]
    return trials.tolist(), mistakes.tolist()


def stack_digits(digits: Digits, rows: np.ndarray) -> str:
    """Training images one below the other, as the URL of a PNG: a third of the bytes."""
    buffer = io.BytesIO()
    picture = digits.train_images[torch.from_numpy(rows)].flatten(0, 2).numpy()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def list_facts(run: Path, model: Model, finished: FinishedRun | None) -> Sequence[tuple[str, str]]:
    """What the model is, without anything of the machine that it was trained on."""
    networks, views = len(model.networks), model.settings.views
    weights = sum(parameter.numel() for parameter in model.networks[0].parameters())
    size = f"{networks} network{'s' if networks > 1 else ''} of {weights:,} weights"
    if views > 1:
        size += f", {views} views where unconfident"
    facts = [("Preset", model.settings.preset), ("Size", size)]
    if finished and (found := finished.metrics.get("validation")):
        accuracy = f"{found['accuracy']:.2%} of {found['images']:,} held-out digits"
        facts.append(("Accuracy", f"{accuracy} (standard error {found['standard_error']:.2%})"))
    path = run / MODEL if run.is_dir() else run
    trained = date.fromtimestamp(path.stat().st_mtime).isoformat()
    return [*facts, ("Trained", trained), ("Made with", f"digitkaggle {VERSION}")]
