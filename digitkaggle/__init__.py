"""digitkaggle classifies handwritten digits for Kaggle's Digit Recognizer: the public names."""

from typing import Any

from .core.basics import VERSION, Compute, Digits, InputError, LabelledImages, TrainingError
from .core.device import choose_compute
from .core.networks import build_network
from .core.prediction import predict_probabilities
from .core.run import Member, Result, run, train_member
from .core.settings import PRESETS, Settings, make_settings
from .core.split import split_rows
from .core.training import start_training, train, training_images
from .report.page import make_report
from .runs.files import read_data
from .runs.local import run_in_folder
from .runs.results import load_model, read_results

__version__ = VERSION


def __getattr__(name: str) -> Any:
    """DigitClassifier when it is asked for: scikit-learn's import takes most of a second."""
    if name != "DigitClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .classifier import DigitClassifier

    return DigitClassifier
