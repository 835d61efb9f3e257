"""Makes the kernel, checks what is sent, and pushes it to Kaggle, which runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .errors import InputError, KaggleError
from .kaggle_client import COMPETITION_PAGE, Kaggle, one_line
from .kaggle_record import prove_record, record_push
from .kernel_files import METADATA, NOTEBOOK, SCRIPT, kernel_files, write_kernel
from .kernel_metadata import check_metadata
from .kernel_runs import follow_run

KERNEL_FOLDER = Path("kernel")


def push(*, kind: str = "script", wait: bool = False) -> None:
    """Make the kernel, check what is sent, and run it on Kaggle.

    Raises:
        InputError: no credentials, or metadata that are wrong.
        KaggleError: Kaggle refused the kernel or one of its sources; with `wait`, its run failed.
    """
    kaggle = Kaggle()
    files, digest = _made_files(kind)
    metadata = json.loads(files[METADATA])
    check_metadata(metadata, str(KERNEL_FOLDER / METADATA))
    text = files[SCRIPT] if kind == "script" else _as_the_server_wants(files[NOTEBOOK])
    if any(secret in text for secret in kaggle.credentials.secrets()):
        raise InputError(
            f"{metadata['code_file']} contains the text of your Kaggle credentials: take it out "
            "of the sources; nothing was pushed"
        )
    prove_record()
    answer = kaggle.call("push", lambda: kaggle.kernels.save_kernel(_save_request(metadata, text)))
    _refuse_refusals(answer)
    record_push(
        id=metadata["id"],
        kind=kind,
        url=answer.url,
        version=answer.version_number,
        source_digest=digest,
    )
    print(f"{answer.url} version {answer.version_number}")
    if wait:
        follow_run(kaggle)


def _made_files(kind: str) -> tuple[dict[str, str], str]:
    if not (KERNEL_FOLDER / "bundle.py").is_file():
        raise InputError("there is no kernel/bundle.py here: push from the repository's folder")
    try:
        files, digest = kernel_files(KERNEL_FOLDER, kind)
        write_kernel(KERNEL_FOLDER, files)
    except InputError as error:
        raise InputError(f"make kernel: {error}") from error
    # On standard error: what is printed besides is the kernel's address alone.
    print(f"made {', '.join(files)} in {KERNEL_FOLDER}/ (a {kind} for Kaggle)", file=sys.stderr)
    return files, digest


def _as_the_server_wants(notebook: str) -> str:
    """A notebook with each cell's source as one text, and no outputs."""
    book = json.loads(notebook)
    for cell in book["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    return json.dumps(book)


def _save_request(metadata: dict[str, Any], text: str) -> Any:
    from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelRequest

    request = ApiSaveKernelRequest()
    request.slug = metadata["id"]
    request.new_title = metadata["title"]
    request.text = text
    request.language = metadata["language"]
    request.kernel_type = metadata["kernel_type"]
    request.is_private = metadata["is_private"]
    request.enable_gpu = metadata["enable_gpu"]
    request.enable_tpu = metadata["enable_tpu"]
    request.enable_internet = metadata["enable_internet"]
    request.machine_shape = metadata["machine_shape"]
    request.competition_data_sources = metadata["competition_sources"]
    request.dataset_data_sources = metadata["dataset_sources"]
    request.kernel_data_sources = metadata["kernel_sources"]
    request.model_data_sources = metadata["model_sources"]
    request.category_ids = metadata["keywords"]
    return request


def _refuse_refusals(answer: Any) -> None:
    """Raise KaggleError for an answer that Kaggle's client calls a success and that is none."""
    if answer.error:
        raise KaggleError(f"push: Kaggle refused the kernel: {one_line(answer.error)}")
    if answer.invalid_competition_sources:
        raise KaggleError(
            f"push: Kaggle refused the competition's data: accept the rules at "
            f"{COMPETITION_PAGE}/rules, then push again"
        )
    refused = [
        *(answer.invalid_dataset_sources or []),
        *(answer.invalid_kernel_sources or []),
        *(answer.invalid_model_sources or []),
    ]
    if refused:
        raise KaggleError(f"push: Kaggle refused the source {one_line(refused[0])}")
    if not answer.version_number:
        raise KaggleError("push: Kaggle named no version: look at the kernel's page and try again")
