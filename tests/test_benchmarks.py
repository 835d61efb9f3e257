from __future__ import annotations

import json

import pytest

from .benchmarks.__main__ import PARTS, main


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
