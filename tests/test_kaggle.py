"""The way round with Kaggle: the real client against a local server, happy and with every fault."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from digitkaggle.cli import main
from tests import kaggle_server as server
from tests.conftest import REPOSITORY, contents
from tests.kaggle_server import KEY, KaggleServer, zip_of

SUBMISSION = "ImageId,Label\n" + "".join(f"{i},{i % 10}\n" for i in range(1, 28_001))
SAMPLE_SUBMISSION = "ImageId,Label\n" + "".join(f"{i},0\n" for i in range(1, 28_001))
METRICS = {
    "settings": {"preset": "balanced"},
    "validation": {"accuracy": 0.99625},
    "source_digest": "abcdef0123456789",
}
DATA_FILES = ["sample_submission.csv", "test.csv", "train.csv"]


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch):
    """A test that tries to reach another address fails."""
    connect = socket.socket.connect

    def guarded(self, address):
        assert self.family == socket.AF_UNIX or address[0] == "127.0.0.1", address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def files(train_csv, test_csv) -> dict[str, str]:
    return {
        "train.csv": train_csv,
        "test.csv": test_csv,
        "sample_submission.csv": "ImageId,Label\n",
    }


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder to work in, a home without an account, and Kaggle's variables unset."""
    for name in list(os.environ):
        if name.startswith("KAGGLE_"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def kaggle(desk, files, monkeypatch):
    """A server that stands in for Kaggle, and an account there."""
    sizes = {name: len(text.encode()) for name, text in files.items()}
    kaggle = KaggleServer(zip_of(files), sizes, SUBMISSION)
    for name, value in kaggle.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KAGGLE_USERNAME", "anna")
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    yield kaggle
    kaggle.close()


@pytest.fixture
def repository(desk):
    """The desk holds what `push` needs of the repository."""
    (desk / "kernel").mkdir()
    shutil.copy(REPOSITORY / "kernel/bundle.py", desk / "kernel")
    return desk


@pytest.fixture
def run(desk):
    """A finished run whose submission is worth sending."""
    folder = desk / "runs/balanced"
    folder.mkdir(parents=True)
    for name in ("model.pt", "history.csv", "probabilities.npy", "validation.npz"):
        (folder / name).write_bytes(b"")
    (folder / "submission.csv").write_text(SUBMISSION)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder


def refused(capsys, code: int, expected: str) -> str:
    """The one error line, which says what is expected and not our key."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert expected in lines[0], lines[0]
    assert KEY not in captured.err + captured.out
    return lines[0]


def record(desk: Path) -> dict:
    return json.loads((desk / "runs/kaggle.json").read_text())


# --- download


def test_download_puts_checked_files_in_place_and_nothing_else(kaggle, desk, files):
    assert main(["download"]) == 0
    assert contents(desk) == {f"data/{name}": files[name].encode() for name in DATA_FILES}


def test_download_does_nothing_when_good_data_are_there_unless_forced(kaggle, desk, capsys):
    assert main(["download"]) == 0
    calls = len(kaggle.calls)
    assert main(["download"]) == 0
    assert len(kaggle.calls) == calls
    assert "good data already" in capsys.readouterr().out
    assert main(["download", "--force"]) == 0
    assert len(kaggle.calls) > calls


def test_download_replaces_data_that_are_not_good(kaggle, desk, files):
    (desk / "data").mkdir()
    for name in DATA_FILES:
        (desk / "data" / name).write_text("<html>")
    assert main(["download"]) == 0
    assert (desk / "data/train.csv").read_text() == files["train.csv"]


def test_a_cut_download_goes_on_where_it_stopped(kaggle, desk):
    assert len(kaggle.data_zip) > 40_000
    kaggle.fail("GET /data.zip", server.cut(40_000))
    assert main(["download"]) == 0
    ranges = [h["Range"] for h in kaggle.headers if "Range" in h]
    assert ranges == ["bytes=32768-"]


def test_a_partial_download_of_an_earlier_try_is_completed(kaggle, desk, files):
    (desk / "data").mkdir()
    (desk / "data/.digit-recognizer.zip.part").write_bytes(kaggle.data_zip[:7000])
    assert main(["download"]) == 0
    assert any(h.get("Range") == "bytes=7000-" for h in kaggle.headers)
    assert sorted(path.name for path in (desk / "data").iterdir()) == DATA_FILES


@pytest.mark.parametrize("partial", [b"rubbish" * 1000, b"<html>", b"x" * 10_000_000])
def test_a_partial_download_of_something_else_is_thrown_away(kaggle, desk, files, partial):
    (desk / "data").mkdir()
    (desk / "data/.digit-recognizer.zip.part").write_bytes(partial)
    assert main(["download"]) == 0
    assert (desk / "data/train.csv").read_text() == files["train.csv"]


def test_an_address_that_has_expired_is_asked_for_anew(kaggle, desk):
    kaggle.fail("GET /data.zip", server.page(403))
    assert main(["download"]) == 0


def test_too_many_requests_and_faults_of_the_server_are_waited_out(kaggle, desk):
    kaggle.fail("ListDataFiles", server.status(429, Retry_After="0"), server.status(503))
    kaggle.fail("DownloadDataFiles", server.drop, server.status(500))
    assert main(["download"]) == 0


DOWNLOAD_FAULTS = {
    "unauthorised": ("ListDataFiles", [server.status(401)], "does not accept the credentials"),
    "rules": (
        "DownloadDataFiles",
        [server.status(403, "You must accept this competition's rules")],
        "https://www.kaggle.com/c/digit-recognizer/rules",
    ),
    "unknown": ("ListDataFiles", [server.status(404)], "does not know it"),
    "conflict": ("ListDataFiles", [server.status(409)], "wait a minute"),
    "busy": ("ListDataFiles", [server.status(429)] * 9, "too many requests"),
    "busy for long": (
        "ListDataFiles",
        [server.status(429, Retry_After="86400")],
        "too many requests",
    ),
    "broken": ("ListDataFiles", [server.status(500)] * 9, "try later"),
    "dropped": ("ListDataFiles", [server.drop] * 9, "the connection failed"),
    "cut every time": ("GET /data.zip", [server.cut(100)] * 9, "the connection failed"),
    "no storage": ("GET /data.zip", [server.page(403)] * 9, "storage refuses it (403)"),
    "web page": ("GET /data.zip", [server.page()] * 9, "no good zip"),
    "web page as answer": ("ListDataFiles", [server.page()] * 9, "makes no sense"),
    "nonsense": ("ListDataFiles", [server.content(b'{"files": [7]}')] * 9, "makes no sense"),
    "empty list": ("ListDataFiles", [server.content(b"{}")] * 9, "lists no train.csv"),
}


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
@pytest.mark.parametrize("before", ["nothing", "data"])
def test_a_download_that_fails_says_why_and_leaves_what_was_there(
    kaggle, desk, capsys, files, fault, before
):
    if before == "data":
        assert main(["download"]) == 0
        capsys.readouterr()
    there = contents(desk)
    method, faults, expected = DOWNLOAD_FAULTS[fault]
    kaggle.fail(method, *faults)
    assert main(["download", "--force"]) == 3
    refused(capsys, 3, expected)
    after = contents(desk)
    after.pop("data/.digit-recognizer.zip.part", None)  # for the next try to go on from
    assert after == there
    kaggle.faults.clear()
    assert main(["download", "--force"]) == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda files: {"readme.txt": "no data"}, "no good zip"),
        (
            lambda files: files | {"train.csv": files["train.csv"] + "1\n"},
            "where Kaggle lists",
        ),
        (
            lambda files: files | {"train.csv": files["train.csv"].replace(",0,0,", ",0,x,", 1)},
            "not good: ",
        ),
    ],
)
def test_a_zip_that_is_not_the_data_is_not_kept(kaggle, desk, capsys, files, change, expected):
    kaggle.data_zip = zip_of(change(files))
    assert main(["download"]) == 3
    refused(capsys, 3, expected)
    assert contents(desk) == {}


def test_a_damaged_zip_is_not_believed_by_the_next_call(kaggle, desk, capsys, files):
    good = kaggle.data_zip
    kaggle.data_zip = good[:2000] + bytes(50) + good[2050:]
    assert main(["download"]) == 3
    refused(capsys, 3, "no good zip")
    assert contents(desk) == {}
    kaggle.data_zip = good
    assert main(["download"]) == 0


def test_names_in_the_zip_cannot_climb_out(kaggle, desk, files):
    kaggle.data_zip = zip_of(files | {"../evil.txt": "x", "/tmp/evil.txt": "x"})
    assert main(["download"]) == 0
    assert sorted(contents(desk.parent)) == [f"desk/data/{name}" for name in DATA_FILES]


def test_silence_has_an_end(kaggle, desk, capsys, monkeypatch):
    monkeypatch.setenv("DIGITKAGGLE_KAGGLE_TIMEOUT", "0.3")
    kaggle.fail("ListDataFiles", *[server.silence] * 5)
    assert main(["download"]) == 3
    refused(capsys, 3, "no answer within 0.3 s")


def test_no_network_is_said_so(kaggle, desk, capsys):
    kaggle.close()
    assert main(["download"]) == 3
    assert "proxy" in refused(capsys, 3, "check ")


IMPATIENT = """
import os, resource, signal, sys
from digitkaggle.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
limit = int(sys.argv.pop(1))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_is_said_so_and_the_download_goes_on_once_there_is_room(kaggle, desk, files):
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, "20000", "download"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: data cannot be written")
    assert set(contents(desk)) == {"data/.digit-recognizer.zip.part"}
    assert main(["download"]) == 0
    assert contents(desk) == {f"data/{name}": files[name].encode() for name in DATA_FILES}


def test_ctrl_c_leaves_only_what_the_next_call_goes_on_from(kaggle, desk):
    begun = threading.Event()

    def part_and_silence(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(kaggle.data_zip)))
        handler.end_headers()
        handler.wfile.write(kaggle.data_zip[:40_000])
        handler.wfile.flush()
        begun.set()
        return server.silence(handler)

    kaggle.fail("GET /data.zip", part_and_silence)
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, "0", "download"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert begun.wait(60)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("interrupted; this goes on where it stopped: ")
    assert said.endswith(" -m digitkaggle download\n")
    assert set(contents(desk)) == {"data/.digit-recognizer.zip.part"}
    assert main(["download"]) == 0


