"""Several processes at one run, by torch's elastic launcher: who is who, and what they say.

Each process is a rank. Ranks talk through the key-value store that the launcher keeps, which has
no time limit: who is done waits for slower ones as long as their hearts beat. Collectives of
torch's process group, which have a short limit, are used where all have come to them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from .budget import process_age
from .device import gpu_works
from .errors import InputError
from .interrupts import Interrupted
from .log import log_level, logger, set_log_level

BEAT_SECONDS = 1.0
# A rank that is silent for so long is lost; a collective waits as long.
PEER_SECONDS = 60.0
POLL_SECONDS = 0.1
# Machines may differ by so much in how long they take to start.
JOIN_SECONDS = 300.0
MOST_RESTARTS = 3
# Set by --processes for the ranks: a folder where they leave the run's exit code, and when the
# command began, in seconds since 1970.
OUTCOME_FOLDER = "DIGITKAGGLE_OUTCOME"
COMMAND_STARTED = "DIGITKAGGLE_STARTED"


class RunEndedError(Exception):
    """Another rank ended the run, and said why; it carries the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class PeerLostError(Exception):
    """Another rank, or the launcher, is not there any more."""


class Ranks:
    """This process among those of a run.

    Attributes:
        rank: from 0, over all machines; `world` of them.
        local_rank: from 0, on this machine.
        machine: from 0; that of rank 0 is 0.
        trouble: why to stop, as soon as a step is done; None while all is well.
        started: when the command began, in seconds since 1970, restarts or not.
    """

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.machine = int(os.environ.get("GROUP_RANK", 0))
        self.trouble: Exception | None = None
        self.log_level = log_level()
        self.run_store = _asked(launcher_store)
        if failed := _failure(self.run_store):
            raise RunEndedError(failed)
        self.store = _asked(lambda: _store_of_this_round(self.run_store, self.rank, self.world))
        self._group: Any = None
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        self.started = self._agree_on_start()

    @property
    def leads_machine(self) -> bool:
        """Whether this rank speaks for its machine: it holds the folder, and tells how it goes."""
        return self.local_rank == 0

    def say(self, key: str, value: Any) -> None:
        """Put a JSON value where all ranks of this round can hear it."""
        self.store.set(key, json.dumps(value))

    def hear(self, key: str) -> Any:
        """The value of a key, for which this waits as long as all ranks are alive.

        Raises:
            RunEndedError, PeerLostError: it will not come any more.
        """
        while not _asked(lambda: self.store.check([key])):
            self.look()
            time.sleep(POLL_SECONDS)
        return json.loads(_asked(lambda: self.store.get(key)))

    def meet(self, name: str, value: Any) -> list[Any]:
        """What each rank says at this point, in their order; each name serves for one meeting."""
        self.say(f"{name}/{self.rank}", value)
        return [self.hear(f"{name}/{rank}") for rank in range(self.world)]

    def take(self, name: str) -> int:
        """The next number, from 0, of those that all ranks share under a name."""
        return _asked(lambda: self.store.add(f"taken/{name}", 1)) - 1

    def look(self) -> None:
        """Raise what troubles this run, if anything does."""
        if self.trouble:
            raise self.trouble

    def once(self, name: str) -> bool:
        """Whether this launcher's ranks do something for the first time, restarts included."""
        key = f"{name}/{socket.gethostname()}/{os.getppid()}"
        return not self.run_store.check([key])

    def did(self, name: str) -> None:
        """From now on `once` says no."""
        self.run_store.set(f"{name}/{socket.gethostname()}/{os.getppid()}", "done")

    def group(self, device: torch.device | None = None) -> Any:
        """`torch.distributed` with its process group made, by all ranks at once.

        Gloo for what lies on the CPU; NCCL for a GPU, if each rank has one of its own.
        """
        import torch.distributed as dist
        from torch.distributed import PrefixStore

        if self._group is None:
            self.meet("group", None)
            backend = "gloo"
            if device is not None and device.type == "cuda":
                own = int(os.environ["LOCAL_WORLD_SIZE"]) <= torch.cuda.device_count()
                backend = "cpu:gloo,cuda:nccl" if own and dist.is_nccl_available() else "gloo"
            dist.init_process_group(
                backend,
                store=PrefixStore("group", self.store),
                rank=self.rank,
                world_size=self.world,
                timeout=timedelta(seconds=PEER_SECONDS),
            )
            self._group = dist
        return self._group

    def lost(self, error: RuntimeError) -> Exception:
        """What an error of a collective means: the run has ended, a peer is lost, or our fault."""
        deadline = time.monotonic() + 5 * BEAT_SECONDS
        while self.trouble is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if self.trouble:
            return self.trouble
        text = str(error).strip().partition("\n")[0]
        gone = isinstance(error, torch.distributed.DistError) or "gloo" in text.lower()
        return PeerLostError(f"another process is gone ({text[:200]})") if gone else error

    def close(self) -> None:
        """Beat no more."""
        self._over.set()
        if self._group is not None and sys.exc_info()[0] is None:
            self._group.destroy_process_group()

    def _agree_on_start(self) -> float:
        if self.rank == 0:
            if not self.run_store.check(["started"]):
                # The launcher's own imports count; a machine that does not say gives 0.
                began = time.time() - max(process_age(), process_age(os.getppid()))
                self.run_store.set("started", os.environ.get(COMMAND_STARTED, repr(began)))
            self.say("started", float(self.run_store.get("started")))
        return self.hear("started")

    def _beat(self) -> None:
        """Say every second that this rank lives, and look whether the others do."""
        others = [rank for rank in range(self.world) if rank != self.rank]
        last = {rank: (b"", time.monotonic()) for rank in others}
        beats = 0
        while not self._over.wait(BEAT_SECONDS):
            beats += 1
            try:
                self.say(f"alive/{self.rank}", beats)
                failed = _failure(self.run_store)
                for rank in others:
                    key = f"alive/{rank}"
                    heard = self.store.get(key) if self.store.check([key]) else b""
                    if heard != last[rank][0]:
                        last[rank] = heard, time.monotonic()
            except RuntimeError:
                self.trouble = PeerLostError("the launcher is gone")
                return
            silent = [rank for rank in others if time.monotonic() - last[rank][1] > PEER_SECONDS]
            if failed:
                self.trouble = RunEndedError(failed)
                return
            if silent:
                self.trouble = PeerLostError(
                    f"rank {silent[0]} was silent for {PEER_SECONDS:.0f} s"
                )
                return


