"""The competition's data: downloaded, checked, put into `data/`."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

from ..core.basics import InputError, logger, progress
from ..core.data import COMPETITION, TEST_FILE, TRAIN_FILE, read_digits
from ..core.results import write_file
from ..runs.files import ZIP_FAULTS
from .client import RULES, Kaggle, KaggleError

DATA = Path("data")
DATA_FILES = (TRAIN_FILE, TEST_FILE, "sample_submission.csv")
BLOCK = 10**6  # bytes


def download(force: bool = False) -> None:
    """Get the competition's files into `data/`, unless good ones are there."""
    with contextlib.suppress(InputError):
        if not force:
            read_digits(DATA)
            logger.info("%s holds good data already; --force downloads them again", DATA)
            return
    kaggle = Kaggle()
    content = kaggle.call("download the data", lambda: fetch_zip(kaggle))
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        archive.filename = f"{COMPETITION}.zip"  # for messages
        files = {name: archive.read(name) for name in DATA_FILES}  # checks their sizes and sums
        read_digits(zipfile.Path(archive))
    except (*ZIP_FAULTS, RuntimeError, KeyError, InputError) as error:
        advice = f"if it is a page to sign in, accept the rules at {RULES}, and try again"
        raise KaggleError(f"what came is no good zip of the data ({error}): {advice}") from error
    for name, text in files.items():
        write_file(DATA / name, text)
    logger.info("%s holds %s", DATA, ", ".join(DATA_FILES))


def fetch_zip(kaggle: Kaggle) -> bytes:
    """The competition's zip."""
    with kaggle.send("download_data_files", competition_name=COMPETITION) as response:
        return b"".join(progress(response.iter_content(BLOCK), desc="download", unit="MB"))
