"""One network trained by several ranks: each takes its share of every batch, by torch's DDP."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .device import Compute, is_out_of_memory
from .errors import InputError
from .files import saved_bytes
from .interrupts import Interrupted
from .log import logger
from .ranks import Ranks
from .settings import Settings
from .training import train_batch, validate
from .training_set import LabelledImages
from .training_state import Training

TROUBLE = 1.0  # told among the numbers of signals, of which none is 1 that would be noted


def share_of_batch(index: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """A rank's images of a batch; too few to share out, with two for each, are everybody's."""
    return index if len(index) < 2 * world else index.tensor_split(world)[rank]


class _Forward:
    """Calls a network by its DDP, whose ranks meet once a batch, in the backward of its last piece.

    Ranks may have different numbers of pieces.
    """

    def __init__(self, parallel: nn.Module, pieces: int) -> None:
        self.parallel, self.left = parallel, pieces

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        with self.parallel.no_sync() if self.left else contextlib.nullcontext():
            return self.parallel(images)


class SharedTraining:
    """How several ranks train one member; `OneProcess` of members.py has the same methods.

    Shuffles and augmentation come from the same generators on all ranks, so that no image is seen
    twice in an epoch; gradients are averaged. Batch normalisation sees a rank's share of a batch,
    so the result differs from that of one process. Rank 0 validates, keeps and predicts.
    """

    def __init__(self, ranks: Ranks, compute: Compute) -> None:
        self.ranks = ranks
        self.group = ranks.group(compute.device)
        self.keeps = ranks.rank == 0
        self.judged = 0
        self.resumed_trainings = 0
        self._forward: nn.Module | None = None
        self._forward_of: nn.Module | None = None
        logger.info(
            "\n%d processes train one network together: each sees its share of a batch, batch "
            "normalisation too, so the result is not that of one process.",
            ranks.world,
        )

    def begin(self, signal_number: Callable[[], int], time_spent: Callable[[], float]) -> None:
        """Ask these after each step: the signal that came, the share of the time that is spent."""
        self._signal_number, self._time_spent = signal_number, time_spent
        self.ending, self.spent = 0.0, 0.0

    def time_spent(self) -> float:
        """What rank 0 said at the last step."""
        return self.spent

    def wants_to_end(self) -> bool:
        """Whether a signal or trouble came to any rank, as all agreed at the last step."""
        return self.ending > 0

    def end_if_wanted(self) -> None:
        """Raise why all ranks end here, if they do."""
        if self.ending == TROUBLE:
            raise self.ranks.lost(RuntimeError("gloo"))
        if self.ending:
            raise Interrupted(int(self.ending))

    def agreed(self, value: Any) -> Any:
        """Rank 0's value, on all ranks."""
        self.judged += 1
        key = f"agreed/{self.judged}"
        if self.ranks.rank == 0:
            self.ranks.say(key, value)
        return self.ranks.hear(key)

    def resumed(self, training: Training) -> Training:
        """The training of the rank whose machine has come furthest, for all of them."""
        self.resumed_trainings += 1
        done = training.epoch + len(training.losses) / 1e9
        progress = self.ranks.meet(f"progress-{self.resumed_trainings}", done)
        source = progress.index(max(progress))
        if source != 0 or done:
            logger.info("All processes go on from there.")
        state = self._broadcast(saved_bytes(training.state()), source)
        training.restore(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True))
        return training

    def _broadcast(self, content: bytes, source: int) -> bytes:
        try:
            size = torch.tensor([len(content)])
            self.group.broadcast(size, src=source)
            whole = torch.zeros(int(size), dtype=torch.uint8)
            if self.ranks.rank == source:
                whole = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            self.group.broadcast(whole, src=source)
        except RuntimeError as error:
            raise self.ranks.lost(error) from error
        return whole.numpy().tobytes()

    def validation(
        self,
        network: nn.Module,
        held_out: LabelledImages,
        settings: Settings,
        compute: Compute,
    ) -> tuple[float, float]:
        """Rank 0's; the others wait for it, however long it takes."""
        found = validate(network, held_out, settings, compute) if self.keeps else None
        loss, accuracy = self.agreed(found)
        return loss, accuracy

    def step(
        self,
        training: Training,
        data: LabelledImages,
        index: torch.Tensor,
        settings: Settings,
        compute: Compute,
        size: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of all ranks on the images of `index`; as `train_batch`, of the whole batch."""
        share = share_of_batch(index, self.ranks.rank, self.ranks.world)
        plain, order = training.network, training.order
        # All draw this alike and stay in step; what it seeds differs from rank to rank.
        seed = int(torch.randint(2**62, (1,), generator=order)) + self.ranks.rank
        training.order = torch.Generator().manual_seed(seed)
        training.noise.manual_seed(seed)
        pieces = math.ceil(len(share) / (training.piece_size or len(share)))
        training.network = _Forward(self._parallel(plain), pieces)
        try:
            loss, hits = train_batch(training, data, share, settings, compute, size)
            told = torch.tensor(
                [
                    loss.item(),
                    hits.item(),
                    TROUBLE if self.ranks.trouble else float(self._signal_number()),
                    self._time_spent(),
                ],
                dtype=torch.float64,
            )
            everybody = [torch.empty_like(told) for _ in range(self.ranks.world)]
            self.group.all_gather(everybody, told)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise InputError(
                    f"the memory of {compute.device} has no room for {len(share)} images: set "
                    "--piece-size, or lower --batch-size"
                ) from error
            raise self.ranks.lost(error) from error
        finally:
            training.network, training.order = plain, order
        self.ending = max(float(other[2]) for other in everybody)
        self.spent = float(everybody[0][3])
        counted = everybody if len(share) < len(index) else everybody[:1]
        loss, hits = (torch.stack([other[part] for other in counted]).sum() for part in (0, 1))
        return loss.float().to(data.labels.device), hits.long().to(data.labels.device)

    def _parallel(self, network: nn.Module) -> nn.Module:
        """The network's DDP, which stands beside it."""
        from torch.nn.parallel import DistributedDataParallel

        if self._forward_of is not network:
            self._forward_of = network
            self._forward = DistributedDataParallel(network)
        return self._forward
