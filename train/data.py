"""Batches of clips from the cache, for the causal models.

Two sources of the video side: cached JPEGs, decoded in threads ahead of the step (the video encoder is trained), or
cached tokens of a frozen encoder, which stay on disk or are moved nearer (see `train.residency`), so that a step is an
index_select. Visual prompts and frames are always taken at the same instants.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from cache.errors import CorruptShard
from cache.store import StreamReader
from train import frames as pictures
from train.clip_set import ClipSet
from train.config import TrainConfig
from train.read_ahead import read_ahead
from train.row_table import RowTable, batches_of
from train.sampling import Indices, clip_generator, segment_centres, segment_draws
from train.transfer import host_tensor, moved, pinned

BatchT_co = TypeVar("BatchT_co", covariant=True)


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
        """The same batch on a device; a GPU's copy is in flight when this returns, and its kernels wait for it."""
        return Batch(
            visual_prompts=moved(self.visual_prompts, device),
            targets=moved(self.targets, device),
            frames=None if self.frames is None else moved(self.frames, device),
            frame_tokens=None if self.frame_tokens is None else moved(self.frame_tokens, device),
        )


class Batches(Protocol[BatchT_co]):
    """Whatever gives batches: all that a training step needs."""

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[BatchT_co]:
        """One batch per piece of clip numbers; `epoch` None is the test view."""
        ...


class BatchSource(Batches[BatchT_co], Protocol[BatchT_co]):
    """Batches of one clip set."""

    clip_set: ClipSet
    device: torch.device
    """Where batches are needed: they are there, or in memory from which they get there without waiting."""

    def tables(self, *, training: bool) -> Sequence[RowTable]:
        """What is the same in every epoch of training, or in every pass over the test view, and may live elsewhere."""
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
        self.clip_set, self.device = clip_set, device
        ids = [clip.id for clip in clip_set.clips]
        centres = lru_cache(maxsize=None)(partial(segment_centres, num_frames=num_frames))

        def read_prompts(numbers: Sequence[int]) -> Tensor:
            rows = [visual_prompts[ids[number]] for number in numbers]
            return torch.from_numpy(np.stack([own[centres(len(own))] for own in rows]))

        def read_tokens(numbers: Sequence[int]) -> Tensor:
            return torch.from_numpy(video_tokens.batch([ids[number] for number in numbers]))

        self._visual_prompts = RowTable("visual_prompts", len(ids), read_prompts)
        self._tokens = RowTable("video_tokens", len(ids), read_tokens)
        self._targets = torch.from_numpy(clip_set.targets).to(device)

    def tables(self, *, training: bool) -> Sequence[RowTable]:  # noqa: ARG002
        """See BatchSource: all of it, training and testing alike."""
        return self._visual_prompts, self._tokens

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[Batch]:  # noqa: ARG002
        """See BatchSource; the epoch changes nothing here."""
        return batches_of(self.tables(training=True), pieces, self._batch, self.device)

    def _batch(self, numbers: Tensor) -> Batch:
        return Batch(
            visual_prompts=pinned(self._visual_prompts.take(numbers).float(), self.device),
            frame_tokens=pinned(self._tokens.take(numbers), self.device),
            targets=self._targets[numbers],
        )


class FrameSource:
    """Clips with JPEG frames: random instants and augmentation in training, centres and one view in testing."""

    def __init__(
        self, clip_set: ClipSet, config: TrainConfig, *, visual_prompts: StreamReader, frames: StreamReader
    ) -> None:
        self.clip_set, self.device = clip_set, torch.device("cpu")
        self._config = config
        self._visual_prompts = visual_prompts
        self._frames = frames
        self._targets = torch.from_numpy(clip_set.targets)

    def tables(self, *, training: bool) -> Sequence[RowTable]:  # noqa: ARG002
        """See BatchSource: none, as every epoch draws other instants and crops."""
        return ()

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[Batch]:
        """See BatchSource."""
        with closing(read_ahead(pieces, partial(self._begin, epoch))) as read:
            yield from read

    def _begin(self, epoch: int | None, piece: Indices) -> tuple[Batch, list[Callable[[], None]]]:
        """An empty batch, and a job for each of its clips."""
        num_frames, size = self._config.num_frames, self._config.video_encoder.image_size
        width = self._visual_prompts[self.clip_set.clips[0].id].shape[1]
        prompts = host_tensor((len(piece), num_frames, width), torch.float32, self.device)
        frames = host_tensor((len(piece), num_frames, 3, size, size), torch.uint8, self.device)
        batch = Batch(visual_prompts=prompts, frames=frames, targets=self._targets[torch.from_numpy(piece)])
        jobs: list[Callable[[], None]] = [
            partial(self._read, number, epoch, own_prompts, own_frames)
            for number, own_prompts, own_frames in zip(piece.tolist(), prompts, frames, strict=True)
        ]
        return batch, jobs

    def _read(self, number: int, epoch: int | None, prompts: Tensor, frames: Tensor) -> None:
        """Fills in visual prompts (L, D) and frames (L, 3, S, S) of one clip, at the same instants."""
        config, clip_id = self._config, self.clip_set.clips[number].id
        rows = self._visual_prompts[clip_id]
        encoder = config.video_encoder
        if epoch is None:
            instants = segment_centres(len(rows), config.num_frames)
            decoded = decode_frames(self._frames, clip_id, instants)
            view = pictures.centre_view(decoded, resize=encoder.resize, size=encoder.image_size)
            frames.numpy()[...] = view.numpy()
        else:
            generator = clip_generator(config.seed, epoch, number)
            instants = self._instants(len(rows), generator)
            decoded = decode_frames(self._frames, clip_id, instants)
            pictures.augmented_view(
                decoded, size=encoder.image_size, config=config.augment, generator=generator, out=frames
            )
        prompts.numpy()[...] = rows[instants]

    def _instants(self, num_cached: int, generator: np.random.Generator) -> Indices:
        if self._config.augment.instants == "random":
            return segment_draws(num_cached, self._config.num_frames, generator)
        return segment_centres(num_cached, self._config.num_frames)


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
