from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from digitkaggle.cli import main
from digitkaggle.compare import compare_runs, mcnemar
from digitkaggle.errors import InputError
from digitkaggle.figures import expected_calibration_error
from digitkaggle.report import (
    FIGURE_NAMES,
    make_report,
    network_rows,
    network_steps,
)
from digitkaggle.results import HeldOutAnswers, merged_by_row, read_results
from digitkaggle.summary import accuracy_in_words
from tests.conftest import changed_run

SECTIONS = (
    "How it learned",
    "Where it fails",
    "Is it as sure as it is right?",
    "What training saw",
    "The network",
    "The test images",
    "The settings",
)


@pytest.fixture(scope="module")
def page(trained) -> str:
    return (trained / "report.html").read_text()


def text_of(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", page)


def answers(label: list[int], predicted: list[int], confidence: float = 0.8) -> HeldOutAnswers:
    probabilities = np.full((len(label), 10), (1 - confidence) / 9, dtype=np.float32)
    probabilities[np.arange(len(label)), predicted] = confidence
    return HeldOutAnswers(np.arange(len(label)), np.array(label), probabilities)


def test_a_run_leaves_a_report_with_every_section_and_figure(trained, page):
    assert re.findall(r"<h2>(.*?)</h2>", page) == list(SECTIONS)
    metrics = json.loads((trained / "metrics.json").read_text())
    words = text_of(page)
    for part in (
        f"{100 * metrics['validation']['accuracy']:.2f} % of 200 held",
        "of Kaggle's 28,000 test images expect about",
        "fast, seed 0",
        "the sample of 5,000 real digits",
        metrics["device"]["why"],
        "expected calibration error is",
        "Recall of each digit",
        "least certain",
        "muon_learning_rate",
        "convolution 3",
    ):
        assert part.replace("'", "&#x27;") in words, part
    drawn = {path.stem for path in (trained / "figures").iterdir()}
    assert drawn == set(FIGURE_NAMES)
    for name in drawn:
        with Image.open(trained / f"figures/{name}.png") as figure:
            assert min(figure.size) > 150


def test_the_page_is_one_file_that_asks_for_nothing(page):
    loaded = re.findall(r"""(?:src|href|srcset|action)=["']([^"']*)""", page)
    assert loaded
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page
    assert "<script" not in page
    assert len(page) < 1_000_000


def test_the_pages_drawings_follow_the_theme(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 7
    for drawing in drawings:
        # Black is what matplotlib takes where nobody chose.
        assert not re.search(r"(?:fill|stroke): #(?!000000|b0b0b0)[0-9a-f]{6}", drawing)
        assert "var(--" in drawing
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme: dark" in page


def test_the_same_folder_gives_the_same_page(trained, page, sample, tmp_path):
    again = changed_run(trained, tmp_path / "trained")
    assert make_report(again, sample).read_text() == page


def test_without_the_data_the_report_says_so_and_has_the_rest(trained, tmp_path):
    folder = changed_run(trained, tmp_path / "run")
    (folder / "report.html").unlink()
    page = make_report(folder).read_text()
    assert "images are left out" in page
    assert "<img" not in page
    assert "Confusions" in page


def test_what_comes_from_outside_is_escaped(trained, tmp_path):
    data = json.loads((trained / "metrics.json").read_text())["data"]
    evil = "<script>alert(1)</script>"
    folder = changed_run(trained, tmp_path / "run", data=data | {"origin": evil})
    page = make_report(folder).read_text()
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page


def ensemble_of(trained: Path, out: Path) -> Path:
    """A run's folder as an ensemble of three would leave it."""
    metrics = json.loads((trained / "metrics.json").read_text())
    best = metrics["best_epoch"]
    members = [
        {"member": n, "best_epoch": best, "accuracy": 0.9 + n / 100, "images": 200, "loss": 0.5}
        for n in (1, 2, 3)
    ]
    folder = changed_run(
        trained,
        out,
        best_epoch=[best] * 3,
        members=members,
        time_budget="45m",
    )
    history = pd.read_csv(folder / "history.csv")
    pd.concat([history.assign(member=n) for n in (1, 2, 3)]).to_csv(
        folder / "history.csv", index=False
    )
    digits = np.load(folder / "probabilities.npy").argmax(axis=1).astype(np.uint8)
    other = digits.copy()
    other[:10] = (other[:10] + 1) % 10
    np.savez(folder / "members.npz", digits=np.stack([digits, digits, other]))
    with np.load(folder / "validation.npz") as arrays:
        np.savez(folder / "validation.npz", **arrays, member=np.ones(200, dtype=np.int64))
    return folder


def test_an_ensembles_report_adds_its_members_and_their_agreement(trained, tmp_path):
    folder = ensemble_of(trained, tmp_path / "ensemble")
    words = " ".join(text_of(make_report(folder).read_text()).split())
    assert "3 networks were trained" in words
    assert "On 990 of 1,000 test images (99.00 %) all of them give the same answer" in words
    assert "93.00 %" in words
    assert "Time budget 45m" in words


def test_a_run_that_held_nothing_out_has_a_report_too(trained, tmp_path):
    folder = changed_run(trained, tmp_path / "refit", validation=None)
    (folder / "validation.npz").unlink()
    history = pd.read_csv(folder / "history.csv")
    history[["val_loss", "val_accuracy"]] = np.nan
    history.to_csv(folder / "history.csv", index=False)
    words = text_of(make_report(folder).read_text())
    assert "Trained on all images" in words
    assert "Where it fails" not in words


@pytest.mark.parametrize("name", ["history.csv", "probabilities.npy", "validation.npz"])
@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_damaged_folder_is_one_line(trained, tmp_path, name, damage):
    folder = changed_run(trained, tmp_path / "run")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes({"cut": content[:95], "other": b"a,b\n1,2\n"}.get(damage, b""))
    if damage == "gone":
        (folder / name).unlink()
        if name == "validation.npz":
            return  # as a run that held nothing out
    with pytest.raises(InputError, match="cannot be read"):
        read_results(folder)


def test_report_is_made_again_from_the_command_line(trained, tmp_path, capsys):
    folder = changed_run(trained, tmp_path / "run")
    shutil.rmtree(folder / "figures")
    (folder / "report.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert "<img" in (folder / "report.html").read_text()
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert (folder / "figures/mistakes.png").exists()


def test_report_takes_only_the_runs_own_data(trained, data_folder, tmp_path, monkeypatch, capsys):
    folder = changed_run(trained, tmp_path / "run")
    assert main(["report", str(folder), "--data", str(data_folder)]) == 2
    assert "holds other digits than those of the run" in capsys.readouterr().err
    data = json.loads((folder / "metrics.json").read_text())["data"] | {"origin": "elsewhere"}
    moved = changed_run(folder, tmp_path / "moved", data=data)
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(moved)]) == 0
    assert "name the data by --data" in capsys.readouterr().err


def test_the_calibration_error_of_a_known_answer():
    # 10 images, 80 % sure each: 8 right is calibrated, 5 right is off by 30 %.
    label = [1] * 10
    assert expected_calibration_error(answers(label, [1] * 8 + [2] * 2)) == pytest.approx(
        0, abs=1e-6
    )
    assert expected_calibration_error(answers(label, [1] * 5 + [2] * 5)) == pytest.approx(0.3)


def test_no_mistake_at_all_still_allows_for_some():
    metrics = {"validation": {"accuracy": 1.0, "standard_error": 0.0, "images": 4200}}
    assert "up to 20 wrong of Kaggle's 28,000" in accuracy_in_words(metrics)[0]


def test_images_that_members_share_are_merged_to_one_answer_each():
    twice = answers([3, 4, 3], [3, 4, 5], 0.8)
    twice = HeldOutAnswers(np.array([7, 2, 7]), twice.label, twice.probabilities)
    merged = merged_by_row(twice)
    assert merged.row.tolist() == [2, 7]
    assert merged.label.tolist() == [4, 3]
    assert merged.probabilities[1, [3, 5]] == pytest.approx([0.411, 0.411], abs=1e-3)


def test_the_networks_table_is_read_back_and_gathered(trained):
    rows = network_rows(json.loads((trained / "metrics.json").read_text()))
    assert rows[0] == ["layer", "output", "parameters"]
    assert rows[1] == ["input", "1 x 28 x 28", ""]
    assert rows[-1] == ["total", "", "61,306"]
    steps = network_steps(rows)
    assert steps[0] == ("input", [1, 28, 28])
    assert [sizes[1] for _, sizes in steps if len(sizes) == 3] == [28, 14, 14, 7, 7, 1]
    assert steps[-1] == ("linear", [10])
    assert network_rows({}) == []


@pytest.fixture
def rival(trained, tmp_path) -> Path:
    """A run like `trained` that is wrong on its first 20 held-out images, and right elsewhere."""
    settings = json.loads((trained / "metrics.json").read_text())["settings"]
    folder = changed_run(trained, tmp_path / "rival", settings=settings | {"seed": 9})
    with np.load(folder / "validation.npz") as arrays:
        label, row = arrays["label"], arrays["row"]
    said = answers(label.tolist(), [(digit + (n < 20)) % 10 for n, digit in enumerate(label)])
    np.savez(folder / "validation.npz", row=row, label=label, probabilities=said.probabilities)
    return folder


def test_runs_are_compared_on_their_common_images(trained, rival, tmp_path, capsys):
    assert main(["compare", str(trained), str(rival), "--out", str(tmp_path / "c.png")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^seed +0 +9$", out, flags=re.MULTILINE)
    assert "batch_size" not in out
    assert "on 200 common images" in out
    assert "more than chance" in out
    with Image.open(tmp_path / "c.png") as curves:
        assert curves.size[0] > 600


def test_mcnemar_is_the_exact_binomial_test_of_what_only_one_has_right(trained, rival):
    first, second = read_results(trained), read_results(rival)
    test = mcnemar(first, second)
    right = merged_by_row(first.held_out).right
    ours = merged_by_row(second.held_out).right
    assert (test.only_first, test.only_second) == ((right & ~ours).sum(), (ours & ~right).sum())
    # The chance of so uneven a split, both ways, by counting.
    few, all_of_them = min(test.only_first, test.only_second), test.only_first + test.only_second
    tail = sum(pd.Series([1.0, *np.cumprod([(all_of_them - k) / (k + 1) for k in range(few)])]))
    assert test.p_value == pytest.approx(min(1, 2 * tail / 2**all_of_them))
    assert mcnemar(first, first).p_value == 1


def test_compare_says_where_images_cannot_be_compared(trained, rival, tmp_path):
    with np.load(rival / "validation.npz") as arrays:
        apart = dict(arrays)
    apart["row"] = apart["row"] + 100_000
    np.savez(rival / "validation.npz", **apart)
    said = compare_runs([trained, rival], tmp_path / "c.png")
    assert "no common validation images" in said
    data = json.loads((rival / "metrics.json").read_text())["data"] | {"digest": "0" * 64}
    other = changed_run(rival, tmp_path / "other", data=data)
    said = compare_runs([trained, other], tmp_path / "c.png")
    assert "other data" in said
    assert "McNemar" not in said


def test_a_comparison_folds_on_a_narrow_terminal(trained, rival, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    table = compare_runs([trained, rival], tmp_path / "c.png").partition("rival against")[0]
    assert all(len(line) <= 30 for line in table.splitlines())


def test_ensembles_and_runs_that_held_nothing_out_are_compared_too(trained, tmp_path):
    ensemble = ensemble_of(trained, tmp_path / "ensemble")
    refit = changed_run(trained, tmp_path / "refit", validation=None)
    (refit / "validation.npz").unlink()
    said = compare_runs([trained, ensemble, refit], tmp_path / "c.png")
    assert "ensemble against trained: on 200 common images 0 right only in ensemble" in said
    assert "refit against trained: no common validation images" in said


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["report", "nowhere"], "nowhere holds no finished run"),
        (["report"], "runs holds no finished run"),
        (["compare", "nowhere"], "name two or more"),
        (["compare", "a", "b"], "a holds no finished run"),
        (["compare"], "RUN"),
    ],
)
def test_wrong_use_is_one_line(flags, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
