"""Batches of clips from the cache, for the causal models.

Two sources of the video side: cached JPEGs, decoded in threads one batch ahead (the video encoder is trained), or
cached tokens of a frozen encoder, held in memory, so that a step is an index_select. Visual prompts and frames are
always taken at the same instants. No worker processes: copying batches between processes costs ten times the read.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import CorruptShard
from cache.store import StreamReader
from train import frames as pictures
from train.clip_set import ClipSet
from train.config import TrainConfig
from train.sampling import Indices, clip_generator, segment_centres, segment_draws

PRELOAD_BYTES = 4 << 30
"""A table of rows larger than this stays on disk and is read through its memory map."""
_DECODE_THREADS = min(8, os.cpu_count() or 1)
BatchT_co = TypeVar("BatchT_co", covariant=True)
Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """n clips: visual_prompts (n, L, D), and either frames (n, L, 3, H, W) uint8 or frame_tokens (n, L, d_v).

    Visual prompts are as the cache has them; the model normalises them.
    """

    visual_prompts: Tensor
    targets: Tensor
    frames: Tensor | None = None
    frame_tokens: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(
            visual_prompts=self.visual_prompts.to(device),
            targets=self.targets.to(device),
            frames=None if self.frames is None else self.frames.to(device),
            frame_tokens=None if self.frame_tokens is None else self.frame_tokens.to(device),
        )


class BatchSource(Protocol[BatchT_co]):
    """Batches of one clip set."""

    clip_set: ClipSet

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[BatchT_co]:
        """One batch per piece of clip numbers; `epoch` None is the test view."""
        ...


Source = BatchSource[Batch]
"""What the causal models train on."""


class TokenSource:
    """Clips with tokens of a frozen video encoder: segment centres, no augmentation, training and testing alike."""

    def __init__(
        self,
        clip_set: ClipSet,
        num_frames: int,
        *,
        visual_prompts: StreamReader,
        video_tokens: StreamReader,
        device: torch.device,
    ) -> None:
        self.clip_set = clip_set
        ids = [clip.id for clip in clip_set.clips]

        def read_prompts(number: int) -> Tensor:
            rows = visual_prompts[ids[number]]
            return _as_float(rows[segment_centres(len(rows), num_frames)])

        def read_tokens(number: int) -> Tensor:
            return torch.from_numpy(np.array(video_tokens[ids[number]]))

        self._visual_prompts = _RowTable(read_prompts, len(ids), device)
        self._tokens = _RowTable(read_tokens, len(ids), device)
        self._targets = torch.from_numpy(clip_set.targets).to(device)
        self._device = device

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[Batch]:  # noqa: ARG002
        """See Source; the epoch changes nothing here."""
        for piece in pieces:
            numbers = torch.from_numpy(piece).to(self._device)
            yield Batch(
                visual_prompts=self._visual_prompts.take(numbers),
                frame_tokens=self._tokens.take(numbers),
                targets=self._targets[numbers],
            )


class FrameSource:
    """Clips with JPEG frames: random instants and augmentation in training, centres and one view in testing."""

    def __init__(
        self, clip_set: ClipSet, config: TrainConfig, *, visual_prompts: StreamReader, frames: StreamReader
    ) -> None:
        self.clip_set = clip_set
        self._config = config
        self._visual_prompts = visual_prompts
        self._frames = frames
        self._targets = torch.from_numpy(clip_set.targets)

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[Batch]:
        """See Source. Frames are decoded one batch ahead of the one in use."""
        with contextlib.closing(read_ahead(pieces, lambda number: self._read(number, epoch))) as read:
            for piece, clips in read:
                visual_prompts, frames = zip(*clips, strict=True)
                yield Batch(
                    visual_prompts=torch.stack(visual_prompts),
                    frames=torch.stack(frames),
                    targets=self._targets[torch.from_numpy(piece)],
                )

    def _read(self, number: int, epoch: int | None) -> tuple[Tensor, Tensor]:
        """Visual prompts (L, D) and frames (L, 3, H, W) of one clip, at the same instants."""
        config, clip_id = self._config, self.clip_set.clips[number].id
        rows = self._visual_prompts[clip_id]
        encoder = config.video_encoder
        if epoch is None:
            instants = segment_centres(len(rows), config.num_frames)
            view = pictures.centre_view(
                decode_frames(self._frames, clip_id, instants), resize=encoder.resize, size=encoder.image_size
            )
            return _as_float(rows[instants]), view
        generator = clip_generator(config.seed, epoch, number)
        if config.augment.instants == "random":
            instants = segment_draws(len(rows), config.num_frames, generator)
        else:
            instants = segment_centres(len(rows), config.num_frames)
        view = pictures.augmented_view(
            decode_frames(self._frames, clip_id, instants),
            size=encoder.image_size,
            config=config.augment,
            generator=generator,
        )
        return _as_float(rows[instants]), view


def read_ahead(
    pieces: Iterable[Indices], read: Callable[[int], Read], *, threads: int = _DECODE_THREADS
) -> Generator[tuple[Indices, list[Read]]]:
    """Each piece with what `read` gives for its clip numbers; in threads, one piece ahead of the one in use.

    Close it, or threads go on reading for a consumer that has left.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    ahead: deque[tuple[Indices, list[Future[Read]]]] = deque()
    try:
        for piece in pieces:
            ahead.append((piece, [pool.submit(read, int(number)) for number in piece]))
            if len(ahead) > 1:
                yield _results(*ahead.popleft())
        while ahead:
            yield _results(*ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _results(piece: Indices, jobs: list[Future[Read]]) -> tuple[Indices, list[Read]]:
    return piece, [job.result() for job in jobs]


def decode_frames(reader: StreamReader, clip_id: str, instants: Indices) -> Tensor:
    """The JPEGs of one clip at some of its cached instants: (L, 3, H, W) uint8 RGB.

    Raises:
        CorruptShard: one of them cannot be read.
    """
    jpegs = reader[clip_id]
    try:
        return pictures.decode([jpegs[instant] for instant in instants])
    except ValueError as error:
        raise CorruptShard(
            f"{reader.folder}: clip {clip_id!r}: {error}; run `deconfound verify --deep` on the cache"
        ) from error


def centre_frames(reader: StreamReader, clip_id: str, config: TrainConfig) -> Tensor:
    """The test view of one clip: (L, 3, H, W) uint8, not normalised."""
    encoder = config.video_encoder
    frames = decode_frames(reader, clip_id, segment_centres(reader.num_rows(clip_id), config.num_frames))
    return pictures.centre_view(frames, resize=encoder.resize, size=encoder.image_size)


class _RowTable:
    """Equal-sized rows of every clip: one tensor if it fits in memory, else read when asked for."""

    def __init__(self, read: Callable[[int], Tensor], count: int, device: torch.device) -> None:
        self._read, self._device = read, device
        first = read(0)
        fits = first.nbytes * count <= PRELOAD_BYTES
        self._table = torch.stack([read(number) for number in range(count)]).to(device) if fits else None

    def take(self, numbers: Tensor) -> Tensor:
        """The rows of n clips, one table row each."""
        if self._table is not None:
            return self._table[numbers]
        return torch.stack([self._read(number) for number in numbers.tolist()]).to(self._device)


def _as_float(rows: npt.NDArray[np.float16]) -> Tensor:
    """(L, D) rows as they are stored, in float32: the model normalises them."""
    return torch.from_numpy(rows.astype(np.float32))
