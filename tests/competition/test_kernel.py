"""`push`: what it sends, what it refuses to send, and what Kaggle refuses."""

from __future__ import annotations

import json

import pytest

from digitkaggle.competition.client import KaggleError
from digitkaggle.competition.kernel import push
from digitkaggle.competition.record import read_record
from digitkaggle.core.basics import InputError
from tests.competition.conftest import expect_error

METADATA = "kernel/kernel-metadata.json"
SLUG = "anna/digitkaggle-digit-recognizer"
SENT = {"language": "python", "kernelType": "script", "machineShape": "NvidiaTeslaT4"}
SENT |= {"slug": SLUG, "isPrivate": True, "enableGpu": True, "enableInternet": False}
SENT |= {"dockerImagePinningType": "original", "sessionTimeoutSeconds": 7200}
SENT |= {"newTitle": "digitkaggle digit recognizer", "competitionDataSources": ["digit-recognizer"]}


def test_push_sends_the_kernel_and_prints_its_address_and_version(kaggle, repository, capsys):
    push()
    assert capsys.readouterr().out == f"https://www.kaggle.com/code/{SLUG} version 1\n"
    assert kaggle.pushes[0]["text"] == (repository / "kernel/main.py").read_text()
    assert {name: kaggle.pushes[0].get(name) for name in SENT} == SENT
    pushed = read_record()["pushes"][0]
    assert (pushed["version"], pushed["source_digest"]) == (1, "d" * 64)
    assert json.loads((repository / METADATA).read_text())["id"] == SLUG


def test_push_can_send_the_notebook_and_sends_changed_metadata(kaggle, repository):
    changes = {"id": "bert/mine", "title": "Mine", "is_private": False, "dataset_sources": ["x/y"]}
    (repository / METADATA).write_text(json.dumps(changes))
    push(kind="notebook")
    sent = kaggle.pushes[0]
    assert (sent["slug"], sent["isPrivate"], sent["enableGpu"]) == ("bert/mine", False, True)
    assert (sent["kernelType"], sent["datasetDataSources"]) == ("notebook", ["x/y"])
    script = (repository / "kernel/main.py").read_text()
    cell = {"cell_type": "code", "source": script}
    assert json.loads(sent["text"]) == {"cells": [cell]}
    assert changes.items() <= json.loads((repository / METADATA).read_text()).items()


BUNDLER = "kernel/bundle.py"
FAILING_BUNDLER = 'import sys\nprint("error: no, thanks", file=sys.stderr)\nsys.exit(2)\n'
WRONG_FILES = [
    (METADATA, '{"enable_gpuu": true}', "'enable_gpuu'"),
    (METADATA, '{"enable_gpu": "true"}', "enable_gpu"),
    (METADATA, '{"title": "Another title"}', "another-title"),
    (METADATA, '{"dataset_sources": [7]}', "dataset_sources"),
    (METADATA, "[]", f"{METADATA} is not a JSON object"),
    (BUNDLER, FAILING_BUNDLER, "no, thanks"),
    (BUNDLER, None, BUNDLER),
    ("runs/kaggle.json", '{"pushes": [', "kaggle.json"),
]


@pytest.mark.parametrize(("name", "text", "expected"), WRONG_FILES)
def test_a_wrong_file_is_refused_before_anything_is_sent(kaggle, repository, name, text, expected):
    (repository / "runs").mkdir()
    (repository / name).write_text(text) if text else (repository / name).unlink()
    with expect_error(InputError, expected):
        push()
    assert kaggle.calls == []


def test_push_without_an_owner_is_refused_until_the_file_names_one(kaggle, repository, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token-1")
    with expect_error(InputError, f"{METADATA}: id has no owner"):
        push()
    path = repository / METADATA
    path.write_text(path.read_text().replace("YOUR-KAGGLE-USERNAME", "anna"))
    push()
    assert [sent["slug"] for sent in kaggle.pushes] == [SLUG]


REFUSALS = [
    ({"error": "Maximum batch GPU session count of 2 reached."}, "GPU session count"),
    ({"invalidCompetitionSources": ["digit-recognizer"]}, "/c/digit-recognizer/rules"),
    ({"invalidKernelSources": ["anna/x"]}, "anna/x"),
    ({"versionNumber": None}, "push"),
]


@pytest.mark.parametrize(("response", "expected"), REFUSALS)
def test_an_error_inside_a_successful_response_is_a_failure(kaggle, repository, response, expected):
    kaggle.push_response = response
    with expect_error(KaggleError, expected):
        push()
    assert read_record()["pushes"] == []


def test_push_can_wait_for_the_end_and_ignores_the_end_of_an_earlier_run(kaggle_after_push):
    kaggle_after_push.states = ["COMPLETE", "COMPLETE", "QUEUED", "RUNNING", "ERROR"]
    kaggle_after_push.failure_message = "out of time"
    with expect_error(KaggleError, "out of time"):
        push(wait=True)
