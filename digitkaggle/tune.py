"""Search of hyper-parameters: Optuna, on cross-validation, by as many processes as one likes.

Only training images are looked at, and every setting tried is judged by the folds that it did not
learn from; test.csv has no part in it. Never in the kernel: Optuna is an extra.
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.basics import (
    Compute,
    Digits,
    InputError,
    LabelledImages,
    TrainingError,
    logger,
    progress,
)
from .core.device import choose_compute
from .core.results import write_file
from .core.settings import Settings, make_settings
from .core.split import fold_rows
from .core.training import start_training, train, training_images
from .runs.files import write_json
from .runs.folder import differences, run_identity

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "digitkaggle"
STUDY_FILE, TUNED_FILE = Path("runs/tuning.journal"), Path("runs/tuned.json")
# Where each setting is looked for, around what the presets have.
MUON_RANGES = {
    "learning_rate": (0.01, 0.5),
    "muon_learning_rate": (0.02, 0.5),
    "momentum": (0.3, 0.9),
}
ADAM_RANGES = {"learning_rate": (1e-4, 2e-2)}
RANGES = {"weight_decay": (1e-5, 1e-2), "label_smoothing": (0.0, 0.2), "dropout": (0.0, 0.5)}
AFFINE_RANGES = {
    "rotation": (0.0, 20.0),
    "shift": (0.0, 4.0),
    "zoom": (0.0, 0.25),
    "shear": (0.0, 20.0),
}
BY_MAGNITUDE = ("learning_rate", "muon_learning_rate", "weight_decay")
WIDTH_FACTORS = (0.5, 0.75, 1.0, 1.5)


def tune(
    base: Settings,
    digits: Digits,
    *,
    trials: int,
    folds: int = 3,
    study_file: Path = STUDY_FILE,
    out: Path = TUNED_FILE,
    device: str = "auto",
) -> Path:
    """Try settings until the study has so many trials; leave the best for `run --settings`.

    The study is a file: a search that was cut off goes on, and several processes (on several
    machines, if they share the file) may work on it at once. Each trial's draws depend on the seed,
    its number and the trials before it. Beside the settings goes a picture of the search.

    Args:
        base: what is not searched for stays as it is here.
        digits: their test images are not looked at.
        trials: in the study, all processes and earlier searches together; several processes may
            end with one more each.
        folds: of the cross-validation, by class; a trial trains a network for each.
        study_file: kept, and gone on with if it exists.
        out: the settings file; the picture has its name with .png.
        device: as `choose_compute`.

    Raises:
        InputError: Optuna is missing; the study is another's, or no study; no trial could be
            finished.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "tune needs Optuna: make tune installs it, or pip install 'digitkaggle[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if trials < 1 or folds < 2:
        raise InputError(f"--trials {trials}, --folds {folds}: 1 and 2 are the least")
    compute = choose_compute(base, device)
    if digits.test_labels is not None:
        logger.warning("Searching on the sample: for a look; it is not for a submission.")
    study = open_study(study_file)
    claim_study(study, study_file, base, digits, folds)
    logger.info("%s: %d of %d trials are done", study_file, done(study), trials)
    with progress(total=trials, initial=done(study), desc="trials", leave=True, delay=0) as bar:
        while done(study) < trials:
            trial = study.ask()
            # Seeded by its number, a trial's draws do not depend on which process makes them.
            study.sampler = sampler(base.seed + trial.number)
            try_settings(study, trial, base, digits, compute, folds)
            bar.update(done(study) - bar.n)
    return write_best(study, base, out)


def try_settings(
    study: optuna.Study,
    trial: optuna.Trial,
    base: Settings,
    digits: Digits,
    compute: Compute,
    folds: int,
) -> None:
    """One trial: trained, judged and told to the study, whatever happens."""
    import optuna

    started, changes = time.monotonic(), suggested(trial, base)
    state, error = optuna.trial.TrialState.FAIL, None
    try:
        error = cross_validated_error(with_changes(base, changes), digits, compute, folds, trial)
        state, outcome = optuna.trial.TrialState.COMPLETE, f"{error:.3%} wrong"
    except optuna.TrialPruned:
        state, outcome = optuna.trial.TrialState.PRUNED, "pruned: no better than half before it"
    except TrainingError as fault:
        # As bad as can be: the search shall learn to keep away from there.
        state, error, outcome = optuna.trial.TrialState.COMPLETE, 1.0, f"failed: {fault}"
    finally:
        study.tell(trial, error, state=state)
    values = ", ".join(f"{name} {value}" for name, value in changes.items())
    seconds = time.monotonic() - started
    logger.info("trial %-4d %s (%.0f s): %s", trial.number, outcome, seconds, values)


def suggested(trial: optuna.Trial, base: Settings) -> dict[str, Any]:
    """The settings to change in a trial: those that mean something beside the base's others."""
    ranges = RANGES | (MUON_RANGES if base.optimizer == "muon" else ADAM_RANGES)
    ranges |= AFFINE_RANGES if base.augmentation == "affine" else {}
    changes: dict[str, Any] = {
        name: trial.suggest_float(name, low, high, log=name in BY_MAGNITUDE)
        for name, (low, high) in ranges.items()
    }
    if base.network == "compact":
        factor = trial.suggest_categorical("width_factor", WIDTH_FACTORS)
        changes["widths"] = scaled_widths(base, factor)
    return changes