def launched() -> bool:
    """Whether torch's launcher started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks | None]:
    """This process among the ranks of a run; None where no launcher started it.

    One rank of a machine speaks; the others are silent but for what they do alone. When the run
    ends elsewhere, or is interrupted, this process ends quietly here, by SystemExit.
    """
    if not launched():
        yield None
        return
    ranks = None
    try:
        ranks = Ranks()
        if torch.cuda.is_available():
            torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
        if not ranks.leads_machine:
            set_log_level(None)
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        if restarts != "0":
            logger.warning("A process was lost: all are started again (%s).", restarts)
        yield ranks
    except RunEndedError as ended:
        raise SystemExit(exit_code_of_rank(ended.code)) from None
    except PeerLostError as lost:
        print(f"rank {os.environ['RANK']} ends: {lost}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "number", 2)
        if os.environ["RANK"] == "0" and OUTCOME_FOLDER not in os.environ:
            print(
                f"stopped by the launcher (signal {number}): what is done is kept, and the same "
                "torchrun command goes on there",
                file=sys.stderr,
            )
        raise SystemExit(128 + number) from None
    finally:
        if ranks:
            ranks.close()


def launcher_store() -> Any:
    """A connection to the launcher's key-value store, which outlives a restart of the ranks."""
    from torch.distributed import TCPStore

    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=not hosted and os.environ["RANK"] == "0",
        wait_for_workers=False,
        multi_tenant=True,
        timeout=timedelta(seconds=PEER_SECONDS),
    )


