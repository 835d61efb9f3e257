from __future__ import annotations

import base64
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from digitkaggle.core.settings import PRESETS
from digitkaggle.report.compare import compare_runs, mcnemar
from digitkaggle.report.figures import expected_calibration_error
from digitkaggle.report.page import draw_figures, make_report
from digitkaggle.runs.results import HeldOutAnswers, read_results
from tests.conftest import changed_run

FIGURES = {
    *("curves", "confusion", "recall", "mistakes", "reliability", "augmentation"),
    "least_certain",
}


class Page(html.parser.HTMLParser):
    """A page's visible text, the names of its tags, what it loads, and its drawings."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.links, self.drawings = "", [], [], {}
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
            self.drawings[values["alt"]] = base64.b64decode(values["src"].split(",")[1])


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return changed_run(trained, tmp_path / "run")


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def drawn_in(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "figures").glob("*.png")}


def as_ensemble(folder: Path) -> Path:
    """Make of a run's folder what one of three equal members leaves."""
    best = metrics_of(folder)["best_epoch"]
    ensemble = changed_run(folder, folder.parent / "ensemble", best_epoch=[best] * 3)
    history = pd.read_csv(folder / "history.csv")
    members = [history.assign(member=number) for number in (1, 2, 3)]
    pd.concat(members).to_csv(ensemble / "history.csv", index=False)
    digits = np.tile(np.load(folder / "probabilities.npy").argmax(axis=1).astype(np.uint8), (3, 1))
    digits[2, :100] += 1
    np.savez(ensemble / "members.npz", digits=digits)
    with np.load(folder / "validation.npz") as arrays:
        members = np.arange(len(arrays["row"])) % 3 + 1
        np.savez(ensemble / "validation.npz", **(dict(arrays) | {"member": members}))
    return ensemble


def holding_nothing_out(folder: Path) -> Path:
    """Make of a run's folder what one that trained on all images leaves."""
    run = changed_run(folder, folder.parent / "all-images", validation=None)
    (run / "validation.npz").unlink()
    history = pd.read_csv(run / "history.csv").assign(val_loss=np.nan, val_accuracy=np.nan)
    history.to_csv(run / "history.csv", index=False)
    return run


def test_a_report_has_the_runs_numbers_and_all_figures(copy, sample):
    page, metrics = Page(make_report(copy, sample)), metrics_of(copy)
    assert drawn_in(copy) == FIGURES
    for part in (
        f"{metrics['validation']['accuracy']:.2%} of 200 held",
        "of the 1,000 test digits",
        metrics["data"]["origin"],
        metrics["device"]["why"],
        "61,050 numbers were learned",
        "muon_learning_rate",
        metrics["source_digest"],
    ):
        assert part in page.text
    assert page.drawings.keys() == {name.replace("_", " ") for name in FIGURES}
    wrong = (~read_results(copy).held_out.right).sum()
    texts = {
        name: [text.get_text() for text in figure.axes[0].texts]
        for name, figure in draw_figures(read_results(copy), sample, PRESETS["fast"])
    }
    assert sum("is a " in text for text in texts["mistakes"]) == min(wrong, 40)
    assert sum("or " in text for text in texts["least_certain"]) == 40


def test_the_page_is_one_file_that_loads_nothing(copy, sample):
    page = Page(make_report(copy, sample))
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "script" not in page.tags
    assert "@import" not in page.source
    assert len(page.source) < 1_000_000


def test_a_dark_page_inverts_the_drawings(copy):
    page = Page(make_report(copy))
    assert len(page.drawings) == 4
    assert all(drawing.startswith(b"\x89PNG") for drawing in page.drawings.values())
    dark = page.source.partition("prefers-color-scheme: dark")[2]
    assert ".chart img { filter: invert(1)" in dark


def test_the_same_run_gives_the_same_page(copy, sample):
    assert make_report(copy, sample).read_text() == make_report(copy, sample).read_text()


def test_without_the_data_it_shows_no_images_and_says_so(copy):
    page = Page(make_report(copy))
    assert drawn_in(copy) == FIGURES - {"mistakes", "augmentation", "least_certain"}
    assert "images are left out" in page.text


