"""digitkaggle classifies handwritten digits for Kaggle's Digit Recognizer: the public names."""

from .data import DataSource, Digits, files_source, read_digits
from .device import Compute, choose_compute
from .errors import InputError, TrainingError
from .models import load_model, save_model
from .networks import build_network
from .pipeline import predict_run, run
from .prediction import predict_probabilities
from .report import make_report
from .results import read_results
from .settings import PRESETS, VERSION, Settings, make_settings
from .split import split_rows
from .training import start_training, train
from .training_set import LabelledImages

__version__ = VERSION

__all__ = [
    "PRESETS",
    "Compute",
    "DataSource",
    "Digits",
    "InputError",
    "LabelledImages",
    "Settings",
    "TrainingError",
    "__version__",
    "build_network",
    "choose_compute",
    "files_source",
    "load_model",
    "make_report",
    "make_settings",
    "predict_probabilities",
    "predict_run",
    "read_digits",
    "read_results",
    "run",
    "save_model",
    "split_rows",
    "start_training",
    "train",
]