def _store_of_this_round(store: Any, rank: int, world: int) -> Any:
    """The part of the store that belongs to the ranks of now, not to those before a restart.

    Nothing that the launcher tells them names the round alike on all machines: so each rank asks
    under a name of its own, and rank 0 answers all with the name that it gives the round.
    """
    from torch.distributed import PrefixStore

    deadline = time.monotonic() + JOIN_SECONDS
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"asks/{rank}", mine)
        store.wait([f"answer/{mine}"], timedelta(seconds=JOIN_SECONDS))
        name = store.get(f"answer/{mine}").decode()
        store.add(f"present/{name}", 1)
    else:
        name = mine
        answered = set()
        while store.add(f"present/{name}", 0) < world - 1:
            for other in range(1, world):
                if store.check([f"asks/{other}"]):
                    asking = store.get(f"asks/{other}").decode()
                    if asking not in answered:
                        store.set(f"answer/{asking}", name)
                        answered.add(asking)
            if time.monotonic() > deadline:
                raise PeerLostError("not all processes came")
            time.sleep(POLL_SECONDS)
    return PrefixStore(name, store)


def _asked(ask: Callable[[], Any]) -> Any:
    """What the store answers; PeerLostError where it is gone, and the launcher with it."""
    try:
        return ask()
    except RuntimeError as error:
        raise PeerLostError("the launcher is gone") from error


def _failure(store: Any) -> int:
    """The exit code with which the run has failed for good, or 0."""
    return int(store.get("failed")) if store.check(["failed"]) else 0


def report_error(error: Exception, code: int) -> int:
    """Print an error's line, once for all ranks, and return the exit code for this process."""
    first = True
    if launched():
        try:
            store = launcher_store()
            first = store.add("failures", 1) == 1
            store.set("failed", str(code))
        except RuntimeError:
            first = os.environ["LOCAL_RANK"] == "0"
    if first:
        print(f"error: {error}", file=sys.stderr, flush=True)
    return exit_code_of_rank(code)


def exit_code_of_rank(code: int) -> int:
    """What this process shall exit with, so that the run as a whole ends with `code`.

    The launcher would start a rank that exits with 2 again, to no avail. --processes, which can be
    told otherwise, gets the code from a file, and all ranks end well.
    """
    folder = os.environ.get(OUTCOME_FOLDER)
    if not launched() or not folder:
        return code
    (Path(folder) / "code").write_text(str(code))
    return 0


def launch(processes: int, command: Sequence[str]) -> int:
    """Do the same command in so many processes, by torch's launcher, and return its exit code.

    Args:
        processes: on this machine, one a GPU, or sharing out the CPU.
        command: what Python is called with, `-m digitkaggle` or a script first.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; all processes have saved what they did.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args
    from torch.distributed.run import run as run_launcher

    with tempfile.TemporaryDirectory(prefix="digitkaggle-") as folder:
        os.environ[OUTCOME_FOLDER] = folder
        os.environ[COMMAND_STARTED] = repr(time.time() - process_age())
        flags = ["--standalone", f"--nproc-per-node={processes}", "--local-addr=localhost"]
        flags += [f"--max-restarts={MOST_RESTARTS}", f"--log-dir={folder}"]
        # It would tell of its every step.
        logging.disable(logging.WARNING)
        try:
            run_launcher(parse_args([*flags, *command]))
        except SignalException as signal_came:
            raise Interrupted(signal_came.sigval) from None
        except ChildFailedError as failed:
            told = ", ".join(
                f"rank {rank}: {failure.exitcode}" for rank, failure in failed.failures.items()
            )
            print(f"the processes failed {MOST_RESTARTS + 1} times ({told})", file=sys.stderr)
            return 1
        finally:
            logging.disable(logging.NOTSET)
        outcome = Path(folder) / "code"
        return int(outcome.read_text()) if outcome.exists() else 0


def processes_from_flags(asked: int | None, device: str, members: int) -> int:
    """How many processes a command shall start: as asked, or one for each of several GPUs.

    Raises:
        InputError: fewer than one is asked for.
    """
    if asked is not None and asked < 1:
        raise InputError(f"--processes {asked}: at least 1 is needed")
    if launched():
        return 1
    if asked is not None:
        return asked
    if device not in ("auto", "cuda") or members == 1 or torch.cuda.device_count() < 2:
        return 1
    return max(1, min(members, sum(map(gpu_works, range(torch.cuda.device_count())))))
