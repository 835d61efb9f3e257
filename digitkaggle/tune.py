"""Search for better settings: Optuna with cross-validation, in any number of processes.

Only training images are used, and each fold is validated by a network that did not train on it;
test.csv plays no part. Never in the kernel: Optuna is an extra.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from statistics import fmean

from .core.basics import Compute, Digits, InputError, LabeledImages, TrainingError, logger
from .core.classic import select_training_images
from .core.device import choose_compute, reuse_freed_memory
from .core.folds import split_fold
from .core.results import compute_data_digest
from .core.settings import Settings, derive_member_settings
from .core.training import start_training, train
from .runs.files import write_json
from .runs.folder import describe_differences, make_identity

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import TrialState
except ImportError as error:
    advice = "make tune installs it, or pip install 'digitkaggle[tune]'"
    raise InputError(f"tune needs Optuna: {advice}") from error

STUDY_NAME = "digitkaggle"
STUDY_FILE, TUNED_FILE = Path("runs/tuning.journal"), Path("runs/tuned.json")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
# The search ranges, around the values of the presets.
RANGES = {"weight_decay": (1e-5, 1e-2), "label_smoothing": (0, 0.2), "dropout": (0, 0.5)}
ADAM_RANGES = {"learning_rate": (1e-4, 2e-2)}
MUON_RANGES = {
    "learning_rate": (0.01, 0.5),
    "muon_learning_rate": (0.02, 0.5),
    "momentum": (0.3, 0.9),
}
AFFINE_RANGES = {"rotation": (0, 20), "shift": (0, 4), "zoom": (0, 0.25), "shear": (0, 20)}
LOGARITHMIC = ("learning_rate", "muon_learning_rate", "weight_decay")


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
    """Try settings until the study has N trials; write the best for `run --settings`.

    The study is a file: an interrupted search resumes, and several processes (on several machines,
    if they share the file) may work on it at once, each with at most one trial more than asked.

    Args:
        base: settings that are not searched for.
        trials: in the study, of all processes and earlier searches together.
        folds: of the cross-validation; a trial trains a network for each.
        study_file: created, or resumed if it exists.
        out: the settings file.

    Raises:
        InputError: the study is of another search, or not a study; no trial finished.
    """
    if trials < 1 or folds < 2:
        raise InputError(f"--trials {trials}, --folds {folds}: at least 1 and 2 are needed")
    optuna.logging.set_verbosity(logger.getEffectiveLevel())
    compute = choose_compute(base, device)
    if digits.test_labels is not None:
        logger.warning("This search uses the sample: not for a submission.")
    study = open_study(study_file, base, digits, folds)

    def objective(trial: optuna.Trial) -> float:
        # Seeded by its number, so that a trial does not depend on the process that makes it.
        seed = (base.seed + trial.number) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        try:
            return cross_validate(suggest_settings(trial, base), digits, compute, folds, trial)
        except TrainingError as error:
            # The worst value, so that the search avoids this region.
            logger.info("trial %d failed: %s", trial.number, error)
            return 1.0

    missing = max(0, trials - len(study.get_trials(states=ENDED)))
    enough = optuna.study.MaxTrialsCallback(trials, states=ENDED)
    study.optimize(objective, n_trials=missing, callbacks=[enough])
    if not study.get_trials(states=[TrialState.COMPLETE]):
        raise InputError("no trial finished: ask for more by --trials")
    write_json(out, vars(suggest_settings(optuna.trial.FixedTrial(study.best_params), base)))
    logger.info(
        "best: trial %d, error rate %.3f %%", study.best_trial.number, 100 * study.best_value
    )
    logger.info("next: python -m digitkaggle run --settings %s", out)
    return out


def open_study(path: Path, base: Settings, digits: Digits, folds: int) -> optuna.Study:
    """The study in a file, or a new one; InputError if its settings, data or folds differ."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        first_line = path.read_bytes().partition(b"\n")[0] if path.exists() else b""
    except OSError as error:
        reason = f"{path} cannot be used ({error.strerror})"
        raise InputError(f"{reason}: name another by --study") from error
    try:
        # Optuna would append its journal to any file.
        if first_line and b'"op_code"' not in first_line:
            raise ValueError("it is not a journal of Optuna's")
        # Optuna's default lock needs symbolic links, which some file systems do not have.
        lock = JournalFileOpenLock(str(path))
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        if STUDY_NAME in optuna.get_all_study_names(storage):
            study = optuna.load_study(study_name=STUDY_NAME, storage=storage, pruner=pruner)
        else:  # two processes may both come here
            study = optuna.create_study(
                study_name=STUDY_NAME, storage=storage, pruner=pruner, load_if_exists=True
            )
    except (OSError, ValueError, KeyError, TypeError) as error:  # Optuna's, over a damaged file
        reason = f"{path} is not a study of ours that can be used ({error!r:.60})"
        raise InputError(f"{reason}: name another by --study") from error
    # The code is not compared: a search may resume after a fix.
    settings = vars(base) | {"folds": folds}
    wanted = make_identity(settings, compute_data_digest(digits), source_digest="")
    found = study.user_attrs.get("identity")
    if found is None:
        study.set_user_attr("identity", wanted)
    elif found != wanted:
        reason = describe_differences(found, wanted)
        raise InputError(f"{path} is another study ({reason}): name another by --study")
    return study


def suggest_settings(trial: optuna.trial.BaseTrial, base: Settings) -> Settings:
    """The base with those settings changed that have a meaning next to its others."""
    ranges = RANGES | (MUON_RANGES if base.optimizer == "muon" else ADAM_RANGES)
    ranges |= AFFINE_RANGES if base.augmentation == "affine" else {}
    changes = {
        name: trial.suggest_float(name, low, high, log=name in LOGARITHMIC)
        for name, (low, high) in ranges.items()
    }
    if base.network != "classic":
        factor = trial.suggest_categorical("width_factor", (0.5, 0.75, 1.0, 1.5))
        changes["widths"] = [max(4, 4 * round(width * factor / 4)) for width in base.widths]
    return dataclasses.replace(base, **changes)


def cross_validate(
    settings: Settings, digits: Digits, compute: Compute, folds: int, trial: optuna.Trial
) -> float:
    """The error rate on held-out images over all folds, each at its best epoch.

    After each epoch the trial receives the error so far, and may be pruned.
    """
    errors: list[float] = []
    labels, step = digits.train_labels, 0
    for fold in range(folds):
        member = derive_member_settings(settings, fold + 1)
        rows, held_out_rows = split_fold(
            labels, folds, fold, settings.split_seed, by_class=settings.split_by_class
        )
        held_out = LabeledImages(digits.train_images[held_out_rows], labels[held_out_rows])
        data = select_training_images(digits, rows, member).to(compute.device)
        with reuse_freed_memory():
            training = start_training(member, compute, len(data))
            for row in train(training, data, held_out):
                if not math.isfinite(training.best_loss):
                    continue  # an epoch at a smaller size, which would prune at random
                step += 1
                trial.report(fmean([*errors, 1 - row["val_accuracy"]]), step)
                if trial.should_prune():
                    raise optuna.TrialPruned
        errors.append(1 - training.history[training.best_epoch - 1]["val_accuracy"])
    return fmean(errors)
