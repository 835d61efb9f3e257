"""Search of hyper-parameters: Optuna, on cross-validation, by as many processes as one likes.

Only training images are looked at, and every setting tried is judged by the folds that it did not
learn from; test.csv has no part in it. Never in the kernel: Optuna is an extra.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.basics import Digits, InputError, LabelledImages, TrainingError, logger, progress
from .core.device import Compute, choose_compute
from .core.results import write_file
from .core.settings import Settings, make_settings
from .core.split import fold_rows
from .core.training import start_training, train, training_images
from .runs.files import write_json
from .runs.folder import differences, run_identity

if TYPE_CHECKING:
    import optuna

STUDY_NAME = "digitkaggle"
STUDY_FILE = Path("runs/tuning.journal")
TUNED_FILE = Path("runs/tuned.json")
# Where each setting is looked for, around what the presets have; wide ones by order of magnitude.
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
        trials: in the study, all processes and earlier searches together.
        folds: of the cross-validation, by class; a trial trains a network for each.
        study_file: kept, and gone on with if it exists.
        out: the settings file; the picture has its name with .png.
        device: as `choose_compute`.

    Returns:
        `out`.

    Raises:
        InputError: Optuna is missing; the study is another's, or no study; no trial could be
            finished.
    """
    optuna = _import_optuna()
    if trials < 1:
        raise InputError(f"--trials {trials}: at least 1 is needed")
    if folds < 2:
        raise InputError(f"--folds {folds}: at least 2 are needed")
    compute = choose_compute(device, base.precision)
    if digits.test_labels is not None:
        logger.warning(
            "Searching on the sample, whose digits may be among Kaggle's test images: for a look; "
            "what it finds is not for a submission."
        )
    logger.info("device   %s, %s", compute.device, compute.dtype)
    study = _open_study(optuna, study_file)
    _claim_study(study, study_file, base, digits, folds)
    _fail_orphans(optuna, study)
    logger.info("%-8s %s: %d of %d trials are done", "study", study_file, done(study), trials)

    with progress(total=trials, initial=done(study), desc="trials", leave=True, delay=0) as bar:
        while _asked(study) < trials:
            trial = study.ask()
            trial.set_user_attr("process", [socket.gethostname(), os.getpid()])
            # Seeded by its number, a trial's draws do not depend on which process makes them.
            study.sampler = _sampler(optuna, base.seed + trial.number)
            _try(optuna, study, trial, base, digits, compute, folds)
            bar.update(done(study) - bar.n)
    return _write_best(study, base, out)


def suggested(trial: optuna.Trial, base: Settings) -> dict[str, Any]:
    """The settings to change in a trial: those that mean something beside the base's others."""
    ranges = RANGES | (MUON_RANGES if base.optimizer == "muon" else ADAM_RANGES)
    if base.augmentation == "affine":
        ranges |= AFFINE_RANGES
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


def cross_validated_error(
    settings: Settings,
    digits: Digits,
    compute: Compute,
    folds: int,
    tell: Callable[[int, float], None] = lambda step, error: None,
) -> float:
    """The share of held-out images named wrong, over all folds; each fold's best epoch counts.

    Args:
        tell: hears after each epoch its number, through all folds, and the error so far.
    """
    finished: list[float] = []
    step = 0
    for fold in range(folds):
        rows, held = fold_rows(
            digits.train_labels, folds, fold, settings.split_seed, by_class=settings.split_by_class
        )
        held_out = LabelledImages(digits.train_images[held], digits.train_labels[held])
        data = training_images(digits, rows, settings).to(compute.device)
        training = start_training(settings, compute, len(data))
        for row in train(training, data, held_out):
            error = 1 - row["val_accuracy"]
            step += 1
            tell(step, (sum(finished) + error) / (len(finished) + 1))
        finished.append(1 - training.history[training.best_epoch - 1]["val_accuracy"])
    return sum(finished) / len(finished)


