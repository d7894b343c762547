"""Inputs of many clips through one frozen model, at one constant batch size; clips leave in the order they came in.

A row must not depend on which clips happened to be ready together. So inputs of several clips share a batch only where
a row has the same bits at every place in a batch, which is measured when the model is loaded: it fails, for one, on a
CPU whose threads cut the batch unevenly. Elsewhere a batch holds inputs of one clip, no more than a clip can have, and
a clip of few is padded to that size: several sizes would be several ways to round. So on a CPU, where small batches are
as fast, clips with fewer inputs than they might have go alone and in small batches: little is padded, none measured.

When memory runs out, inputs that wait for a full batch stay where they are and run in smaller pieces. Rows made then
say so; only they may depend on the moment at which it happened. What waits are a model's inputs, never frames: one
batch of them, however many clips it spans, and of a long clip only what its outputs were made into.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cache.errors import VideoError
from cache.rows import ClipRows, Failure
from extract.batch_size import BatchSize
from extract.decoding.decode_process import Prepared
from extract.products.rows import failed_rows

FEW = 8
"""Inputs to a pass on a device that is as fast with few, where a clip may have less than the others."""

Forward = Callable[[Tensor, int], Tensor]
"""(n, ...) inputs and the size of the passes to (n, ...) outputs on the CPU; the last pass is padded to the size."""


class ClipWork(ABC):
    """What one clip makes of a model's outputs."""

    def __init__(self, prepared: Prepared) -> None:
        """Lets go of the clip's pixels: others may be written over them while its inputs wait for a batch."""
        self.prepared = replace(prepared, pixels={})

    @abstractmethod
    def take(self, outputs: Tensor) -> None:
        """Takes the outputs of its next inputs; raises VideoError where they cannot be used."""

    @abstractmethod
    def rows(self, reduced_batch: int) -> ClipRows:
        """Its rows, after the last output; raises VideoError where there can be none."""


@dataclass(eq=False)
class _Passage:
    """A clip on its way through the model; its inputs may lie in several batches."""

    work: ClipWork
    num_waiting: int = 0
    has_more: bool = True
    reduced_batch: int = 0
    failure: Failure | None = None

    def take(self, outputs: Tensor, reduced_batch: int) -> None:
        self.num_waiting -= len(outputs)
        self.reduced_batch = reduced_batch
        if self.failure is None:
            try:
                self.work.take(outputs)
            except VideoError as error:
                self.fail(error)

    def fail(self, error: VideoError) -> None:
        self.failure = self.failure or Failure(code=error.code, message=error.message)

    def to_rows(self) -> ClipRows:
        if self.failure is None:
            try:
                return self.work.rows(self.reduced_batch)
            except VideoError as error:
                self.fail(error)
        assert self.failure is not None
        return failed_rows(self.work.prepared, self.failure)


class SharedBatches:
    """A model with a batch that fills up."""

    def __init__(
        self, forward: Forward, batch: BatchSize, room: Callable[[int], Tensor], *, most: int | None, varies: bool
    ) -> None:
        """Measures whether clips may share batches, where that can save time.

        Args:
            forward: runs the model.
            batch: its size, as configured; it becomes smaller where a clip cannot have so many inputs.
            room: memory for so many inputs, on the device that `forward` takes them from.
            most: most inputs of a clip; None: nobody knows, the configured size is used as it is.
            varies: whether clips may have fewer.

        Raises:
            VideoError: OUT_OF_MEMORY, a single input does not fit.
        """
        self._forward, self._batch = forward, batch
        likes_few = is_as_fast_with_few(batch.device)
        if most is not None and likes_few:
            batch.limit(most)
        if varies and likes_few:
            batch.limit(FEW)
        may_gain = not varies and most is None if likes_few else varies or most is None or most % batch.full != 0
        self.are_shared = may_gain and batch.run(lambda size: is_place_independent(forward, room(size)))
        if most is not None and not self.are_shared:
            batch.limit(most)
        self._room = room(batch.full)
        self._pieces: list[tuple[_Passage, int]] = []  # of the inputs that wait in the room
        self._clips: deque[_Passage] = deque()

    def add(self, work: ClipWork, inputs: Iterable[Tensor]) -> Iterator[ClipRows]:
        """Takes a clip; yields the clips that became complete.

        Args:
            work: what the clip makes of the outputs.
            inputs: (n, ...) at a time, taken as there is room. A VideoError that this raises fails the clip.
        """
        clip = _Passage(work)
        self._clips.append(clip)
        try:
            for piece in inputs:
                self._put(clip, piece)
                yield from self._complete()
                if clip.failure is not None:
                    break
        except VideoError as error:
            clip.fail(error)
        clip.has_more = False
        if not self.are_shared:
            self._run()
        yield from self._complete()

    def flush(self) -> Iterator[ClipRows]:
        """Runs the inputs that wait for a full batch, and yields the clips that became complete."""
        self._run()
        yield from self._complete()

    def _put(self, clip: _Passage, inputs: Tensor) -> None:
        while len(inputs):
            filled = sum(count for _, count in self._pieces)
            count = min(len(inputs), len(self._room) - filled)
            self._room[filled : filled + count] = inputs[:count]
            self._pieces.append((clip, count))
            clip.num_waiting += count
            inputs = inputs[count:]
            if filled + count == len(self._room):
                self._run()

    def _run(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._pass_through(self._room[: sum(count for _, count in pieces)], pieces)

    def _pass_through(self, inputs: Tensor, pieces: Sequence[tuple[_Passage, int]]) -> None:
        """Runs inputs of one or more clips, each with the number of inputs that it has among them."""
        counts = [count for _, count in pieces]
        try:
            outputs = self._batch.run(lambda size: self._forward(inputs, size)).split(counts)
        except VideoError as error:
            if len(pieces) == 1:
                clip, count = pieces[0]
                clip.num_waiting -= count
                clip.fail(error)
                return
            for part, piece in zip(inputs.split(counts), pieces, strict=True):  # whose input was too much?
                self._pass_through(part, [piece])
            return
        for part, (clip, _) in zip(outputs, pieces, strict=True):
            clip.take(part, self._batch.reduced)

    def _complete(self) -> Iterator[ClipRows]:
        while self._clips and not (self._clips[0].has_more or self._clips[0].num_waiting):
            yield self._clips.popleft().to_rows()


def is_as_fast_with_few(device: torch.device) -> bool:
    """True where a pass takes as long as its inputs one by one, so that full batches save nothing."""
    return device.type == "cpu"


def is_place_independent(forward: Forward, room: Tensor) -> bool:
    """True if the outputs of an input have the same bits at every place in a batch of the size of `room`.

    One step is enough: if every place agrees with the next one, all agree; kernels don't look at values.
    """
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, room.shape, dtype=np.uint8))
    inputs = room.copy_(noise / 255 if room.is_floating_point() else noise)
    size = len(inputs)
    return torch.equal(forward(inputs, size).roll(1, dims=0), forward(inputs.roll(1, dims=0), size))
