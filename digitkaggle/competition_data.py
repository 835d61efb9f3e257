"""The competition's data, from the desk: downloaded, checked, put into `data/`."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

from .data import read_digits
from .errors import InputError, KaggleError
from .kaggle_client import COMPETITION_PAGE, COPY_BLOCK, Kaggle
from .locations import COMPETITION, DESK_DATA, TEST_FILE, TRAIN_FILE
from .log import logger
from .progress import make_bar

SAMPLE_SUBMISSION_FILE = "sample_submission.csv"
DATA_FILES = (TRAIN_FILE, TEST_FILE, SAMPLE_SUBMISSION_FILE)
PARTIAL_ZIP = DESK_DATA / f".{COMPETITION}.zip.part"


def download(*, force: bool = False, progress_bar: bool = True) -> None:
    """Get the competition's files into `data/`, checked; nothing is done if good ones are there.

    A download that was cut goes on where it stopped. Files that are in place stay until new ones
    are there and checked.

    Raises:
        InputError: no credentials, or no room.
        KaggleError: Kaggle refused, or the files are not what they should be.
    """
    if not force and _data_are_good():
        logger.info("%s holds good data already; --force downloads them again.", DESK_DATA)
        return
    kaggle = Kaggle()
    expected = _list_files(kaggle)
    try:
        DESK_DATA.mkdir(exist_ok=True)
        if force:
            PARTIAL_ZIP.unlink(missing_ok=True)
        resumed = PARTIAL_ZIP.exists()
        _fetch_zip(kaggle, progress_bar)
        try:
            _unpack(expected)
        except KaggleError:
            PARTIAL_ZIP.unlink(missing_ok=True)
            if not resumed:
                raise
            # The first part was of another file, perhaps: once more, from nothing.
            _fetch_zip(kaggle, progress_bar)
            _unpack(expected)
    except OSError as error:
        raise InputError(
            f"{DESK_DATA} cannot be written ({error.strerror or error}): free some space, or mind "
            "its rights, and try again"
        ) from error
    PARTIAL_ZIP.unlink(missing_ok=True)
    logger.info("%s holds %s.", DESK_DATA, ", ".join(DATA_FILES))


def _data_are_good() -> bool:
    if not all((DESK_DATA / name).is_file() for name in DATA_FILES):
        return False
    try:
        read_digits(DESK_DATA)
    except InputError as error:
        logger.warning("The data there are not good (%s).", error)
        return False
    return True


def _list_files(kaggle: Kaggle) -> dict[str, int]:
    """The names and sizes in bytes of the competition's files."""
    from kagglesdk.competitions.types.competition_api_service import ApiListDataFilesRequest

    request = ApiListDataFilesRequest()
    request.competition_name = COMPETITION
    answer = kaggle.call(
        "list the data", lambda: kaggle.competitions.list_data_files(request).files
    )
    sizes = {file.name: file.total_bytes for file in answer}
    missing = [name for name in DATA_FILES if name not in sizes]
    if missing:
        raise KaggleError(
            f"Kaggle lists no {missing[0]} in {COMPETITION}: look at {COMPETITION_PAGE}"
        )
    return sizes


def _fetch_zip(kaggle: Kaggle, progress_bar: bool) -> None:
    """Bring the partial zip to its full length; what is there of it is not fetched again."""
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

    request = ApiDownloadDataFilesRequest()
    request.competition_name = COMPETITION

    def fetch() -> None:
        # A new address for each try: they expire.
        response = kaggle.competitions.download_data_files(request)
        start = PARTIAL_ZIP.stat().st_size if PARTIAL_ZIP.exists() else 0
        if start:
            response.close()
            response = kaggle.fetch(response.url, start=start)
        with response:
            if response.status_code == 416:  # nothing is left to fetch
                return
            start = start if response.status_code == 206 else 0
            total = start + int(response.headers.get("Content-Length", 0)) or None
            with (
                open(PARTIAL_ZIP, "ab" if start else "wb") as file,
                make_bar(
                    shown=progress_bar,
                    desc="download",
                    total=total,
                    initial=start,
                    unit="B",
                    unit_scale=True,
                    delay=0,
                ) as bar,
            ):
                for block in response.iter_content(COPY_BLOCK):
                    file.write(block)
                    bar.update(len(block))
            if total and PARTIAL_ZIP.stat().st_size < total:
                raise kaggle.requests.exceptions.ConnectionError("cut off")

    kaggle.call("download the data", fetch)


def _unpack(expected: dict[str, int]) -> None:
    """Check the zip, and put its files in place."""
    try:
        with (
            zipfile.ZipFile(PARTIAL_ZIP) as archive,
            tempfile.TemporaryDirectory(dir=DESK_DATA, prefix=".unpacked-") as aside,
        ):
            for name in DATA_FILES:
                member = archive.getinfo(name)
                if member.file_size != expected[name]:
                    raise KaggleError(
                        f"{name} has {member.file_size:,} bytes where Kaggle lists "
                        f"{expected[name]:,}: try again"
                    )
                with archive.open(member) as source, open(Path(aside) / name, "wb") as target:
                    shutil.copyfileobj(source, target, COPY_BLOCK)
            try:
                read_digits(Path(aside))
            except InputError as error:
                raise KaggleError(f"the downloaded data are not good: {error}") from error
            for name in DATA_FILES:
                os.replace(Path(aside) / name, DESK_DATA / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
        raise KaggleError(
            "what came is no good zip of the data (a page to sign in, perhaps): accept the rules "
            f"at {COMPETITION_PAGE}/rules and try again"
        ) from error
