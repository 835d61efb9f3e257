"""digitkaggle classifies handwritten digits for Kaggle's Digit Recognizer: the public names."""

from importlib import import_module
from typing import Any

# Where each public name lives. A name is imported when it is first used: torch takes a second or
# two, and the command line must be able to react before that.
_MODULES = {
    "core.basics": ("Compute", "Digits", "InputError", "LabeledImages", "TrainingError"),
    "core.device": ("choose_compute",),
    "core.networks": ("build_network",),
    "core.prediction": ("Model", "average_members"),
    "core.results": ("HeldOutPredictions", "collect_held_out"),
    "core.run": ("Member", "Result", "run", "train_member"),
    "core.settings": ("PRESETS", "Settings", "make_settings", "derive_member_settings"),
    "core.split": ("split_indices",),
    "core.training": ("start_training", "train"),
    "core.classic": ("select_training_images",),
    "report.page": ("make_report",),
    "runs.data": ("read_data",),
    "runs.finished": ("FinishedRun", "load_model", "read_run"),
    "runs.local": ("run_in_folder",),
    "classifier": ("DigitClassifier",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """A public name, imported from its module."""
    if name == "__version__":
        return import_module(".core.basics", __name__).VERSION
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
