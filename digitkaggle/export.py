"""A run's model as one file, views and members included: ONNX, or a page for any browser."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .core.affine import apply_view
from .core.basics import CLASSES, IMAGE_SIZE, Compute, Digits, InputError
from .core.prediction import TTA_VIEWS, Model, average_members, is_confident
from .core.results import METRICS, PROBABILITIES, write_file
from .demo.page import write_page
from .runs.finished import find_digits_of_run, load_model, read_run
from .runs.folder import find_newest_run
from .sample import load_sample

BATCH = 1000  # images at once in the test of the file
LARGEST_DIFFERENCE = 1e-3
OPSET = 20


class PortableModel(nn.Module):
    """`Model.predict` as one module: from uint8, N x 28 x 28, to probabilities, float32, N x 10."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.networks, self.views = nn.ModuleList(model.networks), model.settings.views

    def forward(self, images: Tensor) -> Tensor:
        """All views of all images: a choice per image cannot be exported."""
        pixels = images.unsqueeze(1).float() / 255
        views = [apply_view(view, pixels) for view in TTA_VIEWS[1 : self.views]]
        batch = torch.cat([pixels, *views])
        members = []
        for network in self.networks:
            of_views = network(batch).softmax(dim=1).view(self.views, -1, CLASSES)
            confident = is_confident(of_views[0]).unsqueeze(1)
            members.append(torch.where(confident, of_views[0], of_views.mean(dim=0)))
        return average_members(members)


def export(run: Path | None, out: Path) -> str:
    """Write the model of a run, by default the newest, to an .onnx or .html file; describe it.

    Raises:
        InputError: the file's name ends otherwise; or as `export_onnx` and `write_page` do.
    """
    match out.suffix.lower():
        case ".onnx":
            return export_onnx(run or find_newest_run(), out)
        case ".html":
            run = run or find_newest_run()
            return write_page(run, out, find_digits(run))
    raise InputError(f"{out}: a model is exported to a file that ends in .onnx or in .html")


def find_digits(run: Path) -> Digits | None:
    """The data of a run; None if they are not here, or if it is only a model's file."""
    if not (run / METRICS).is_file():
        return None
    return find_digits_of_run(read_run(run).metrics, load_sample)


def export_onnx(run: Path, out: Path) -> str:
    """Write a run's model to `out` after a test on its test images, if they are here; describe it.

    Raises:
        InputError: the extra is missing, there is no model, or the file differs from the model: by
            more than 0.001, or in a digit.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError("ONNX needs its extra: pip install 'digitkaggle[onnx]'") from error
    compute = Compute(torch.device("cpu"), torch.float32, "", torch.contiguous_format)
    model = load_model(run, compute=compute)
    content = convert_to_onnx(PortableModel(model).eval())
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    digits = find_digits(run)
    if digits:
        images = digits.test_images
    else:
        noise = torch.Generator().manual_seed(0)
        images = torch.randint(256, (BATCH, 1, IMAGE_SIZE, IMAGE_SIZE), generator=noise).byte()
    batches = images.squeeze(1).split(BATCH)
    exported = np.concatenate(
        [session.run(None, {"images": batch.numpy()})[0] for batch in batches]
    )
    difference, changed = compare_probabilities(exported, model.predict(images).numpy())
    if difference > LARGEST_DIFFERENCE or changed:
        raise InputError(f"the file's probabilities differ from the model's by {difference:.2g}")
    write_file(out, content)
    text = (
        f"{out}: {len(content) / 1e6:.1f} MB, opset {OPSET}, from uint8 N x 28 x 28 to N x 10\n"
        f"on {len(images):,} images {difference:.1g} from the model in float32, no digit changed"
    )
    if digits:
        difference, changed = compare_probabilities(exported, np.load(run / PROBABILITIES))
        text += f"\n{difference:.1g} from the run's own probabilities, {changed} digits changed"
    return text


def convert_to_onnx(model: nn.Module) -> bytes:
    """The model as an ONNX file for any number of images."""
    images, buffer = torch.zeros(2, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8), io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        )
    program.save(buffer)
    return buffer.getvalue()


def compare_probabilities(first: np.ndarray, second: np.ndarray) -> tuple[float, int]:
    """The largest difference of two tables of probabilities, and the number of changed digits."""
    changed = first.argmax(axis=1) != second.argmax(axis=1)
    return float(np.abs(first - second).max()), int(changed.sum())
