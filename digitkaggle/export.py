"""A run's model as one ONNX file, views and members inside, which needs neither torch nor us."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .core.basics import CLASSES, IMAGE_SIZE, Compute, InputError
from .core.prediction import SURE, VIEWS, predict_probabilities, viewed
from .core.results import METRICS, PROBABILITIES, write_file
from .runs.results import digits_of_run, open_model, read_results
from .sample import sample_digits

BATCH = 1000  # images at once, where the file is tried
MOST_APART = 1e-3
OPSET = 20


class Answer(nn.Module):
    """From uint8, N x 28 x 28, to probabilities, float32, N x 10: `predict_probabilities`."""

    def __init__(self, networks: list[nn.Sequential], views: int) -> None:
        super().__init__()
        self.networks, self.views = nn.ModuleList(networks), views

    def forward(self, images: Tensor) -> Tensor:
        """The mean of all members; where one is sure at first sight, its first view alone."""
        pixels, total = images.unsqueeze(1).float() / 255, 0
        seen = torch.cat([viewed(view, pixels) for view in VIEWS[: self.views]])
        for network in self.networks:
            said = network(seen).softmax(dim=1).view(self.views, -1, CLASSES)
            first, second = said[0].topk(2, dim=1).values.unbind(dim=1)
            unsure = (first - second < SURE).unsqueeze(1)
            total = total + torch.where(unsure, said.mean(dim=0), said[0])
        return total / len(self.networks)


def export(run: Path, out: Path) -> str:
    """Write a run's model to `out`, tried with its test images if they are here; said in words.

    Raises:
        InputError: the extra is missing, there is no model, or the file says something else than
            the model does: by more than 0.001, or another digit.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError("export needs ONNX: pip install 'digitkaggle[onnx]'") from error
    compute = Compute(torch.device("cpu"), torch.float32, "", torch.contiguous_format)
    networks, settings, _ = open_model(run, compute=compute)
    content = as_onnx(Answer(networks, settings.views).eval())
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    known = (run / METRICS).is_file()
    digits = digits_of_run(read_results(run).metrics, sample_digits) if known else None
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(256, (BATCH, 1, IMAGE_SIZE, IMAGE_SIZE), generator=noise).byte()
    images = digits.test_images if digits else images
    answers = [
        session.run(None, {"images": part.numpy()})[0] for part in images.squeeze(1).split(BATCH)
    ]
    ours = predict_probabilities(networks, images, compute, settings.views).numpy()
    apart, changed = differences(np.concatenate(answers), ours)
    if apart > MOST_APART or changed:
        raise InputError(f"the file says something else than the model, by {apart:.2g}")
    write_file(out, content)
    words = (
        f"{out}: {len(content) / 1e6:.1f} MB, opset {OPSET}, from uint8 N x 28 x 28 to N x 10\n"
        f"on {len(images):,} images {apart:.1g} from the model in float32, no digit changed"
    )
    if digits:
        apart, changed = differences(np.concatenate(answers), np.load(run / PROBABILITIES))
        words += f"\n{apart:.1g} from the run's own probabilities, {changed} digits changed"
    return words


def as_onnx(model: nn.Module) -> bytes:
    """The model as a file for any number of images."""
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


def differences(said: np.ndarray, others: np.ndarray) -> tuple[float, int]:
    """The largest difference of two tables of probabilities, and how many digits differ."""
    return np.abs(said - others).max(), int((said.argmax(axis=1) != others.argmax(axis=1)).sum())
