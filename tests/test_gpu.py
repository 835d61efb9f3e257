"""What only a GPU can show; run by `make test-gpu`, skipped where there is none."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from digitkaggle.core.basics import Compute, LabelledImages
from digitkaggle.core.device import choose_compute
from digitkaggle.core.settings import PRESETS, make_settings
from digitkaggle.core.training import make_step, predict_logits, start_training, train
from tests.conftest import QUICK_FLAGS, REPOSITORY
from tests.kernel.test_kernel import FILES, on_kaggle, run_notebook
from tests.runs.test_resume import started, wait_for

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
if not torch.cuda.is_available():
    pytest.skip("torch sees no GPU here", allow_module_level=True)


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def fill_memory(left: int) -> torch.Tensor:
    """Take the GPU's memory but for so many bytes."""
    torch.cuda.empty_cache()
    return torch.empty(torch.cuda.mem_get_info()[0] - left, dtype=torch.uint8, device="cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_steps_and_predictions_learn_real_digits(sample, dtype, form):
    compute = Compute(CUDA, dtype, "for tests", form, recorded=form == torch.channels_last)
    data = LabelledImages(sample.train_images, sample.train_labels).to(compute.device)
    training = start_training(make_settings("best", {"epochs": 3}), compute, len(data))
    rows = list(train(training, data, data))
    assert training.scaler.is_enabled() == (dtype == torch.float16)
    assert rows[-1]["val_accuracy"] > 0.97
    logits = predict_logits(training.network, sample.test_images, compute)
    assert logits.device.type == "cuda"
    assert (logits.argmax(dim=1).cpu() == sample.test_labels).float().mean() > 0.95


@pytest.mark.parametrize("preset", ["fast", "classic"])
def test_loss_scaling_recovers_from_an_overflow(sample, preset):
    compute = Compute(CUDA, torch.float16, "for tests")
    data = LabelledImages(sample.train_images, sample.train_labels).to(compute.device)
    settings = make_settings(preset, {"epochs": 2, "batch_size": 100, "precision": "float16"})
    training = start_training(settings, compute, len(data))
    training.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    rows = list(train(training, data, data))
    assert training.scaler.get_scale() < 2.0**40
    assert all(w.isfinite().all() for w in training.best_weights.values())
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(("preset", "dtype"), [("fast", torch.float16), ("best", torch.bfloat16)])
def test_a_step_never_waits_for_the_gpu(sample, preset, dtype, recorded):
    compute = Compute(CUDA, dtype, "for tests", recorded=recorded)
    data = LabelledImages(sample.train_images, sample.train_labels).to(CUDA)
    training = start_training(make_settings(preset, {"erasing": (8,)}), compute, len(data))
    step, batch = make_step(training, data), torch.arange(256, device=CUDA)
    for _ in range(3):
        step(batch, 20)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batch, 20)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_recorded_step_draws_anew_follows_the_rate_and_learns_as_the_plain_one(sample):
    data = LabelledImages(sample.train_images, sample.train_labels).to(CUDA)
    losses = {}
    for recorded in (False, True):
        compute = Compute(CUDA, torch.bfloat16, "for tests", recorded=recorded)
        training = start_training(make_settings("fast", {"epochs": 6}), compute, len(data))
        losses[recorded] = [row["train_loss"] for row in train(training, data, data)]
    assert losses[True] == pytest.approx(losses[False], rel=0.1)
    step, batch = make_step(training, data), torch.arange(256, device=CUDA)
    for group in training.optimizer.param_groups:
        group["lr"].fill_(0)
    first, *_, last, again = [step(batch, 28)[0].item() for _ in range(5)]
    assert first == pytest.approx(last, rel=0.3)  # nothing is learned at a rate of 0
    assert last != again  # images are turned anew each time


def test_fast_reaches_what_it_reaches_on_a_cpu_and_repeats_itself(command, tmp_path):
    runs = {}
    for name, device in [("gpu", "cuda"), ("again", "cuda"), ("cpu", "cpu")]:
        flags = ("--sample", "--preset", "fast", "--device", device, "--out", name)
        done = command("run", *flags, "--quiet")
        assert done.returncode == 0, done.stderr
        runs[name] = metrics_of(tmp_path / name)
    assert runs["gpu"]["device"]["name"] == "cuda"
    right = [runs[name]["test"]["accuracy"] for name in ("gpu", "cpu")]
    error = max(runs[name]["test"]["standard_error"] for name in ("gpu", "cpu"))
    assert abs(right[0] - right[1]) <= 3 * 2**0.5 * error  # of a difference of two
    # A GPU adds in whatever order; the tolerance is 1 % of the digits.
    said = [np.load(tmp_path / name / "probabilities.npy").argmax(1) for name in ("gpu", "again")]
    assert (said[0] != said[1]).mean() <= 0.01


def test_an_interrupted_run_goes_on(tmp_path, data_folder):
    running = started(tmp_path / "run", data_folder)
    wait_for(tmp_path / "run/checkpoint/training-0001.pt")
    running.kill()
    running.communicate()
    again = started(tmp_path / "run", data_folder)
    said, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert "Going on after epoch" in said
    rows = list(csv.DictReader((tmp_path / "run/history.csv").open()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 41))


def test_two_jobs_share_a_gpu(command, tmp_path):
    flags = ["--preset", "fast", "--members", 2, "--jobs", 2, "--out", "pair"]
    done = command("run", "--sample", *flags)
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "pair")
    assert (metrics["device"]["name"], len(metrics["best_epoch"])) == ("cuda", 2)
    assert metrics["test"]["accuracy"] > 0.97


def test_the_kernel_runs_on_it_as_a_script_and_as_a_notebook(kernel_python, kaggle, tmp_path):
    script = shutil.copy(REPOSITORY / "kernel/main.py", tmp_path / "script.py")
    flags = [*QUICK_FLAGS, "--members", 2]
    done = on_kaggle(kernel_python, kaggle, "-W", "error", script, *flags)
    assert done.returncode == 0, done.stderr
    assert metrics_of(kaggle / "working")["device"]["name"] == "cuda"
    assert metrics_of(kaggle / "working")["warnings"] == []
    (kaggle / "working/metrics.json").unlink()
    run_notebook(kernel_python, kaggle, tmp_path)
    assert metrics_of(kaggle / "working")["device"]["name"] == "cuda"
    assert {path.name for path in (kaggle / "working").iterdir()} == FILES


def test_too_large_a_batch_is_an_error_that_says_what_to_change(command):
    flags = ["--preset", "classic", "--batch-size", "21000", "--piece-size", "0"]
    taken = fill_memory(left=3 * 1024**3)
    done = command("run", "--sample", *flags, "--out", "run")
    del taken
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "memory" in done.stderr
    assert "lower --piece-size or --batch-size" in done.stderr


def test_a_gpu_that_fails_its_trial_is_passed_over_and_why_is_told(command, tmp_path):
    taken = fill_memory(left=50 * 1024**2)  # less than any program needs there
    done = command("run", "--sample", *QUICK_FLAGS, "--out", "passed-over")
    del taken
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "passed-over")
    assert metrics["device"]["name"] == "cpu"
    assert "memory" in metrics["warnings"][0]
    assert done.stderr.count("NO GPU IS USED") == 2


def test_the_trial_takes_the_fastest_form():
    compute = choose_compute(PRESETS["fast"])
    assert (compute.device.type, compute.recorded, compute.warning) == ("cuda", True, "")
    assert compute.dtype in (torch.float16, torch.bfloat16)