# --- credentials


@pytest.mark.parametrize("command", ["download", "push", "submit"])
def test_without_credentials_one_line_says_how_to_get_them_and_nothing_is_asked(
    kaggle, repository, run, capsys, monkeypatch, command
):
    monkeypatch.delenv("KAGGLE_KEY")
    before = contents(repository)
    assert main([command]) == 2
    refused(capsys, 2, "https://www.kaggle.com/settings")
    assert kaggle.calls == []
    assert contents(repository) == before


WAYS = {
    "token variable": {"env": {"KAGGLE_API_TOKEN": "token-1"}},
    "token file named": {"env": {"KAGGLE_API_TOKEN": "~/mine"}, "files": {"mine": "token-1\n"}},
    "token file": {"files": {".kaggle/access_token": "token-1\n"}},
    "token file of Windows": {"files": {".kaggle/access_token.txt": "token-1"}},
    "kaggle.json": {"files": {".kaggle/kaggle.json": '{"username": "anna", "key": "KEY"}'}},
    "kaggle.json, new place": {
        "files": {".config/kaggle/kaggle.json": '{"username": "anna", "key": "KEY"}'}
    },
    "kaggle.json and variable": {
        "env": {"KAGGLE_KEY": KEY},
        "files": {".kaggle/kaggle.json": '{"username": "anna", "key": "old"}'},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_all_the_clients_ways_to_sign_in_work(kaggle, desk, monkeypatch, way):
    home = Path.home()
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    for name, text in WAYS[way].get("files", {}).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text.replace("KEY", KEY))
        (home / name).chmod(0o600)
    for name, value in WAYS[way].get("env", {}).items():
        monkeypatch.setenv(name, value.replace("~", str(home)))
    assert main(["download"]) == 0
    sent = kaggle.headers[0]["Authorization"]
    if "token" in way:
        assert sent == "Bearer token-1"
    else:
        import base64

        assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"anna:{KEY}"
    # The signed address is fetched without our credentials.
    storage = kaggle.headers[kaggle.calls.index("GET /data.zip")]
    assert "Authorization" not in storage


def test_a_kaggle_json_that_others_can_read_is_mentioned_once(kaggle, desk, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_KEY")
    path = Path.home() / ".kaggle/kaggle.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"username": "anna", "key": KEY}))
    path.chmod(0o644)
    assert main(["download"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("chmod 600") == 1
    assert "chmod" not in captured.out


def test_importing_and_using_the_library_never_imports_the_kaggle_package(kaggle, desk):
    code = (
        "import sys; from digitkaggle.cli import main; main(['download']);"
        "sys.exit('kaggle' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- push


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


# --- status


@pytest.fixture
def pushed(kaggle, repository, capsys):
    assert main(["push"]) == 0
    capsys.readouterr()
    return kaggle


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "COMPLETE"])
def test_status_prints_the_state(pushed, capsys, state):
    pushed.states = [state]
    assert main(["status"]) == 0
    assert capsys.readouterr().out == (
        f"anna/digitkaggle-digit-recognizer version 1: {state.lower()}\n"
    )


@pytest.mark.parametrize("state", ["ERROR", "CANCEL_ACKNOWLEDGED"])
def test_a_failed_run_exits_3_with_the_reason_and_the_end_of_the_log(pushed, capsys, state):
    pushed.states = [state]
    pushed.failure = "Your notebook\nwas killed"
    pushed.log = [{"data": f"line {number}\n"} for number in range(100)]
    assert main(["status"]) == 3
    captured = capsys.readouterr()
    assert "Your notebook was killed" in captured.err
    assert "line 99" in captured.err
    assert "line 20" not in captured.err


@pytest.mark.parametrize("command", ["status", "output"])
def test_before_a_push_there_is_nothing_to_ask_for(kaggle, desk, capsys, command):
    assert main([command]) == 2
    refused(capsys, 2, "make push")


# --- output


def test_output_puts_the_checked_files_into_a_folder_of_the_version(pushed, repository, capsys):
    pushed.states = ["COMPLETE"]
    assert main(["output"]) == 0
    assert capsys.readouterr().out == "runs/kaggle-1\n"
    folder = repository / "runs/kaggle-1"
    assert sorted(contents(folder)) == ["kaggle.log", "metrics.json", "submission.csv"]
    assert (folder / "submission.csv").read_text() == SUBMISSION
    assert (folder / "kaggle.log").read_text() == "epoch 1\n"


def test_output_replaces_an_older_copy_of_itself_even_east_of_utc(pushed, repository, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    pushed.states = ["COMPLETE"]
    stale = repository / "runs/kaggle-1"
    stale.mkdir()
    (stale / "submission.csv").write_text("stale")
    (stale / "old.txt").write_text("stale")
    assert main(["output"]) == 0
    assert (stale / "submission.csv").read_text() == SUBMISSION
    assert not (stale / "old.txt").exists()


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
def test_nothing_is_written_outside_the_folder_whatever_its_name(pushed, repository, capsys, name):
    pushed.states = ["COMPLETE"]
    pushed.output["evil"] = b"x"
    pushed.output_names["evil"] = name
    before = set(contents(repository.parent))
    assert main(["output"]) == 0
    assert "left out" in capsys.readouterr().err
    new = set(contents(repository.parent)) - before
    assert all(path.startswith("desk/runs/kaggle-1/") for path in new)
    assert not any(Path(path).name == "e" or "evil" in path for path in new)


def test_files_in_folders_keep_their_folders(pushed, repository):
    pushed.states = ["COMPLETE"]
    pushed.output["curves"] = b"x"
    pushed.output_names["curves"] = "figures/curves.png"
    assert main(["output"]) == 0
    assert (repository / "runs/kaggle-1/figures/curves.png").exists()


OUTPUT_FAULTS = {
    "running": (lambda k: setattr(k, "states", ["RUNNING"]), "still running"),
    "no submission": (lambda k: k.output.pop("submission.csv"), "no submission.csv"),
    "short submission": (
        lambda k: k.output.update({"submission.csv": b"ImageId,Label\n1,2\n"}),
        "1 rows for 28,000",
    ),
    "error page": (lambda k: k.output.update({"submission.csv": b"<html>403"}), "not good"),
    "older version": (
        lambda k: k.output.update({"metrics.json": b'{"source_digest": "0ld"}'}),
        "of another version (sources 0ld)",
    ),
    "no metrics": (lambda k: k.output.pop("metrics.json"), "metrics.json cannot be read"),
    "address refused": (
        lambda k: k.fail("GET /output/submission.csv", *[server.page(403)] * 9),
        "storage refuses it (403)",
    ),
    "dropped": (
        lambda k: k.fail("GET /output/submission.csv", *[server.drop] * 9),
        "the connection failed",
    ),
    "not ours": (
        lambda k: k.fail("ListKernelSessionOutput", server.status(403, "Permission denied")),
        "see that the credentials in KAGGLE_KEY are yours",
    ),
}


@pytest.mark.parametrize("fault", OUTPUT_FAULTS)
def test_an_output_that_is_not_good_is_refused_and_the_folder_stays_as_it_was(
    pushed, repository, capsys, fault
):
    pushed.states = ["COMPLETE"]
    change, expected = OUTPUT_FAULTS[fault]
    change(pushed)
    before = contents(repository)
    assert main(["output"]) == 3
    refused(capsys, 3, expected)
    assert contents(repository) == before


# --- submit


def test_submit_sends_the_newest_run_and_prints_the_score(kaggle, desk, run, capsys):
    assert main(["submit"]) == 0
    captured = capsys.readouterr()
    assert "taking the newest run's: runs/balanced/submission.csv" in captured.out
    assert "4 submissions are left today" in captured.out
    assert captured.out.endswith("score 0.99400\n")
    assert list(kaggle.uploads.values()) == [SUBMISSION.encode()]
    message = kaggle.submissions[0]["description"]
    for part in ("balanced", "99.6250%", "abcdef012345"):
        assert part in message
    sent = record(desk)["submissions"]
    assert [(entry["ref"], entry["score"]) for entry in sent] == [(1000, "0.99400")]
    assert sent[0]["sha256"] == hashlib.sha256(SUBMISSION.encode()).hexdigest()


def test_quiet_leaves_the_score_alone_on_standard_output(kaggle, run, capsys):
    assert main(["submit", "--quiet"]) == 0
    assert capsys.readouterr().out == "score 0.99400\n"


def test_a_file_and_a_message_of_ones_own_can_be_sent(kaggle, desk):
    (desk / "mine.csv").write_text(SUBMISSION)
    assert main(["submit", "mine.csv", "--message", "my idea"]) == 0
    assert kaggle.submissions[0]["description"].startswith("my idea")


def test_the_same_file_is_not_sent_twice_unless_forced(kaggle, desk, run, capsys):
    assert main(["submit"]) == 0
    capsys.readouterr()
    assert main(["submit"]) == 2
    refused(capsys, 2, "sent before (submission 1000, score 0.99400)")
    assert len(kaggle.submissions) == 1
    assert main(["submit", "--force"]) == 0
    assert len(kaggle.submissions) == 2


WORTHLESS = {
    "empty": ("", "line 1"),
    "short": (SUBMISSION[:-20], "rows for 28,000"),
    "sample": (SAMPLE_SUBMISSION, "says 0 for every image"),
    "wrong order": (SUBMISSION.replace("\n1,1\n2,2\n", "\n2,2\n1,1\n"), "ImageId is '2', not 1"),
    "no digit": (SUBMISSION.replace("\n5,5\n", "\n5,15\n"), "Label '15' is no digit"),
    "binary": ("\x00\x01", "line 1"),
}


@pytest.mark.parametrize("kind", WORTHLESS)
def test_a_file_that_is_worth_nothing_is_not_sent(kaggle, desk, capsys, kind):
    text, expected = WORTHLESS[kind]
    (desk / "mine.csv").write_text(text)
    assert main(["submit", "mine.csv"]) == 2
    refused(capsys, 2, expected)
    assert kaggle.calls == []


def test_a_run_on_the_sample_is_not_sent(kaggle, run, capsys):
    (run / "metrics.json").write_text(json.dumps(METRICS | {"test": {"accuracy": 0.99}}))
    assert main(["submit"]) == 2
    refused(capsys, 2, "run on the sample")
    assert kaggle.calls == []


def test_missing_files_and_runs_are_said_so(kaggle, desk, capsys):
    assert main(["submit"]) == 2
    refused(capsys, 2, "make run first")
    assert main(["submit", "nothing.csv"]) == 2
    refused(capsys, 2, "nothing.csv cannot be read")


SUBMIT_FAULTS = {
    "rejected": (
        lambda k: setattr(k, "rejected", "Wrong columns"),
        "submission 1000: Wrong columns",
    ),
    "no more today": (
        lambda k: setattr(k, "limits", {"numToday": 5, "numAllowedNow": 0}),
        "all of today's submissions are used (5)",
    ),
    "upload refused": (lambda k: k.fail("PUT", *[server.page(403)] * 9), "upload the submission"),
    "upload dropped": (lambda k: k.fail("PUT", *[server.drop] * 9), "the connection failed"),
    "rules": (lambda k: k.fail("StartSubmissionUpload", server.status(403)), "accept the rules"),
    "not taken": (
        lambda k: k.fail(
            "CreateSubmission",
            server.content(b'{"message": "Could not submit to competition", "ref": 0}'),
        ),
        "Could not submit",
    ),
    "create fails": (
        lambda k: k.fail("CreateSubmission", *[server.status(500)] * 9),
        "submit: Kaggle has a fault",
    ),
}


@pytest.mark.parametrize("fault", SUBMIT_FAULTS)
def test_a_submission_that_fails_says_why(kaggle, desk, run, capsys, fault):
    change, expected = SUBMIT_FAULTS[fault]
    change(kaggle)
    assert main(["submit"]) == 3
    refused(capsys, 3, expected)
    assert len(kaggle.submissions) <= 1


def test_a_submission_whose_answer_was_lost_is_found_and_not_sent_again(kaggle, run, capsys):
    def takes_it_and_drops(handler):
        digest = hashlib.sha256(SUBMISSION.encode()).hexdigest()[:8]
        kaggle.create_submission({"submissionDescription": f"mine [{digest}]"})
        return server.drop(handler)

    kaggle.fail("CreateSubmission", takes_it_and_drops)
    assert main(["submit", "--message", "mine"]) == 0
    assert capsys.readouterr().out.endswith("score 0.99400\n")
    assert len(kaggle.submissions) == 1
    assert kaggle.calls.count("CreateSubmission") == 1


def test_a_submission_that_surely_did_not_go_through_is_sent_again(kaggle, run):
    kaggle.fail("CreateSubmission", server.drop)
    assert main(["submit"]) == 0
    assert len(kaggle.submissions) == 1


def test_a_server_that_knows_no_limits_is_no_hindrance(kaggle, run):
    kaggle.limits = None
    assert main(["submit"]) == 0


# --- all of it


def test_the_whole_way_round_in_a_row(kaggle, repository, capsys):
    for command in ("download", "push", "status", "output", "submit"):
        assert main([command]) == 0, command
    assert kaggle.uploads["blob-0"].decode() == SUBMISSION
    assert capsys.readouterr().out.endswith("score 0.99400\n")


@pytest.mark.parametrize("command", [["download"], ["push"], ["output"], ["submit"]])
def test_a_folder_that_cannot_be_written_is_said_so_and_stays_as_it_was(
    pushed, repository, run, command
):
    """In a process without root's rights, with a home that cannot be written either."""
    pushed.states = ["COMPLETE"]
    before = contents(repository)
    folders = [path for path in repository.rglob("*") if path.is_dir()]
    for folder in [repository, *folders, Path.home()]:
        folder.chmod(0o555)
    script = (
        "import os, sys, jupytext, nbformat, requests, slugify, kagglesdk;"
        "import kagglesdk.kaggle_creds, sklearn.model_selection;"
        "from digitkaggle.cli import main;"
        "os.getuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534));"
        "sys.exit(main(sys.argv[1:]))"
    )
    for folder in repository.parents:
        if folder != Path("/") and os.access(folder, os.W_OK) and "pytest" in str(folder):
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=120
    )
    for folder in [repository, *folders, Path.home()]:
        folder.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(repository) == before
