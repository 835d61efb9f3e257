"""A run by several ranks: whose folder is whose, who trains which member, and who gets them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .budget import TimeBudget
from .checkpoint import member_file, training_file
from .data import Digits
from .device import Compute
from .errors import InputError
from .files import write_bytes
from .locations import on_kaggle
from .log import lines_named, logger
from .members import Member, OneProcess, keep_member, kept_member, time_for_another, train_member
from .parallel import SharedTraining
from .ranks import Ranks
from .run_folder import (
    begin_run,
    claimed_run_folder,
    differences,
    drop_checkpoint,
    is_finished,
)
from .screen import tell
from .settings import Settings


@dataclass(frozen=True)
class Shares:
    """Which members of a run are done, begun and to be begun, and on which machine."""

    done: Mapping[int, int]  # member: machine
    begun: Mapping[int, Sequence[int]]  # machine: members
    free: Sequence[int]


@contextlib.contextmanager
def shared_run_folder(
    ranks: Ranks,
    identity: dict[str, dict[str, Any]],
    default: Path,
    named: Path | None,
    *,
    fresh: bool,
) -> Iterator[tuple[Path, bool]]:
    """This machine's folder, claimed and begun by its first rank, and whether the run is finished.

    Machines need share no folder: that of rank 0 gets the results, the others keep checkpoints,
    which are taken away when the run is done.

    Raises:
        InputError: as `claimed_run_folder`; a machine has other data, settings or code.
    """
    # What --fresh threw away before a restart, it must not throw away again.
    fresh = fresh and ranks.once("begun")
    with contextlib.ExitStack() as held:
        said: dict[str, Any] = {"machine": ranks.machine, "identity": identity}
        if ranks.leads_machine:
            folder = held.enter_context(
                claimed_run_folder(identity, default, named, fresh=fresh, beside=not on_kaggle())
            )
            finished = is_finished(folder, identity) and not fresh
            said |= {"folder": str(folder), "finished": finished}
        everybody = ranks.meet("folders", said)
        for rank, other in enumerate(everybody):
            if other["identity"] != everybody[0]["identity"]:
                told = differences(everybody[0]["identity"], other["identity"])
                raise InputError(
                    f"rank {rank}, on machine {other['machine']}, was started for another run than "
                    f"rank 0 ({told}): give all machines the same command and data"
                )
        folders = {other["machine"]: other for other in everybody if "folder" in other}
        folder = Path(folders[ranks.machine]["folder"])
        if elsewhere := [other for other in folders.values() if other["finished"]]:
            if ranks.leads_machine and not folders[ranks.machine]["finished"]:
                logger.info("This very run is finished on machine %d.", elsewhere[0]["machine"])
                _remove_if_empty(folder)
            yield folder, True
            return
        if ranks.leads_machine:
            begin_run(folder, identity, fresh=fresh)
            ranks.did("begun")
        ranks.meet("begun", None)
        yield folder, False
        if ranks.rank == 0:
            ranks.say("written", str(folder))
        written = ranks.hear("written")
        if ranks.leads_machine and ranks.machine != 0:
            drop_checkpoint(folder)
            _remove_if_empty(folder)
            tell("files", f"{written}, on the machine of rank 0")
        ranks.say(f"leaving/{ranks.rank}", None)
        if ranks.rank == 0:
            for rank in range(ranks.world):
                ranks.hear(f"leaving/{rank}")


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def share_out(members: int, held: Sequence[Mapping[str, Any] | None]) -> Shares:
    """Who goes on with what, by what the machines' checkpoints hold.

    Args:
        members: how many there shall be.
        held: of each machine `machine`, `done` and `begun`; None where nobody speaks for one. Of
            two machines that have the same member, the first keeps it.
    """
    done: dict[int, int] = {}
    begun: dict[int, list[int]] = {}
    known = [machine for machine in held if machine]
    for machine in known:
        for number in machine["done"]:
            done.setdefault(number, machine["machine"])
    taken = set(done)
    for machine in known:
        mine = [number for number in machine["begun"] if number not in taken]
        begun[machine["machine"]] = mine
        taken.update(mine)
    free = [number for number in range(1, members + 1) if number not in taken]
    return Shares(done, begun, free)


def train_shared(
    digits: Digits,
    settings: Settings,
    compute: Compute,
    folder: Path,
    ranks: Ranks,
    *,
    budget: TimeBudget | None = None,
) -> list[Member]:
    """Train all members of a run by all ranks; as `train_members`, but rank 0 alone gets them.

    Each member is the same as one process would train it, whoever does. A rank that is free takes
    the next one. One member alone is trained by all ranks together, which makes it another one.

    Raises:
        InputError, TrainingError, Interrupted: as `train_member`.
        RunEndedError, PeerLostError: another rank ended, or is gone.
    """
    shares = share_out(settings.members, ranks.meet("held", _held(folder, settings, ranks)))
    mine: list[int] = []
    if shares.done and ranks.rank == 0:
        numbers = ", ".join(map(str, sorted(shares.done)))
        logger.info("From the checkpoints, members that are trained: %s.", numbers)
    if settings.members == 1 and ranks.world > 1:
        if not shares.done:
            together = SharedTraining(ranks, compute)
            member = train_member(
                1, digits, settings, compute, folder, budget=budget, work=together
            )
            if member:
                keep_member(folder, member)
                mine.append(1)
    else:
        mine = _train_free_members(digits, settings, compute, folder, ranks, shares, budget)
    return _gathered(folder, ranks, shares, ranks.meet("trained", mine))


def _held(folder: Path, settings: Settings, ranks: Ranks) -> dict[str, Any] | None:
    if not ranks.leads_machine:
        return None
    numbers = range(1, settings.members + 1)
    done = [number for number in numbers if kept_member(folder, number)]
    begun = [number for number in numbers if training_file(folder, number).exists()]
    return {
        "machine": ranks.machine,
        "done": done,
        "begun": [number for number in begun if number not in done],
    }


def _train_free_members(
    digits: Digits,
    settings: Settings,
    compute: Compute,
    folder: Path,
    ranks: Ranks,
    shares: Shares,
    budget: TimeBudget | None,
) -> list[int]:
    """The numbers of the members that this rank has trained, begun ones of its machine first."""
    mine: list[Member] = []
    alone = OneProcess(trouble=lambda: ranks.trouble)
    here = shares.begun.get(ranks.machine, [])
    for number in _taken(ranks, {f"begun-{ranks.machine}": here, "free": shares.free}):
        begun = number in here
        if mine and budget and not begun and budget.left() < time_for_another(mine):
            logger.warning("Out of time: member %d is not trained.", number)
            break
        with lines_named(f"member {number}:", ranks.log_level):
            member = train_member(
                number, digits, settings, compute, folder, budget=budget, work=alone
            )
            keep_member(folder, member)
            right = member.held_probabilities.argmax(dim=1) == digits.train_labels[member.held_rows]
            logger.info(
                "Done by rank %d: %.2f%% of %d held-out images are right.",
                *(ranks.rank, 100 * right.float().mean(), len(right)),
            )
        mine.append(member)
    return [member.number for member in mine]


def _taken(ranks: Ranks, queues: Mapping[str, Sequence[int]]) -> Iterator[int]:
    """Members to train, as long as any are left; no two ranks get the same."""
    for name, numbers in queues.items():
        while (place := ranks.take(name)) < len(numbers):
            yield numbers[place]


def _gathered(
    folder: Path, ranks: Ranks, shares: Shares, trained: Sequence[Sequence[int]]
) -> list[Member]:
    """All members for rank 0, which other machines send it first; none for other ranks."""
    machines = ranks.meet("machines", [ranks.machine, ranks.leads_machine])
    leaders = {machine: rank for rank, (machine, leads) in enumerate(machines) if leads}
    owners = dict(shares.done)
    for rank, numbers in enumerate(trained):
        owners |= dict.fromkeys(numbers, machines[rank][0])
    for number, machine in sorted(owners.items()):
        if machine != machines[0][0]:
            _send_member(member_file(folder, number), ranks, leaders[machine])
    if ranks.rank:
        return []
    members = [kept_member(folder, number) for number in sorted(owners)]
    return [member for member in members if member]


def _send_member(path: Path, ranks: Ranks, sender: int) -> None:
    """Have a member's file, as it is, sent from a rank's machine to that of rank 0."""
    dist = ranks.group()
    try:
        if ranks.rank == sender:
            content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            dist.send(torch.tensor([len(content)]), dst=0)
            dist.send(content, dst=0)
        elif ranks.rank == 0:
            size = torch.zeros(1, dtype=torch.int64)
            dist.recv(size, src=sender)
            content = torch.zeros(int(size), dtype=torch.uint8)
            dist.recv(content, src=sender)
            write_bytes(path, content.numpy().tobytes())
    except RuntimeError as error:
        raise ranks.lost(error) from error
