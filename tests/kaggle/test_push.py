"""`push`: what is sent, what is refused before, and what Kaggle refuses."""

from __future__ import annotations

import json

import pytest

from digitkaggle.cli import main
from tests.kaggle.conftest import record, refused


def test_push_sends_the_kernel_and_prints_its_address_and_version(kaggle, repository, capsys):
    assert main(["push"]) == 0
    out = capsys.readouterr().out
    assert out == "https://www.kaggle.com/code/anna/digitkaggle-digit-recognizer version 1\n"
    sent = kaggle.pushes[0]
    script = (repository / "kernel/main.py").read_text()
    assert sent["text"] == script
    expected = {
        "slug": "anna/digitkaggle-digit-recognizer",
        "language": "python",
        "kernelType": "script",
        "isPrivate": True,
        "enableGpu": True,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "competitionDataSources": ["digit-recognizer"],
    }
    assert {name: sent.get(name) for name in expected} == expected
    pushed = record(repository)["pushes"][0]
    assert pushed["version"] == 1
    assert f'SOURCE_DIGEST = "{pushed["source_digest"]}"' in script


def test_push_can_send_the_notebook(kaggle, repository):
    assert main(["push", "--kind", "notebook"]) == 0
    sent = kaggle.pushes[0]
    assert sent["kernelType"] == "notebook"
    cells = json.loads(sent["text"])["cells"]
    assert all(isinstance(cell["source"], str) for cell in cells)


def test_push_keeps_what_was_changed_in_the_metadata(kaggle, repository):
    assert main(["push"]) == 0
    path = repository / "kernel/kernel-metadata.json"
    metadata = json.loads(path.read_text()) | {"is_private": False}
    path.write_text(json.dumps(metadata))
    assert main(["push"]) == 0
    assert kaggle.pushes[1]["isPrivate"] is False


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"enable_gpuu": True}, "no key 'enable_gpuu'"),
        ({"enable_gpu": "true"}, "enable_gpu is true or false"),
        ({"title": "Another title"}, "make them agree"),
        ({"id": "digitkaggle-digit-recognizer"}, "id has no owner"),
        ({"competition_sources": []}, "lacks digit-recognizer"),
    ],
)
def test_wrong_metadata_are_refused_before_anything_is_sent(
    kaggle, repository, capsys, change, expected
):
    (repository / "kernel/kernel-metadata.json").write_text(json.dumps(change))
    assert main(["push"]) == 2
    refused(capsys, 2, expected)
    assert kaggle.calls == []


def test_push_without_an_owner_is_refused(kaggle, repository, capsys, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token-1")
    assert main(["push"]) == 2
    refused(capsys, 2, "YOUR-KAGGLE-USERNAME")
    assert kaggle.calls == []


def test_a_kernel_with_our_key_in_it_is_not_pushed(kaggle, repository, capsys, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "def kernel_main")
    assert main(["push"]) == 2
    captured = capsys.readouterr()
    assert "text of your Kaggle credentials" in captured.err
    assert kaggle.calls == []


def test_push_outside_the_repository_says_so(kaggle, desk, capsys):
    assert main(["push"]) == 2
    refused(capsys, 2, "push from the repository's folder")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": "Notebook not found"}, "Notebook not found"),
        ({"error": "Maximum batch GPU session count of 2 reached."}, "GPU session count"),
        ({"invalidCompetitionSources": ["digit-recognizer"]}, "accept the rules"),
        ({"invalidKernelSources": ["anna/x"]}, "refused the source anna/x"),
        ({"versionNumber": None}, "named no version"),
    ],
)
def test_a_refusal_inside_a_good_answer_is_a_failure(kaggle, repository, capsys, answer, expected):
    kaggle.push_answer = answer
    assert main(["push"]) == 3
    refused(capsys, 3, expected)
    assert record(repository)["pushes"] == []


def test_push_can_wait_for_the_end_and_an_earlier_runs_end_is_not_believed(
    kaggle, repository, capsys
):
    assert main(["push"]) == 0
    kaggle.states = ["COMPLETE", "COMPLETE", "QUEUED", "RUNNING", "ERROR"]
    kaggle.failure = "out of time"
    assert main(["push", "--wait"]) == 3
    refused(capsys, 3, "the run failed: out of time")