def scaled_widths(base: Settings, factor: float) -> tuple[int, ...]:
    """The base's widths times a factor, in whole fours."""
    return tuple(max(4, 4 * round(width * factor / 4)) for width in base.widths)


def with_changes(base: Settings, changes: dict[str, Any]) -> Settings:
    """The base's settings with some changed."""
    values = {name: value for name, value in vars(base).items() if name != "preset"}
    return make_settings(base.preset, values | changes)


def cross_validated_error(
    settings: Settings, digits: Digits, compute: Compute, folds: int, trial: optuna.Trial
) -> float:
    """The share of held-out images named wrong, over all folds; each fold's best epoch counts.

    After each epoch the trial hears the error so far, and may be pruned.
    """
    import optuna

    finished: list[float] = []
    step = 0
    for fold in range(folds):
        by_class, labels = settings.split_by_class, digits.train_labels
        rows, held = fold_rows(labels, folds, fold, settings.split_seed, by_class=by_class)
        held_out = LabelledImages(digits.train_images[held], labels[held])
        data = training_images(digits, rows, settings).to(compute.device)
        training = start_training(settings, compute, len(data))
        for row in train(training, data, held_out):
            step += 1
            trial.report((sum(finished) + 1 - row["val_accuracy"]) / (len(finished) + 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        finished.append(1 - training.history[training.best_epoch - 1]["val_accuracy"])
    return sum(finished) / len(finished)


def done(study: optuna.Study) -> int:
    """How many trials of a study ended, pruned ones too."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def sampler(seed: int) -> Any:
    """Optuna's usual sampler, seeded."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=False)


def open_study(path: Path) -> optuna.Study:
    """The study in a file, or a new one; InputError for a file that is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Optuna appends to whatever it is given, so look first. A search that was killed may have
        # left a last line without its end.
        for line in (path.read_text() if path.exists() else "").splitlines(keepends=True):
            if line.endswith("\n") and "op_code" not in json.loads(line):
                raise ValueError(line)
        storage = JournalStorage(JournalFileBackend(str(path)))
        there = STUDY_NAME in optuna.get_all_study_names(storage)
        make = optuna.load_study if there else optuna.create_study
        return make(study_name=STUDY_NAME, storage=storage, sampler=sampler(0), pruner=pruner)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{path} is no study of ours that can be used ({error!r:.60})"
        raise InputError(f"{reason}: name another by --study") from error


def claim_study(
    study: optuna.Study, path: Path, base: Settings, digits: Digits, folds: int
) -> None:
    """Refuse a study of other settings, data or folds; make a new one ours."""
    # The code is not compared: a search may go on after a mend.
    mine = run_identity(vars(base) | {"folds": folds}, digits.digest(), "")
    theirs = study.user_attrs.get("identity")
    if theirs is None and not study.trials:
        study.set_user_attr("identity", mine)
    elif theirs != mine:
        reason = differences(theirs, mine) if theirs else "nothing is known of it"
        raise InputError(f"{path} is another study ({reason}): name another by --study")


def write_best(study: optuna.Study, base: Settings, out: Path) -> Path:
    """The best trial's settings as a file, and a picture of the search beside it."""
    if not any(trial.state.name == "COMPLETE" for trial in study.trials):
        raise InputError("no trial was finished: ask for more by --trials")
    values = dict(study.best_trial.params)
    if factor := values.pop("width_factor", None):
        values["widths"] = scaled_widths(base, factor)
    write_json(out, vars(with_changes(base, values)))
    write_file(out.with_suffix(".png"), search_picture(study))
    best, number = 100 * study.best_trial.value, study.best_trial.number
    logger.info("best: trial %d, %.3f %% wrong in cross-validation", number, best)
    logger.info("next: python -m digitkaggle run --settings %s", out)
    return out


def search_picture(study: optuna.Study) -> bytes:
    """PNG: the error over trials, then over each setting that was searched."""
    from matplotlib.figure import Figure

    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    errors = [100 * trial.value for trial in trials]
    names = sorted({name for trial in trials for name in trial.params})
    rows = -(-(1 + len(names)) // 3)
    figure = Figure(figsize=(12, 2.6 * rows), layout="constrained")
    for axes, name in zip(figure.subplots(rows, 3).flat, ["trial", *names], strict=False):
        values = [trial.number if name == "trial" else trial.params[name] for trial in trials]
        axes.scatter(values, errors, c=[trial.number for trial in trials])
        chosen = errors.index(min(errors))
        axes.plot(values[chosen], errors[chosen], "*", color="C3", markersize=14)
        axes.set(xlabel=name.replace("_", " "), ylabel="wrong, %", yscale="log")
        axes.set_xscale("log" if name in BY_MAGNITUDE else "linear")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    return buffer.getvalue()
