"""Real runs without their wait for imports: a warm process that forks one child for each of them.

    python forked_runs.py digitkaggle          forks children that call digitkaggle.cli.main
    python forked_runs.py kernel/main.py       forks children that call that script's kernel_main

Each line on standard input asks for one run, as JSON:

    arguments     of the command line
    signals       [[seconds, number], ...]: sent to the child so long after its start
    faults        {"name": value}: what to change about the child first, see `suffer`

and is answered on standard output by two lines of JSON: at once the child's process number, and in
the end its exit code (negative for the signal
that killed it), its seconds, what it wrote to standard output and error, and its peak memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from pathlib import Path


def load(entry: str):
    """The entry's main function, and the namespaces in which its constants live."""
    if entry.endswith(".py"):
        spec = importlib.util.spec_from_file_location("kernel", entry)
        sys.modules["kernel"] = script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        return script.kernel_main, lambda module: vars(script)
    main = importlib.import_module(f"{entry}.cli").main
    return main, lambda module: vars(importlib.import_module(f"{entry}.{module}"))


def warm_up() -> None:
    """Import what a run imports on its way; no computation, whose threads would not survive."""
    import torch
    from matplotlib.figure import Figure

    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    Figure(layout="constrained").subplots().get_figure().savefig(io.BytesIO(), format="png")


def suffer(faults: dict, namespace) -> None:
    """Put the process into the trouble that a test asks for."""
    for name, value in faults.items():
        if name == "seconds_between_saves":
            namespace("resumable")["SECONDS_BETWEEN_SAVES"] = value
        elif name == "no_network":

            def refuse(*arguments):
                os.write(2, b"the network was used\n")
                os._exit(99)

            socket.socket.connect = socket.getaddrinfo = refuse
        elif name == "file_size":
            resource.setrlimit(resource.RLIMIT_FSIZE, (value, value))
        elif name == "address_space":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + value, used + value))
        elif name == "fails_at_write":
            fail_at_write(value)
        elif name == "folder":
            os.chdir(value)
        elif name == "no_root_rights":
            drop_root_rights()
        else:
            raise ValueError(name)


def drop_root_rights() -> None:
    """Root without its capabilities minds the rights of files like anybody; others stay as is."""
    if os.getuid() == 0:
        version_3_of_this_process = (ctypes.c_uint32 * 2)(0x20080522, 0)
        no_capabilities = (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None).capset(version_3_of_this_process, no_capabilities):
            raise OSError("root's rights cannot be dropped")


def fail_at_write(number: int) -> None:
    """The disk is full when file number so and so is opened to be written; 0 counts them."""
    opened = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal opened
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+"):
            opened += 1
            if opened >= number > 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
            if number == 0 and str(arguments[0]).endswith(".part"):
                os.write(1, f"write {opened}: {arguments[0]}\n".encode())

    sys.addaudithook(watch)


def fork(main, namespace, order: dict) -> dict:
    """One run, from its start to its end or that of its child."""
    # Pipes, not files, which a limit of file sizes would hold for too.
    pipes = [os.pipe() for _ in range(2)]
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        be_the_run(main, namespace, order, [write for _, write in pipes])
    print(child, flush=True)
    said = {read: b"" for read, _ in pipes}
    for read, write in pipes:
        os.close(write)
        os.set_blocking(read, False)
    sending = list(order.get("signals", []))
    ended = 0
    while not ended:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        for read in said:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(read, 65536):
                    said[read] += part
        if not ended and sending and time.monotonic() - started >= sending[0][0]:
            os.kill(child, sending.pop(0)[1])
        time.sleep(0.002)
    for read in said:
        os.close(read)
    output, errors = (content.decode() for content in said.values())
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "output": output,
        "errors": errors,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def be_the_run(main, namespace, order: dict, outputs: list[int]) -> None:
    """What the child does."""
    code = 1
    try:
        for number, output in enumerate(outputs, start=1):
            os.dup2(output, number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        suffer(order.get("faults", {}), namespace)
        code = main(order["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    entry_main, entry_namespace = load(sys.argv[1])
    warm_up()
    for line in sys.stdin:
        print(json.dumps(fork(entry_main, entry_namespace, json.loads(line))), flush=True)
