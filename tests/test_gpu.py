"""What only a GPU can show; run by `make test-gpu`, skipped where there is none."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from digitkaggle.core.basics import Compute, LabeledImages
from digitkaggle.core.device import choose_compute, make_step
from digitkaggle.core.settings import PRESETS, Settings, derive_member_settings, make_settings
from digitkaggle.core.training import predict_logits, start_training, train
from tests.conftest import QUICK_FLAGS, REPOSITORY
from tests.kernel.test_kernel import FILES, run_notebook, run_on_kaggle
from tests.runs.test_resume import start_process, wait_for

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
if not torch.cuda.is_available():
    pytest.skip("torch sees no GPU here", allow_module_level=True)


def make_member(preset: str, changes: dict[str, object]) -> Settings:
    return derive_member_settings(make_settings(preset, changes), 1)


def read_metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def fill_memory(left: int) -> torch.Tensor:
    """Take all of the GPU's memory except N bytes."""
    torch.cuda.empty_cache()
    return torch.empty(torch.cuda.mem_get_info()[0] - left, dtype=torch.uint8, device="cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_network_learns_real_digits_in_every_dtype_and_memory_format(
    sample, dtype, memory_format
):
    cuda_graphs = memory_format == torch.channels_last
    compute = Compute(CUDA, dtype, "for tests", memory_format, cuda_graphs)
    data = LabeledImages(sample.train_images, sample.train_labels).to(compute.device)
    training = start_training(make_member("best", {"epochs": 3}), compute, len(data))
    rows = list(train(training, data, data))
    assert training.scaler.is_enabled() == (dtype == torch.float16)
    assert rows[-1]["val_accuracy"] > 0.97
    logits = predict_logits(training.network, sample.test_images, compute)
    assert logits.device.type == "cuda"
    assert (logits.argmax(dim=1).cpu() == sample.test_labels).float().mean() > 0.95


@pytest.mark.parametrize("preset", ["fast", "classic"])
def test_loss_scaling_recovers_from_an_overflow(sample, preset):
    compute = Compute(CUDA, torch.float16, "for tests")
    data = LabeledImages(sample.train_images, sample.train_labels).to(compute.device)
    settings = make_member(preset, {"epochs": 2, "batch_size": 100, "precision": "float16"})
    training = start_training(settings, compute, len(data))
    training.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    rows = list(train(training, data, data))
    assert training.scaler.get_scale() < 2.0**40
    assert all(w.isfinite().all() for w in training.best_weights.values())
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize(("preset", "dtype"), [("fast", torch.float16), ("best", torch.bfloat16)])
def test_a_step_never_waits_for_the_gpu(sample, preset, dtype, cuda_graphs):
    compute = Compute(CUDA, dtype, "for tests", cuda_graphs=cuda_graphs)
    data = LabeledImages(sample.train_images, sample.train_labels).to(CUDA)
    training = start_training(make_member(preset, {}), compute, len(data))
    step, batch = make_step(training, data), torch.arange(256, device=CUDA)
    for _ in range(3):
        step(batch, 20)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batch, 20)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_replayed_step_draws_again_follows_the_rate_and_learns_as_a_plain_step_does(sample):
    data = LabeledImages(sample.train_images, sample.train_labels).to(CUDA)
    losses = {}
    for cuda_graphs in (False, True):
        compute = Compute(CUDA, torch.bfloat16, "for tests", cuda_graphs=cuda_graphs)
        training = start_training(make_member("fast", {"epochs": 6}), compute, len(data))
        losses[cuda_graphs] = [row["train_loss"] for row in train(training, data, data)]
    assert losses[True] == pytest.approx(losses[False], rel=0.1)
    step, batch = make_step(training, data), torch.arange(256, device=CUDA)
    for group in training.optimizer.param_groups:
        group["lr"].fill_(0)
    first, *_, last, again = [step(batch, 28)[0].item() for _ in range(5)]
    assert first == pytest.approx(last, rel=0.3)  # at a rate of 0 nothing changes
    assert last != again  # each step transforms the images again


