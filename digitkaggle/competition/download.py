"""The competition's data: downloaded, checked, put into `data/`."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from pathlib import Path

from ..core.basics import InputError, logger, progress
from ..core.data import COMPETITION, TEST_FILE, TRAIN_FILE, read_digits
from ..runs.files import ZIP_FAULTS
from .client import RULES, Kaggle, KaggleError, fetch

DATA = Path("data")
DATA_FILES = (TRAIN_FILE, TEST_FILE, "sample_submission.csv")
PARTIAL = DATA / f".{COMPETITION}.zip.part"
BLOCK = 16 * 1024  # bytes; what is lost at most when a download is cut


def download(force: bool = False) -> None:
    """Get the competition's files into `data/`, unless good ones are there; a cut call goes on."""
    with contextlib.suppress(InputError):
        if not force:
            read_digits(DATA)
            logger.info("%s holds good data already; --force downloads them again", DATA)
            return
    kaggle = Kaggle()
    try:
        DATA.mkdir(exist_ok=True)
        if force:
            PARTIAL.unlink(missing_ok=True)
        kaggle.call("download the data", lambda: fetch_zip(kaggle))
        unpack()
    except OSError as error:
        raise InputError(f"{DATA} cannot be written ({error}): free some space") from error
    logger.info("%s holds %s", DATA, ", ".join(DATA_FILES))


def fetch_zip(kaggle: Kaggle) -> None:
    """Bring the partial zip to its full length, from where it ends."""
    # A new address for each try: they expire.
    response = kaggle.send("download_data_files", competition_name=COMPETITION)
    if PARTIAL.exists():
        response.close()
        response = fetch(response.url, PARTIAL.stat().st_size)
    with response:
        if response.status_code == 416:
            return
        blocks = response.iter_content(BLOCK)
        total = int(response.headers.get("Content-Length", 0)) / BLOCK or None
        with open(PARTIAL, "ab" if response.status_code == 206 else "wb") as file:
            for block in progress(blocks, desc="download", total=total, unit_scale=BLOCK, unit="B"):
                file.write(block)


def unpack() -> None:
    """Put the zip's files in place, if they are whole and good to read."""
    try:
        with (
            zipfile.ZipFile(PARTIAL) as archive,
            tempfile.TemporaryDirectory(dir=DATA, prefix=".unpacked-") as aside,
        ):
            for name in DATA_FILES:
                archive.extract(name, aside)  # checks its size and sum
            read_digits(Path(aside))
            for name in DATA_FILES:
                os.replace(Path(aside) / name, DATA / name)
    except (*ZIP_FAULTS, RuntimeError, KeyError, InputError) as error:
        advice = f"if it is a page to sign in, accept the rules at {RULES}, and try again"
        raise KaggleError(f"what came is no good zip of the data ({error}): {advice}") from error
    finally:
        PARTIAL.unlink()  # the next call starts anew
