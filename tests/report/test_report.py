from __future__ import annotations

import base64
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from digitkaggle.core.results import HeldOutPredictions
from digitkaggle.core.settings import PRESETS
from digitkaggle.report.compare import compare_runs, compute_mcnemar
from digitkaggle.report.figures import compute_calibration_error, plot_curves
from digitkaggle.report.page import draw_figures, make_report
from digitkaggle.runs.finished import read_run
from tests.conftest import REPOSITORY, copy_run

FIGURES = {
    *("curves", "confusion", "recall", "mistakes", "reliability", "augmentation"),
    "least_certain",
}


class Page(html.parser.HTMLParser):
    """A page's visible text, the names of its tags, what it loads, and its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.links, self.pictures = "", [], [], {}
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_data(self, data: str) -> None:
        self.text += f" {data}" * (self.tags[-1:] != ["style"])

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append(tag)
        values = dict(attributes)
        self.links += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        if tag == "img":
            self.pictures[values["alt"]] = base64.b64decode(values["src"].split(",")[1])


@pytest.fixture
def finished_run(trained_run, tmp_path) -> Path:
    return copy_run(trained_run, tmp_path / "run")


def read_metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def list_figures(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "figures").glob("*.png")}


def make_ensemble(folder: Path) -> Path:
    """A run's folder changed as if three equal members had left it."""
    best_epochs = [read_metrics(folder)["best_epoch"]] * 3
    ensemble = copy_run(folder, folder.parent / "ensemble", best_epoch=best_epochs)
    history = pd.read_csv(folder / "history.csv")
    members = [history.assign(member=number) for number in (1, 2, 3)]
    pd.concat(members).to_csv(ensemble / "history.csv", index=False)
    digits = np.tile(np.load(folder / "probabilities.npy").argmax(axis=1).astype(np.uint8), (3, 1))
    digits[2, :100] += 1
    np.savez(ensemble / "members.npz", digits=digits)
    with np.load(folder / "validation.npz") as arrays:
        number = np.arange(len(arrays["row"])) % 3 + 1
        np.savez(ensemble / "validation.npz", **(dict(arrays) | {"member": number}))
    return ensemble


def make_run_without_validation(folder: Path) -> Path:
    """A run's folder changed as if it had trained on all images."""
    run = copy_run(folder, folder.parent / "all-images", validation=None)
    (run / "validation.npz").unlink()
    history = pd.read_csv(run / "history.csv").assign(val_loss=np.nan, val_accuracy=np.nan)
    history.to_csv(run / "history.csv", index=False)
    return run


def test_a_report_shows_the_runs_numbers_and_all_figures(finished_run, sample):
    page, metrics = Page(make_report(finished_run, sample)), read_metrics(finished_run)
    assert list_figures(finished_run) == FIGURES
    for part in (
        f"{metrics['validation']['accuracy']:.2%} of 200 held",
        "of its 1,000 test digits",
        metrics["data"]["origin"],
        "61,050 trained parameters",
        "muon_learning_rate",
        metrics["source_digest"],
    ):
        assert part in page.text
    assert page.pictures.keys() == {name.replace("_", " ") for name in FIGURES}
    errors = (~read_run(finished_run).held_out.correct).sum()
    texts = {
        name: [text.get_text() for text in figure.axes[0].texts]
        for name, figure in draw_figures(read_run(finished_run), sample, PRESETS["fast"])
    }
    assert sum("is a " in text for text in texts["mistakes"]) == min(errors, 40)
    assert sum("or " in text for text in texts["least_certain"]) == 40


def test_the_page_is_one_file_that_loads_nothing(finished_run, sample):
    page = Page(make_report(finished_run, sample))
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "script" not in page.tags
    assert "@import" not in page.source
    assert len(page.source) < 1_000_000


def test_a_dark_page_inverts_the_pictures(finished_run):
    page = Page(make_report(finished_run))
    assert len(page.pictures) == 4
    assert all(picture.startswith(b"\x89PNG") for picture in page.pictures.values())
    dark = page.source.partition("prefers-color-scheme: dark")[2]
    assert ".chart img { filter: invert(1)" in dark


def test_the_same_run_gives_the_same_page(finished_run, sample):
    text = make_report(finished_run, sample).read_text()
    assert make_report(finished_run, sample).read_text() == text


def test_without_the_data_it_shows_no_images_and_says_so(finished_run):
    page = Page(make_report(finished_run))
    assert list_figures(finished_run) == FIGURES - {"mistakes", "augmentation", "least_certain"}
    assert "images are left out" in page.text


def test_the_page_escapes_text_that_comes_from_the_run(finished_run):
    attack = "<script>alert(1)</script>"
    metrics = read_metrics(finished_run)
    changes = {"settings": metrics["settings"] | {"preset": attack}, "warnings": [attack]}
    changes |= {"data": metrics["data"] | {"origin": attack}}
    folder = finished_run.parent / attack.strip("</>")
    page = Page(make_report(copy_run(finished_run, folder, **changes)))
    assert "script" not in page.tags
    assert page.text.count(attack) >= 3


