from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from digitkaggle.cli import main
from digitkaggle.core.prediction import average_members
from digitkaggle.core.run import run
from digitkaggle.export import PortableModel
from digitkaggle.runs.finished import build_model
from tests.conftest import QUICK_FLAGS, REPOSITORY
from tests.core import CPU
from tests.demo.drawings import enlarge, make_picture, put_on_paper


@pytest.mark.parametrize("flags", [[], ["--members", "2"]])
def test_a_model_is_exported_as_one_file_with_the_same_predictions(tmp_path, capsys, sample, flags):
    folder, out = tmp_path / "run", tmp_path / "digits.onnx"
    assert main([*QUICK_FLAGS, *flags, "--sample", "--views", "3", "--out", str(folder)]) == 0
    assert main(["export", str(folder), "--out", str(out)]) == 0
    assert "on 1,000 images" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(out.read_bytes())
    [exported] = session.run(["probabilities"], {"images": sample.test_images.squeeze(1).numpy()})
    expected = np.load(folder / "probabilities.npy")
    assert (exported.dtype, exported.shape) == (expected.dtype, expected.shape)
    assert np.abs(exported - expected).max() < 0.1, "the run may compute in bfloat16"
    assert (exported.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98


@pytest.mark.parametrize("name", ["digits.pt", "digits", "onnx"])
def test_a_file_that_ends_otherwise_is_refused_before_any_work(tmp_path, capsys, name):
    assert main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / name}: ")
    assert ".onnx or in .html" in error
    assert list(tmp_path.iterdir()) == []


def average_geometrically(probabilities):
    """A geometric mean, in place of `average_members`."""
    mean = torch.stack(list(probabilities)).log().mean(dim=0).exp()
    return mean / mean.sum(dim=1, keepdim=True)


def test_run_model_and_export_average_members_in_one_place(monkeypatch, few_digits, quick_settings):
    settings = dataclasses.replace(quick_settings, members=2)
    result = run(settings, few_digits, CPU)
    plain = result.probabilities
    model = build_model(settings, {m.number: m.weights for m in result.members}, CPU)
    # Its code and not the name, because other modules have imported the function.
    monkeypatch.setattr(average_members, "__code__", average_geometrically.__code__)
    geometric = average_geometrically([member.probabilities for member in result.members])
    assert not torch.allclose(geometric, plain)
    assert torch.equal(result.probabilities, geometric)
    assert torch.equal(model.predict(few_digits.test_images), geometric)
    with torch.no_grad():
        exported = PortableModel(model).eval()(few_digits.test_images.squeeze(1))
    torch.testing.assert_close(exported, geometric)


def test_the_example_classifies_handwriting(tmp_path, sample):
    seven = sample.train_images[sample.train_labels == 7][0, 0].numpy()
    make_picture(put_on_paper(enlarge(seven), np.ones(3), np.zeros(3))).save(tmp_path / "seven.png")
    make_picture(np.ones((99, 99, 3))).save(tmp_path / "blank.png")
    code = REPOSITORY / "examples/own_handwriting.py"
    command = [sys.executable, code, tmp_path / "seven.png", tmp_path / "blank.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{tmp_path / 'seven.png'}: 7, " in done.stdout
    assert "blank.png: blank: no ink" in done.stdout


@pytest.mark.slow
def test_the_example_reports_an_accuracy_per_fold():
    code = REPOSITORY / "examples/cross_validate.py"
    done = subprocess.run([sys.executable, code], capture_output=True, text=True, check=True)
    accuracies = [float(part.strip(" %\n")) for part in done.stdout.partition(": ")[2].split(",")]
    assert len(accuracies) == 3
    assert min(accuracies) > 96