def done(study: optuna.Study) -> int:
    """How many trials of a study ended, pruned ones too."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def _asked(study: optuna.Study) -> int:
    return done(study) + sum(trial.state.name == "RUNNING" for trial in study.trials)


def _try(
    optuna: Any,
    study: optuna.Study,
    trial: optuna.Trial,
    base: Settings,
    digits: Digits,
    compute: Compute,
    folds: int,
) -> None:
    """One trial: trained, judged and told to the study, whatever happens."""
    started = time.monotonic()
    changes = suggested(trial, base)
    settings = make_settings(base.preset, _changes(base) | changes)

    def tell(step: int, error: float) -> None:
        trial.report(error, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        error = cross_validated_error(settings, digits, compute, folds, tell)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        outcome = "pruned: no better than half of those before"
    except TrainingError as fault:
        # As bad as can be: the search shall learn to keep away from there.
        study.tell(trial, 1.0)
        outcome = f"failed: {fault}"
    except BaseException:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise
    else:
        study.tell(trial, error)
        outcome = f"{error:.3%} wrong"
        if trial.number == study.best_trial.number:
            outcome += ", the best so far"
    told = ", ".join(f"{name} {_short(value)}" for name, value in changes.items())
    seconds = time.monotonic() - started
    logger.info("trial %-4d %s (%.0f s): %s", trial.number, outcome, seconds, told)


def _short(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else f"{value:.3g}"


def _changes(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in vars(settings).items() if name != "preset"}


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "tune needs Optuna: make tune installs it, or .venv/bin/pip install -e '.[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(optuna: Any, seed: int) -> Any:
    return optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=False)


def _open_study(optuna: Any, path: Path) -> optuna.Study:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    options = {"study_name": STUDY_NAME, "sampler": _sampler(optuna, 0)}
    options["pruner"] = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Optuna appends to whatever it is given, so look first.
        kept = path.read_text() if path.exists() else ""
        for line in kept.splitlines(keepends=True):
            # A search that was killed may have left a last line without its end.
            if line.endswith("\n") and "op_code" not in json.loads(line):
                raise ValueError(line)
        storage = JournalStorage(JournalFileBackend(str(path)))
        if STUDY_NAME in optuna.get_all_study_names(storage):
            return optuna.load_study(storage=storage, **options)
        return optuna.create_study(storage=storage, load_if_exists=True, **options)
    except OSError as error:
        raise InputError(
            f"{path} cannot be used ({error.strerror or error}): name another by --study"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no study of ours: name another by --study") from error


def _claim_study(
    study: optuna.Study, path: Path, base: Settings, digits: Digits, folds: int
) -> None:
    """Refuse a study of other settings, data or folds; make a new one ours."""
    # The code is not compared: a search may go on after a mend.
    mine = run_identity(vars(base) | {"folds": folds}, digits.digest(), "")
    theirs = study.user_attrs.get("identity")
    if theirs is None and not study.trials:
        study.set_user_attr("identity", mine)
    elif theirs != mine:
        told = differences(theirs, mine) if theirs else "nothing is known of it"
        raise InputError(f"{path} is another study ({told}): name another by --study")


def _fail_orphans(optuna: Any, study: optuna.Study) -> None:
    """Trials whose process was killed on this machine run no more, whatever the study says."""
    for trial in study.trials:
        host, process = trial.user_attrs.get("process", (None, None))
        if trial.state.name == "RUNNING" and host == socket.gethostname() and not _lives(process):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # there os.kill would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write_best(study: optuna.Study, base: Settings, out: Path) -> Path:
    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if not finished:
        raise InputError("no trial was finished: ask for more by --trials")
    best = study.best_trial
    values = dict(best.params)
    factor = values.pop("width_factor", None)
    if factor is not None:
        values["widths"] = scaled_widths(base, factor)
    settings = make_settings(base.preset, _changes(base) | values)
    write_json(out, vars(settings))
    picture = out.with_suffix(".png")
    write_file(picture, search_picture(study))
    logger.info(
        "\nbest     trial %d of %d: %.3f %% wrong in cross-validation",
        best.number,
        done(study),
        100 * best.value,
    )
    logger.info("files    %s, and a picture of the search, %s", out, picture)
    logger.info("next     python -m digitkaggle run --settings %s", out)
    return out


def search_picture(study: optuna.Study) -> bytes:
    """PNG: the error over trials with the best so far, then over each setting that was searched."""
    import io

    from matplotlib.figure import Figure

    trials = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    errors = [100 * trial.value for trial in trials]
    names = sorted({name for trial in trials for name in trial.params})
    columns = 3
    rows = -(-(1 + len(names)) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    best = [min(errors[: count + 1]) for count in range(len(errors))]
    axes[0].plot([trial.number for trial in trials], errors, "o", color="0.6", label="trials")
    axes[0].step([trial.number for trial in trials], best, where="post", label="best so far")
    axes[0].set(xlabel="trial", ylabel="wrong, %", yscale="log")
    axes[0].legend()
    for axis, name in zip(axes[1:], names, strict=False):
        values = [trial.params[name] for trial in trials]
        axis.scatter(values, errors, c=[trial.number for trial in trials], cmap="viridis")
        chosen = errors.index(min(errors))
        axis.plot(values[chosen], errors[chosen], "*", color="C3", markersize=14)
        axis.set(xlabel=name.replace("_", " "), ylabel="wrong, %", yscale="log")
        if name in BY_MAGNITUDE:
            axis.set_xscale("log")
    for axis in axes[1 + len(names) :]:
        axis.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    return buffer.getvalue()