def test_an_ensembles_report_shows_its_members_and_their_agreement(finished_run, sample):
    page = Page(make_report(make_ensemble(finished_run), sample))
    assert "3 networks were trained" in page.text
    assert "On 90.00% of the test images all members predict the same digit" in page.text
    assert "member 1 2 3 1 100.00% 100.00% 90.00%" in page.text


def test_a_run_without_held_out_images_has_a_report(finished_run, sample):
    run = make_run_without_validation(finished_run)
    page = Page(make_report(run, sample))
    assert "Trained on all images, none held out" in page.text
    assert list_figures(run) == FIGURES - {"confusion", "recall", "mistakes", "reliability"}


def test_a_run_of_version_0_1_has_a_report(finished_run, sample):
    metrics = read_metrics(finished_run)
    old = {"settings": metrics["settings"] | {"refit": True}, "network": ["layer output"]}
    old |= {"time_budget": {"seconds": None, "cut": "2 of 3 epochs"}}
    page = Page(make_report(copy_run(finished_run, finished_run.parent / "old", **old), sample))
    assert "Time budget 2 of 3 epochs" in page.text


def test_unknown_settings_cost_only_the_network_and_the_augmented_images(finished_run, sample):
    settings = read_metrics(finished_run)["settings"] | {"network": "of another version"}
    run = copy_run(finished_run, finished_run.parent / "strange", settings=settings)
    page = Page(make_report(run, sample))
    assert list_figures(run) == FIGURES - {"augmentation"}
    assert "trained parameters" not in page.text


def test_the_calibration_error_of_known_predictions():
    # Ten images at a confidence of 80 %: 8 correct is calibrated, 5 correct is off by 30 %.
    probabilities = np.full((10, 10), 0.2 / 9, dtype=np.float32)
    probabilities[:, 1] = 0.8
    for correct, error in ((8, 0), (5, 0.3)):
        label = np.array([1] * correct + [2] * (10 - correct))
        held_out = HeldOutPredictions(np.arange(10), label, probabilities)
        assert compute_calibration_error(held_out) == pytest.approx(error, abs=1e-6)


def test_mcnemars_test_counts_images_that_only_one_classifies_correctly():
    # Of ten images that only one classifies correctly, nine are the first one's: 2 (1 + 10) / 2^10.
    first = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    second = np.array([False] * 9 + [True] + [True] * 5 + [False] * 5)
    only_first, only_second, p_value = compute_mcnemar(first, second)
    assert (only_first, only_second) == (9, 1)
    assert p_value == pytest.approx(22 / 1024)
    assert compute_mcnemar(first, first) == (0, 0, 1.0)


def test_runs_are_compared_on_the_images_that_both_held_out(finished_run, tmp_path):
    settings = read_metrics(finished_run)["settings"] | {"seed": 9}
    rival = copy_run(finished_run, finished_run.parent / "rival", settings=settings)
    arrays = dict(np.load(rival / "validation.npz"))
    correct = read_run(finished_run).held_out.correct.sum()
    arrays["probabilities"] = np.roll(np.eye(10)[arrays["label"]], 1, axis=1)  # all wrong
    np.savez(rival / "validation.npz", **arrays)
    text = compare_runs([finished_run, rival], tmp_path / "compare.png")
    assert re.search(r"^seed +0 +9$", text, flags=re.MULTILINE)
    assert "batch_size" not in text
    counts = f"0 are correct only in rival, {correct} only in run"
    assert f"of 200 common images {counts}: significant" in text
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_here_and_on_kaggle_have_the_same_source_digest(trained_run):
    kernel = (REPOSITORY / "kernel/main.py").read_text()
    found = re.search(r'^SOURCE_DIGEST = "(\w{64})"$', kernel, flags=re.MULTILINE)
    assert read_metrics(trained_run)["source_digest"] == found[1]


def test_runs_without_common_images_or_data_are_compared_by_their_accuracy(finished_run, tmp_path):
    data = read_metrics(finished_run)["data"] | {"digest": "0" * 64}
    elsewhere = copy_run(finished_run, finished_run.parent / "elsewhere", data=data)
    all_images, ensemble = make_run_without_validation(finished_run), make_ensemble(finished_run)
    text = compare_runs([finished_run, all_images, elsewhere, ensemble], tmp_path / "compare.png")
    assert "all-images against run: no common validation images" in text
    assert "elsewhere against run: other data" in text
    assert "ensemble against run: of 200 common images 0 are correct only in ensemble" in text


def test_curves_mark_where_the_size_of_the_images_changes_with_readable_ticks(finished_run):
    figure = plot_curves(read_run(finished_run))
    for axes in figure.axes:
        assert {text.get_text().strip() for text in axes.texts} == {"20 x 20", "28 x 28"}
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert "5 %" in labels
    assert figure.axes[0].get_ylabel() == "loss"
    assert figure.axes[1].get_ylabel() == "error rate"


def test_the_reason_for_the_device_stands_in_the_report_only_where_a_gpu_was_passed_over(
    finished_run,
):
    device = read_metrics(finished_run)["device"]
    assert "No GPU because" not in Page(make_report(finished_run)).text
    reason = "cuda does not work here (no kernel image is available); cpu works"
    failed = copy_run(finished_run, finished_run.parent / "failed", device=device | {"why": reason})
    assert f"No GPU because {reason}" in Page(make_report(failed)).text
