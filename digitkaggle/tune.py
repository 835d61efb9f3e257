"""Search of hyper-parameters: Optuna, on cross-validation, by as many processes as one likes.

Only training images are looked at, and every setting tried is judged by the folds that it did not
learn from; test.csv has no part in it. Never in the kernel: Optuna is an extra.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import fmean

from .core.basics import Compute, Digits, InputError, LabelledImages, TrainingError, logger
from .core.device import choose_compute
from .core.settings import Settings
from .core.split import fold_rows
from .core.training import start_training, train, training_images
from .runs.files import write_json
from .runs.folder import differences, run_identity

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ImportError as error:
    advice = "make tune installs it, or pip install 'digitkaggle[tune]'"
    raise InputError(f"tune needs Optuna: {advice}") from error

STUDY_NAME = "digitkaggle"
STUDY_FILE, TUNED_FILE = Path("runs/tuning.journal"), Path("runs/tuned.json")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
# Where each setting is looked for, around what the presets have.
RANGES = {"weight_decay": (1e-5, 1e-2), "label_smoothing": (0, 0.2), "dropout": (0, 0.5)}
ADAM_RANGES = {"learning_rate": (1e-4, 2e-2)}
MUON_RANGES = {
    "learning_rate": (0.01, 0.5),
    "muon_learning_rate": (0.02, 0.5),
    "momentum": (0.3, 0.9),
}
AFFINE_RANGES = {"rotation": (0, 20), "shift": (0, 4), "zoom": (0, 0.25), "shear": (0, 20)}
BY_MAGNITUDE = ("learning_rate", "muon_learning_rate", "weight_decay")


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
    machines, if they share the file) may work on it at once, and end with one trial more each.

    Args:
        base: what is not searched for stays as it is here.
        trials: in the study, all processes and earlier searches together.
        folds: of the cross-validation; a trial trains a network for each.
        study_file: kept, and gone on with if it exists.
        out: the settings file.

    Raises:
        InputError: the study is another's, or no study; no trial could be finished.
    """
    if trials < 1 or folds < 2:
        raise InputError(f"--trials {trials}, --folds {folds}: 1 and 2 are the least")
    optuna.logging.set_verbosity(logger.getEffectiveLevel())
    compute = choose_compute(base, device)
    if digits.test_labels is not None:
        logger.warning("Searching on the sample: for a look; it is not for a submission.")
    study = open_study(study_file, base, digits, folds)

    def objective(trial: optuna.Trial) -> float:
        # Seeded by its number, a trial's draws do not depend on which process makes them.
        seed = (base.seed + trial.number) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        try:
            return cross_validated_error(suggested(trial, base), digits, compute, folds, trial)
        except TrainingError as fault:
            # As bad as can be: the search shall learn to keep away from there.
            logger.info("trial %d failed: %s", trial.number, fault)
            return 1.0

    missing = max(0, trials - len(study.get_trials(states=ENDED)))
    enough = optuna.study.MaxTrialsCallback(trials, states=ENDED)
    study.optimize(objective, n_trials=missing, callbacks=[enough])
    if not study.get_trials(states=[TrialState.COMPLETE]):
        raise InputError("no trial was finished: ask for more by --trials")
    write_json(out, vars(suggested(optuna.trial.FixedTrial(study.best_params), base)))
    logger.info("best: trial %d, %.3f %% wrong", study.best_trial.number, 100 * study.best_value)
    logger.info("next: python -m digitkaggle run --settings %s", out)
    return out


def open_study(path: Path, base: Settings, digits: Digits, folds: int) -> optuna.Study:
    """The study in a file, or a new one; InputError if it is of other settings, data or folds."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        first_line = path.read_bytes().partition(b"\n")[0] if path.exists() else b""
        if first_line and b'"op_code"' not in first_line:
            raise ValueError("no journal of Optuna's")  # which would append to whatever it is given
        how = {"storage": JournalStorage(JournalFileBackend(str(path))), "pruner": pruner}
        if STUDY_NAME in optuna.get_all_study_names(how["storage"]):
            study = optuna.load_study(study_name=STUDY_NAME, **how)
        else:
            study = optuna.create_study(study_name=STUDY_NAME, load_if_exists=True, **how)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{path} is no study of ours that can be used ({error!r:.60})"
        raise InputError(f"{reason}: name another by --study") from error
    # The code is not compared: a search may go on after a mend.
    mine = run_identity(vars(base) | {"folds": folds}, digits.digest(), "")
    theirs = study.user_attrs.get("identity")
    if theirs is None:
        study.set_user_attr("identity", mine)
    elif theirs != mine:
        reason = differences(theirs, mine)
        raise InputError(f"{path} is another study ({reason}): name another by --study")
    return study


def suggested(trial: optuna.trial.BaseTrial, base: Settings) -> Settings:
    """The base with those settings changed that mean something beside its others."""
    ranges = RANGES | (MUON_RANGES if base.optimizer == "muon" else ADAM_RANGES)
    ranges |= AFFINE_RANGES if base.augmentation == "affine" else {}
    changes = {
        name: trial.suggest_float(name, low, high, log=name in BY_MAGNITUDE)
        for name, (low, high) in ranges.items()
    }
    if base.network == "compact":
        factor = trial.suggest_categorical("width_factor", (0.5, 0.75, 1.0, 1.5))
        changes["widths"] = [max(4, 4 * round(width * factor / 4)) for width in base.widths]
    return dataclasses.replace(base, **changes)


def cross_validated_error(
    settings: Settings, digits: Digits, compute: Compute, folds: int, trial: optuna.Trial
) -> float:
    """The share of held-out images named wrong, over all folds; each fold's best epoch counts.

    After each epoch the trial hears the error so far, and may be pruned.
    """
    errors: list[float] = []
    labels, step = digits.train_labels, 0
    for fold in range(folds):
        by_class = settings.split_by_class
        rows, held = fold_rows(labels, folds, fold, settings.split_seed, by_class=by_class)
        held_out = LabelledImages(digits.train_images[held], labels[held])
        data = training_images(digits, rows, settings).to(compute.device)
        training = start_training(settings, compute, len(data))
        for row in train(training, data, held_out):
            step += 1
            trial.report(fmean([*errors, 1 - row["val_accuracy"]]), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        errors.append(1 - training.history[training.best_epoch - 1]["val_accuracy"])
    return fmean(errors)