def test_what_stands_in_a_run_is_text_to_the_page(copy):
    attack = "<script>alert(1)</script>"
    metrics = metrics_of(copy)
    changes = {"settings": metrics["settings"] | {"preset": attack}, "warnings": [attack]}
    changes |= {"data": metrics["data"] | {"origin": attack}}
    page = Page(make_report(changed_run(copy, copy.parent / attack.strip("</>"), **changes)))
    assert "script" not in page.tags
    assert page.text.count(attack) >= 3


def test_an_ensembles_report_adds_its_members_and_how_they_agree(copy, sample):
    page = Page(make_report(as_ensemble(copy), sample))
    assert "3 networks were trained" in page.text
    assert "On 90.00% of the test images all of them give the same answer" in page.text
    assert "member 1 2 3 1 100.00% 100.00% 90.00%" in page.text


def test_a_run_that_held_nothing_out_has_a_report_too(copy, sample):
    run = holding_nothing_out(copy)
    page = Page(make_report(run, sample))
    assert "Trained on all images, none held out" in page.text
    assert drawn_in(run) == FIGURES - {"confusion", "recall", "mistakes", "reliability"}


def test_a_run_of_version_0_1_has_a_report_too(copy, sample):
    metrics = metrics_of(copy)
    old = {"settings": metrics["settings"] | {"refit": True}, "network": ["layer output"]}
    old |= {"refit": "trained anew", "time_budget": {"seconds": None, "cut": "2 of 3 epochs"}}
    page = Page(make_report(changed_run(copy, copy.parent / "old", **old), sample))
    assert "trained anew" in page.text
    assert "Time budget 2 of 3 epochs" in page.text


def test_settings_that_we_no_longer_take_cost_the_pages_network_alone(copy, sample):
    settings = metrics_of(copy)["settings"] | {"network": "of another version"}
    run = changed_run(copy, copy.parent / "strange", settings=settings)
    page = Page(make_report(run, sample))
    assert drawn_in(run) == FIGURES - {"augmentation"}
    assert "The network" not in page.text


def test_the_calibration_error_of_known_answers():
    # 10 images, 80 % sure each: 8 right is calibrated, 5 right is off by 30 %.
    probabilities = np.full((10, 10), 0.2 / 9, dtype=np.float32)
    probabilities[:, 1] = 0.8
    for right, error in ((8, 0), (5, 0.3)):
        label = np.array([1] * right + [2] * (10 - right))
        answers = HeldOutAnswers(np.arange(10), label, probabilities)
        assert expected_calibration_error(answers) == pytest.approx(error, abs=1e-6)


def test_mcnemars_test_counts_what_only_one_has_right():
    # Of ten images that one alone has right, nine are the first one's: 2 (1 + 10) / 2^10.
    right = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    other = np.array([False] * 9 + [True] + [True] * 5 + [False] * 5)
    only_one, only_other, p_value = mcnemar(right, other)
    assert (only_one, only_other) == (9, 1)
    assert p_value == pytest.approx(22 / 1024)
    assert mcnemar(right, right) == (0, 0, 1.0)


def test_runs_are_compared_on_the_images_that_both_held_out(copy, tmp_path):
    settings = metrics_of(copy)["settings"] | {"seed": 9}
    rival = changed_run(copy, copy.parent / "rival", settings=settings)
    arrays = dict(np.load(rival / "validation.npz"))
    right = read_results(copy).held_out.right.sum()
    arrays["probabilities"] = np.roll(np.eye(10)[arrays["label"]], 1, axis=1)  # all wrong
    np.savez(rival / "validation.npz", **arrays)
    text = compare_runs([copy, rival], tmp_path / "compare.png")
    assert re.search(r"^seed +0 +9$", text, flags=re.MULTILINE)
    assert "batch_size" not in text
    assert f"on 200 common images 0 right only in rival, {right} only in run: more than" in text
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_runs_without_common_images_or_data_are_compared_by_their_accuracy(copy, tmp_path):
    data = metrics_of(copy)["data"] | {"digest": "0" * 64}
    elsewhere = changed_run(copy, copy.parent / "elsewhere", data=data)
    runs = [copy, holding_nothing_out(copy), elsewhere, as_ensemble(copy)]
    text = compare_runs(runs, tmp_path / "compare.png")
    assert "all-images against run: no common validation images" in text
    assert "elsewhere against run: other data" in text
    assert "ensemble against run: on 200 common images 0 right only in ensemble" in text