def test_fast_has_the_accuracy_that_it_has_on_a_cpu_and_repeats_itself(run_command, tmp_path):
    runs = {}
    for name, device in [("gpu", "cuda"), ("again", "cuda"), ("cpu", "cpu")]:
        flags = ("--sample", "--preset", "fast", "--device", device, "--out", name)
        done = run_command("run", *flags, "--quiet")
        assert done.returncode == 0, done.stderr
        runs[name] = read_metrics(tmp_path / name)
    assert runs["gpu"]["device"]["name"] == "cuda"
    accuracies = [runs[name]["test"]["accuracy"] for name in ("gpu", "cpu")]
    error = max(runs[name]["test"]["standard_error"] for name in ("gpu", "cpu"))
    assert abs(accuracies[0] - accuracies[1]) <= 3 * 2**0.5 * error  # of a difference of two
    # A GPU adds in any order; the tolerance is 1 % of the digits.
    first, second = (np.load(tmp_path / name / "probabilities.npy") for name in ("gpu", "again"))
    assert (first.argmax(axis=1) != second.argmax(axis=1)).mean() <= 0.01


def test_an_interrupted_run_resumes(tmp_path, data_folder):
    process = start_process(tmp_path / "run", data_folder)
    wait_for(tmp_path / "run/checkpoint/training-0001.pt")
    process.kill()
    process.communicate()
    again = start_process(tmp_path / "run", data_folder)
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert "Resuming after epoch" in output
    rows = list(csv.DictReader((tmp_path / "run/history.csv").open()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 41))


def test_two_jobs_share_a_gpu(run_command, tmp_path):
    flags = ["--preset", "fast", "--members", 2, "--jobs", 2, "--out", "pair"]
    done = run_command("run", "--sample", *flags)
    assert done.returncode == 0, done.stderr
    metrics = read_metrics(tmp_path / "pair")
    assert (metrics["device"]["name"], len(metrics["best_epoch"])) == ("cuda", 2)
    assert metrics["test"]["accuracy"] > 0.97


def test_the_kernel_uses_the_gpu_as_a_script_and_as_a_notebook(kernel_python, kaggle, tmp_path):
    script = shutil.copy(REPOSITORY / "kernel/main.py", tmp_path / "script.py")
    flags = [*QUICK_FLAGS, "--members", 2]
    done = run_on_kaggle(kernel_python, kaggle, "-W", "error", script, *flags)
    assert done.returncode == 0, done.stderr
    assert read_metrics(kaggle / "working")["device"]["name"] == "cuda"
    assert read_metrics(kaggle / "working")["warnings"] == []
    (kaggle / "working/metrics.json").unlink()
    run_notebook(kernel_python, kaggle, tmp_path)
    assert read_metrics(kaggle / "working")["device"]["name"] == "cuda"
    assert {path.name for path in (kaggle / "working").iterdir()} == FILES


def test_too_large_a_batch_is_an_error_with_the_flags_to_change(run_command):
    flags = ["--preset", "classic", "--batch-size", "21000", "--piece-size", "0"]
    taken = fill_memory(left=3 * 1024**3)
    done = run_command("run", "--sample", *flags, "--out", "run")
    del taken
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "memory" in done.stderr
    assert "lower --piece-size or --batch-size" in done.stderr


def test_a_gpu_that_fails_its_trial_is_skipped_and_the_reason_reported(run_command, tmp_path):
    taken = fill_memory(left=50 * 1024**2)  # less than any program needs there
    done = run_command("run", "--sample", *QUICK_FLAGS, "--out", "skipped")
    del taken
    assert done.returncode == 0, done.stderr
    metrics = read_metrics(tmp_path / "skipped")
    assert metrics["device"]["name"] == "cpu"
    assert "memory" in metrics["warnings"][0]
    assert done.stderr.count("NO GPU IS USED") == 2


def test_the_trial_chooses_the_fastest_form():
    compute = choose_compute(PRESETS["fast"])
    assert (compute.device.type, compute.cuda_graphs, compute.warning) == ("cuda", True, "")
    assert compute.dtype in (torch.float16, torch.bfloat16)
