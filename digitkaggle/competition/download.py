"""Download the competition's data, check them, and put them into `data/`."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

from ..core.basics import InputError, logger
from ..core.console import show_progress
from ..core.data import TEST_FILE, TRAIN_FILE, read_digits
from ..core.kaggle import COMPETITION
from ..core.results import write_file
from ..runs.data import ARCHIVE_ERRORS
from .client import RULES, Kaggle, KaggleError

DATA_FOLDER = Path("data")
DATA_FILES = (TRAIN_FILE, TEST_FILE, "sample_submission.csv")
CHUNK_BYTES = 10**6


def download(force: bool = False) -> None:
    """Download the competition's files into `data/`, unless valid ones are there.

    Raises InputError if `data/` cannot be written or credentials are missing, KaggleError if the
    download fails or is not the data.
    """
    with contextlib.suppress(InputError):
        if not force:
            read_digits(DATA_FOLDER)
            logger.info("%s already holds valid data; --force downloads them again", DATA_FOLDER)
            return
    kaggle = Kaggle()
    content = kaggle.call("download the data", lambda: fetch_zip(kaggle))
    try:
        files = extract_files(content)
    except InputError as error:
        advice = f"if it is a page to sign in, accept the rules at {RULES}, and try again"
        raise KaggleError(f"the download is not a valid zip ({error}): {advice}") from error
    for name, text in files.items():
        write_file(DATA_FOLDER / name, text)
    logger.info("%s holds %s", DATA_FOLDER, ", ".join(DATA_FILES))


def fetch_zip(kaggle: Kaggle) -> bytes:
    """The competition's zip."""
    with kaggle.send("download_data_files", competition_name=COMPETITION) as response:
        chunks = response.iter_content(CHUNK_BYTES)
        return b"".join(show_progress(chunks, desc="download", unit="MB"))


def extract_files(content: bytes) -> dict[str, bytes]:
    """The competition's files in a zip, by name; InputError if it is damaged or they are wrong."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        archive.filename = f"{COMPETITION}.zip"  # for messages
        files = {name: archive.read(name) for name in DATA_FILES}  # checks their sizes and sums
    except (*ARCHIVE_ERRORS, RuntimeError, KeyError) as error:  # encrypted; a file is missing
        raise InputError(str(error)) from error
    read_digits(zipfile.Path(archive))
    return files
