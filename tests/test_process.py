"""The process around the command line: interrupts, broken output, consoles, notebooks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import QUICK_FLAGS, REPOSITORY

RUN = [sys.executable, "-m", "digitkaggle"]


def quick_run(folder, data_folder, **options) -> subprocess.CompletedProcess:
    """A run of about two seconds with standard streams of its own."""
    command = [*RUN, *QUICK_FLAGS, "--data", str(data_folder), "--out", "run", "--threads", "1"]
    return subprocess.run(command, cwd=folder, timeout=300, **options)


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_while_torch_is_imported_leaves_no_traceback(tmp_path, delay, number, code):
    process = subprocess.Popen(
        [*RUN, "report"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(delay)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    # Python itself takes some hundredths of a second before any code of ours runs.
    early = delay < 0.3 and (process.returncode == -number or "KeyboardInterrupt" in errors)
    assert early or process.returncode in (code, 2), errors
    assert early or "Traceback" not in errors


def test_a_closed_pipe_costs_messages_but_no_files(tmp_path, data_folder):
    reader, writer = os.pipe()
    os.close(reader)
    done = quick_run(tmp_path, data_folder, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run/report.html").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
def test_a_full_disk_below_standard_output_costs_messages_but_no_files(tmp_path, data_folder):
    with open("/dev/full", "w") as full:
        done = quick_run(tmp_path, data_folder, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run/report.html").exists()


def test_closed_streams_cost_messages_but_no_files(tmp_path, data_folder):
    flags = [*QUICK_FLAGS, "--data", str(data_folder), "--out", "run", "--threads", "1"]
    shell = 'exec "$@" >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, "sh", *RUN, *flags], cwd=tmp_path, timeout=300)
    assert done.returncode == 0
    assert (tmp_path / "run/report.html").exists()


@pytest.mark.parametrize("name", [b"bl\xe4tter", "Zürich 数字".encode()])
def test_names_that_the_console_or_utf8_cannot_express_are_no_failure(tmp_path, data_folder, name):
    folder = os.fsdecode(name)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    data_folder.rename(tmp_path / folder)
    done = quick_run(tmp_path, folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/report.html").exists()
    picture = tmp_path / f"{folder}.png"
    picture.write_bytes(b"not a picture")
    command = [*RUN, "predict", "run", str(picture), "--format", "csv"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


CELL = """
import builtins, sys
builtins.get_ipython = lambda: None  # what IPython puts there
sys.argv[1:] = ["-f", "kernel.json"]
from digitkaggle import cli
parse = cli.OneLineParser.parse_args
cli.OneLineParser.parse_args = lambda self, args: print(args) or parse(self, ["report"])
print(cli.main())
"""


def test_in_a_cell_the_notebooks_arguments_are_not_ours_and_nothing_exits(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CELL], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines() == ["['run']", "2"]
    assert done.stderr.startswith("error: runs holds no finished run")


def test_the_kernel_pasted_into_a_cell_runs_and_ends_without_an_exit(
    tmp_path, data_folder, kernel_python
):
    """By nbclient, in a notebook with one cell."""
    import nbformat
    from nbclient import NotebookClient

    code = (REPOSITORY / "kernel/main.py").read_text()
    quick = 'PRESETS["balanced"] = make_settings("fast", {"widths": (4, 4, 4), "epochs": 1})\n'
    code = code.replace('if __name__ == "__main__":', quick + 'if __name__ == "__main__":')
    data_folder.rename(tmp_path / "data")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(book, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs/kernel/submission.csv").exists()
    texts = [out.get("text", "") for out in book.cells[0].outputs]
    assert "preset fast" in "".join(texts)
    assert not any(out.output_type == "error" for out in book.cells[0].outputs)
