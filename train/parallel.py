"""Several processes that train one model (torchrun): who they are, and what they tell each other.

Every process holds the whole model and computes the gradient of its share of a batch; the shares' gradients are summed
before the step, so that the result is that of one process with the whole batch, but for rounding and dropout draws. A
reader may ask why this is not torch's DistributedDataParallel: it wants one forward pass through the wrapper for each
backward pass, and a step here may have several (accumulation), or losses that stand outside the forward pass (a
contrast of clips that several processes hold). What is given up is the overlap of sending with the backward pass.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cache.errors import ConfigError
from train.sampling import Indices

Shared = TypeVar("Shared")
_PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: computing tokens of a whole dataset is part of starting."""
_BUCKET_BYTES = 64 << 20
_FROM_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among `count`; a lone one sends and waits for nothing."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def shares(self, piece: Indices) -> list[Indices]:
        """A batch's clip numbers, one share per process; of a small batch some are empty."""
        return np.array_split(piece, self.count)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def agree(self, decision: bool) -> bool:
        """The first process's decision, in all of them."""
        if self.count == 1:
            return decision
        told = torch.tensor([decision], dtype=torch.uint8)
        dist.broadcast(told, src=0)
        return bool(told.item())

    def gather(self, value: Shared) -> list[Shared]:
        """What each process has, in all of them, by rank. value: anything that can be pickled."""
        if self.count == 1:
            return [value]
        values: list[Shared | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every place is filled

    def add(self, value: Tensor) -> Tensor:
        """The sum over processes of a tensor, in all of them; `value` itself becomes it."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def gather_rows(self, rows: Tensor, counts: list[int]) -> Tensor:
        """The rows of all processes, in the order of their ranks, without a gradient.

        Args:
            rows: (counts[rank], ...).
            counts: rows of each process.

        Returns:
            (sum of counts, ...), of the type of `rows`.
        """
        if self.count == 1:
            return rows.detach()
        most = max(counts)
        # Equal shapes for all, and fp32: not every backend sends bf16.
        sent = torch.zeros(most, *rows.shape[1:], dtype=torch.float32, device=rows.device)
        sent[: len(rows)] = rows.detach()
        received = [torch.empty_like(sent) for _ in range(self.count)]
        dist.all_gather(received, sent)
        return torch.cat([part[:number] for part, number in zip(received, counts, strict=True)]).to(rows.dtype)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its sum over processes; parameters without one have none in any process."""
        if self.count == 1:
            return
        buckets = list(_buckets([value.grad for value in parameters if value.grad is not None]))
        flat = [torch.cat([gradient.flatten() for gradient in bucket]) for bucket in buckets]
        for work in [dist.all_reduce(values, async_op=True) for values in flat]:
            assert work is not None
            work.wait()
        for bucket, values in zip(buckets, flat, strict=True):
            for gradient, part in zip(bucket, values.split([each.numel() for each in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def share_weights(self, model: nn.Module) -> None:
        """Gives all processes the first one's weights: random ones may differ in bits between machines."""
        if self.count > 1:
            for parameter in model.parameters():
                dist.broadcast(parameter.detach(), src=0)


ALONE = Processes()


def asked_for() -> int:
    """How many processes a launcher started for this run; 1 without one.

    Raises:
        ConfigError: more than one, and not by torchrun, which says how to reach the others.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    missing = [name for name in _FROM_TORCHRUN if name not in os.environ]
    if count > 1 and missing:
        raise ConfigError(
            f"WORLD_SIZE = {count}, but {', '.join(missing)} are not set: start several processes with `torchrun "
            "--nproc-per-node N -m pipeline -- train ...`, or one without a launcher"
        )
    return count


def is_first() -> bool:
    """Whether this process is the one that writes and prints, also where the others are not joined (yet)."""
    return asked_for() == 1 or os.environ["RANK"] == "0"


def device_name(asked: str) -> str:
    """The device of this process: of several, each has the GPU of its number on this machine.

    Raises:
        ConfigError: one device is named for several processes.
    """
    if asked_for() == 1 or asked == "cpu":
        return asked
    if asked not in ("auto", "cuda"):
        raise ConfigError(
            f"--device {asked} with {asked_for()} processes: each takes the GPU of its own number; give cpu, cuda or "
            "auto"
        )
    is_there = torch.cuda.is_available() or asked == "cuda"
    return f"cuda:{os.environ['LOCAL_RANK']}" if is_there else "cpu"


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Joins the processes of this run, if there are several; leaves them at the end.

    They meet once: several runs one after the other stand in one outer `joined`, inside which others are free.
    """
    count = asked_for()
    if count == 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield Processes(rank=dist.get_rank(), count=count)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Flags and random states are sent from the processor also where gradients are on a GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    yield Processes(rank=dist.get_rank(), count=count)
    dist.destroy_process_group()  # not after an error: others may be waiting, and torchrun ends them


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type together, up to _BUCKET_BYTES each: few messages, little memory besides."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.nbytes > _BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        yield bucket
