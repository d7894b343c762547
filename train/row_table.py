"""Features of one kind, the same number of rows for every clip: on disk until they are moved nearer to the step.

A table gives the same values wherever it lives, in the dtype of the cache. A reader may ask why batches are not always
built ahead: where everything lies on the step's own device, indexing takes less time than handing a batch over.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from train.read_ahead import read_ahead
from train.sampling import Indices
from train.transfer import moved

BatchT = TypeVar("BatchT")
_CLIPS_AT_ONCE = 256
_THREADS = 2
"""That build batches ahead: one is a copy or two, bound by memory."""


class RowTable:
    """Rows of n clips, (n, ...); behind the cache's memory map, in RAM, or on a device."""

    def __init__(self, name: str, num_clips: int, read: Callable[[Sequence[int]], Tensor]) -> None:
        """Nothing is read yet.

        Args:
            name: the stream, for people.
            num_clips: n.
            read: clip numbers -> their rows (len(numbers), ...), on the CPU.
        """
        self.name, self.num_clips, self._read = name, num_clips, read
        self._rows: Tensor | None = None

    def __repr__(self) -> str:
        return f"RowTable({self.name!r}, {self.num_clips} clips, {self.device or 'on disk'})"

    @property
    def nbytes(self) -> int:
        """Of all rows; reads those of one clip."""
        return self.num_clips * self._read([0]).nbytes

    @property
    def device(self) -> torch.device | None:
        """Where the rows live; None: on disk."""
        return None if self._rows is None else self._rows.device

    def load(self, device: torch.device) -> None:
        """Moves all rows to a device, a few clips at a time; they stay there."""
        first = self._read([0])
        rows = torch.empty((self.num_clips, *first.shape[1:]), dtype=first.dtype, device=device)
        for start in range(0, self.num_clips, _CLIPS_AT_ONCE):
            stop = min(start + _CLIPS_AT_ONCE, self.num_clips)
            rows[start:stop] = self._read(range(start, stop))
        self._rows = rows

    def take(self, numbers: Tensor) -> Tensor:
        """The rows of clips `numbers`, (len(numbers), ...), where the table lives; on the CPU if that is the disk."""
        if self._rows is None:
            return self._read(numbers.tolist())
        if self._rows.device.type == "cpu":  # numpy copies whole rows, in less than half of torch's time
            return torch.from_numpy(np.take(self._rows.numpy(), numbers.numpy(), axis=0))
        return self._rows.index_select(0, moved(numbers, self._rows.device))


def batches_of(
    tables: Sequence[RowTable],
    pieces: Iterable[Indices],
    build: Callable[[Tensor], BatchT],
    device: torch.device,
) -> Generator[BatchT]:
    """A batch of rows for each piece of clip numbers.

    Args:
        tables: what `build` takes rows of.
        pieces: clip numbers of each batch.
        build: clip numbers (n,) -> the batch. They are on the device if all tables are, else on the CPU, and it is
            called in threads, ahead of the step.
        device: where batches are needed.
    """
    if all(table.device is not None and table.device.type == device.type for table in tables):
        yield from (build(moved(torch.from_numpy(piece), device)) for piece in pieces)
        return

    def begin(piece: Indices) -> tuple[list[BatchT], list[Callable[[], None]]]:
        built: list[BatchT] = []
        return built, [lambda: built.append(build(torch.from_numpy(piece)))]

    with closing(read_ahead(pieces, begin, threads=_THREADS)) as read:
        for (batch,) in read:
            yield batch
