from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from digitkaggle.core.networks import build_network
from digitkaggle.core.settings import derive_member_settings, make_settings

from .benchmarks import rehearsals
from .benchmarks.__main__ import PARTS, main
from .core import CPU


def build_middle(seed: int) -> torch.nn.Module:
    return rehearsals.build_middle_network(None, torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_a_quick_benchmark_measures_every_part_and_writes_a_table_and_json(tmp_path):
    assert main(["--quick", "--seeds", "2", "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert set(results) == {"machine", *PARTS}
    runs = results["accuracy"]["runs"]
    assert {name: len(rows) for name, rows in runs.items()} == {
        "fast": 4,  # twice as many, because it is judged over ten runs
        "balanced": 2,
        "one-second recipe": 2,
        "tutorial recipe": 1,
    }
    assert all(row["accuracy"] > 0.8 for rows in runs.values() for row in rows)
    assert all(0 < row["fraction"] < 1 for row in results["fraction"].values())
    assert (tmp_path / "out" / "bench.md").read_text().startswith("Measured on ")


def test_the_benchmark_refuses_data_that_do_not_exist(tmp_path, capsys):
    assert main(["--data", str(tmp_path / "nothing.zip"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_draw_hides_four_tenths_and_members_are_judged_alone_and_together(
    sample, tmp_path, capsys, monkeypatch
):
    digits, labels = rehearsals.split_draw(sample, 1)
    assert (len(digits.train_labels), len(labels)) == (1920, 1280)  # of four fifths of 4,000
    assert len(digits.test_images) == len(labels)
    monkeypatch.setattr(rehearsals, "FOLDER", tmp_path)
    right = np.eye(10)[[0, 1, 2, 3]]
    first, second = right.copy(), 0.9 * right  # each misses one, and the first is surer
    first[0], second[1] = np.eye(10)[5], 0.9 * np.eye(10)[6]
    np.savez(rehearsals.get_file(1, "best", 1), probabilities=first)
    np.savez(rehearsals.get_file(1, "best", 2), probabilities=second)
    np.savez(rehearsals.get_file(1, "large", 1), probabilities=right)
    rehearsals.report(1, np.arange(4))
    assert capsys.readouterr().out.splitlines() == [
        "best: alone 1, 1; together 1, 1; all miss 0",
        "large: alone 0; together 0; all miss 0",
        "1 of large against 1 of best: 1 better, 0 worse, p = 1.000",
    ]


@pytest.mark.parametrize("build", [rehearsals.build_large_network, build_middle])
def test_the_networks_of_rehearsals_predict_ten_classes(build):
    assert build(32)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_averaged_weights_get_batch_statistics_of_their_own(sample):
    settings = derive_member_settings(make_settings("fast", {}), 1)
    network = AveragedModel(build_network(settings, torch.Generator().manual_seed(0)))
    statistics = network.module[1].running_mean
    before = statistics.clone()
    rehearsals.renew_statistics(network, sample.train_images[:300], settings, CPU)
    assert not torch.equal(statistics, before)
    # Every image counts once: the same mean in one batch and in several.
    one_batch = dataclasses.replace(settings, augmentation="none", batch_size=300)
    rehearsals.renew_statistics(network, sample.train_images[:300], one_batch, CPU)
    together = statistics.clone()
    three = dataclasses.replace(one_batch, batch_size=100)
    rehearsals.renew_statistics(network, sample.train_images[:300], three, CPU)
    torch.testing.assert_close(statistics, together, atol=1e-5, rtol=1e-4)
