from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from digitkaggle.cli import main
from tests.conftest import QUICK_FLAGS, REPOSITORY
from tests.demo.drawings import large, on_paper, picture_of


@pytest.mark.parametrize("flags", [[], ["--members", "2"]])
def test_a_model_goes_out_as_one_file_that_says_the_same(tmp_path, capsys, sample, flags):
    run, out = tmp_path / "run", tmp_path / "digits.onnx"
    assert main([*QUICK_FLAGS, *flags, "--sample", "--views", "3", "--out", str(run)]) == 0
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert "on 1,000 images" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(out.read_bytes())
    [said] = session.run(["probabilities"], {"images": sample.test_images.squeeze(1).numpy()})
    kept = np.load(run / "probabilities.npy")
    assert (said.dtype, said.shape) == (kept.dtype, kept.shape)
    assert np.abs(said - kept).max() < 0.1, "one counts in bfloat16"
    assert (said.argmax(axis=1) == kept.argmax(axis=1)).mean() > 0.98


def test_the_example_names_handwriting(tmp_path, sample):
    seven = sample.train_images[sample.train_labels == 7][0, 0].numpy()
    picture_of(on_paper(large(seven), np.ones(3), np.zeros(3))).save(tmp_path / "seven.png")
    picture_of(np.ones((99, 99, 3))).save(tmp_path / "blank.png")
    code = REPOSITORY / "examples/own_handwriting.py"
    command = [sys.executable, code, tmp_path / "seven.png", tmp_path / "blank.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{tmp_path / 'seven.png'}: 7, " in done.stdout
    assert "blank.png: blank: no ink" in done.stdout


@pytest.mark.slow
def test_the_example_cross_validates():
    code = REPOSITORY / "examples/cross_validate.py"
    done = subprocess.run([sys.executable, code], capture_output=True, text=True, check=True)
    shares = [float(part.strip(" %\n")) for part in done.stdout.partition(": ")[2].split(",")]
    assert len(shares) == 3
    assert min(shares) > 96
