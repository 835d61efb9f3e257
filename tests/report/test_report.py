from __future__ import annotations

import html.parser
import shutil

import numpy as np
import pytest

from digitkaggle.core.basics import InputError
from digitkaggle.report.compare import compare_runs, mcnemar
from digitkaggle.report.page import make_report
from digitkaggle.runs.results import digits_of_run, read_results
from digitkaggle.sample import sample_digits
from tests.conftest import changed_run

FIGURES = {
    *("curves", "confusion", "recall", "mistakes", "reliability", "augmentation", "network"),
    *("shares", "least_certain"),
}


@pytest.fixture
def copy(trained, tmp_path):
    return changed_run(trained, tmp_path / "run")


class Page(html.parser.HTMLParser):
    """What a page shows, and where it would go for more."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts, self.links = [], []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.links += [value for name, value in attributes if name in ("src", "href")]


def test_a_report_has_its_figures_and_needs_no_network(copy, sample):
    page = Page(make_report(copy, sample).read_text())
    assert {path.stem for path in (copy / "figures").glob("*.png")} == FIGURES
    metrics = read_results(copy).metrics
    wanted = f"{metrics['validation']['accuracy']:.2%}".rstrip("%")
    assert any(wanted in text for text in page.texts)
    assert all(link.startswith(("data:", "#")) for link in page.links)


def test_without_the_data_it_shows_no_images(copy):
    make_report(copy)
    drawn = {path.stem for path in (copy / "figures").glob("*.png")}
    assert drawn == FIGURES - {"mistakes", "augmentation", "least_certain"}


def test_what_stands_in_a_run_is_text_to_the_page(copy):
    metrics = read_results(copy).metrics
    attack = {"settings": metrics["settings"] | {"preset": "<script>alert(1)</script>"}}
    folder = changed_run(copy, copy.parent / "attack", **attack)
    assert "<script" not in make_report(folder).read_text()


def test_a_warning_of_a_run_stands_in_its_report(copy):
    folder = changed_run(copy, copy.parent / "warned", warnings=["no GPU was there"])
    assert "no GPU was there" in make_report(folder).read_text()


def test_runs_of_version_0_1_report(copy, sample):
    metrics = read_results(copy).metrics
    old = {"settings": metrics["settings"] | {"refit": False}, "network": ["layer output"]}
    folder = changed_run(copy, copy.parent / "old", **old)
    assert make_report(folder, sample).exists()


@pytest.mark.parametrize(
    "name", ["metrics.json", "history.csv", "probabilities.npy", "validation.npz"]
)
def test_a_damaged_run_is_refused(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:30])
    with pytest.raises(InputError, match="run"):
        read_results(copy)


def test_the_digits_of_a_run_are_found_or_missed(copy, data_folder):
    metrics = dict(read_results(copy).metrics)
    digits, missing = digits_of_run(metrics, None, sample_digits)
    assert (digits.digest(), missing) == (metrics["data"]["digest"], "")
    with pytest.raises(InputError, match="other digits"):
        digits_of_run(metrics, data_folder, sample_digits)


def test_compared_runs_are_told_apart_by_a_paired_test(copy, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    arrays = dict(np.load(other / "validation.npz"))
    arrays["probabilities"] = np.roll(arrays["probabilities"], 1, axis=1)  # all wrong
    np.savez(other / "validation.npz", **arrays)
    same = mcnemar(read_results(trained), read_results(copy))
    worse = mcnemar(read_results(trained), read_results(other))
    assert (same.only_first, same.only_second, same.p_value) == (0, 0, 1.0)
    assert worse.p_value < 0.001
    text = compare_runs([trained, other], tmp_path / "compare.png")
    assert "more than chance" in text
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
