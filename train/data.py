"""Clips of a split that can be used, and batches of them from the cache.

Two sources of the video side: cached JPEGs, decoded in threads one batch ahead (the video encoder is trained), or
cached tokens of a frozen encoder, held in memory, so that a step is an index_select. Visual prompts and frames are
always taken at the same instants. No worker processes: copying batches between processes costs ten times the read.
"""

import contextlib
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import CacheError, ConfigError, CorruptShard
from cache.manifest import Clip, Dataset, Task
from cache.store import StreamReader
from train import frames as pictures
from train.config import TrainConfig
from train.sampling import Indices, clip_generator, segment_centres, segment_draws

PRELOAD_BYTES = 4 << 30
"""A table of rows larger than this stays on disk and is read through its memory map."""
_DECODE_THREADS = min(8, os.cpu_count() or 1)
BatchT_co = TypeVar("BatchT_co", covariant=True)
Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """The usable clips of one split with their targets, (n,) int64 or (n, C) uint8, and why others are not usable."""

    split: str
    clips: tuple[Clip, ...]
    targets: npt.NDArray[np.int64] | npt.NDArray[np.uint8]
    skipped: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"ClipSet({self.split!r}, {len(self)} clips, {len(self.skipped)} skipped)"

    @property
    def reasons(self) -> dict[str, int]:
        """Reason for skipping -> number of clips, the most frequent first."""
        return dict(Counter(self.skipped.values()).most_common())

    @property
    def notice(self) -> str:
        """How many clips are not used, and why."""
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.reasons.items())
        return f"split {self.split}: {len(self)} clips, {len(self.skipped)} skipped: {reasons}"

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group name -> one value per clip, "" where unknown."""
        names = sorted({name for clip in self.clips for name in clip.groups})
        return {name: tuple(clip.groups.get(name, "") for clip in self.clips) for name in names}


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


def select_clips(
    dataset: Dataset,
    task: Task,
    protocol: str,
    split: str,
    readers: Iterable[StreamReader],
    *,
    labelled: bool = True,
) -> ClipSet:
    """The clips of a split that have rows in every stream, and a label for the task.

    Args:
        dataset: the manifest.
        task: what to recognise.
        protocol: of the dataset.
        split: of the protocol.
        readers: the streams.
        labelled: leave out clips without a label; else they stay, and all targets are zero.

    Raises:
        ManifestError: no such protocol or split.
        ConfigError: no clip is left; counts the reasons.
    """
    readers = tuple(readers)
    usable, skipped = [], {}
    for clip in dataset.select(protocol, split):
        reason = _why_unusable(clip, task if labelled else None, readers)
        if reason is None:
            usable.append(clip)
        else:
            skipped[clip.id] = reason
    if not usable:
        counts = dict(Counter(skipped.values()).most_common(5))
        raise ConfigError(
            f"split {split!r} of protocol {protocol!r} has no usable clip for task {task.name!r}: {len(skipped)} "
            f"clips, skipped for {counts}"
        )
    targets = dataset.targets(task, usable) if labelled else np.zeros(len(usable), np.int64)
    return ClipSet(split=split, clips=tuple(usable), targets=targets, skipped=skipped)


def _why_unusable(clip: Clip, task: Task | None, readers: Iterable[StreamReader]) -> str | None:
    if task is not None and task.name not in clip.labels:
        return f"no label for task {task.name}"
    for reader in readers:
        if clip.id not in reader:
            failure = reader.failures.get(clip.id)
            return f"{reader.stream}: {failure.code.value if failure else 'not extracted'}"
    return None


def check_instants(clip_set: ClipSet, num_frames: int, visual_prompts: StreamReader, other: StreamReader) -> None:
    """Refuses clips with fewer instants than L, and streams whose rows are not the same instants.

    Args:
        clip_set: the clips.
        num_frames: L.
        visual_prompts: F rows a clip.
        other: frames with F rows a clip, or video tokens with L.
    """
    for clip in clip_set.clips:
        rows = visual_prompts.num_rows(clip.id)
        if rows < num_frames:
            raise ConfigError(
                f"train.num_frames = {num_frames}, but the cache holds {rows} instants of clip {clip.id!r}: use at "
                f"most {rows}, or extract into another cache with {denser(visual_prompts, num_frames)}"
            )
        expected, found = visual_prompts.frame_index(clip.id), other.frame_index(clip.id)
        if other.stream == "video_tokens":
            expected = expected[segment_centres(rows, num_frames)]
        else:
            check_one_video(visual_prompts, other, clip.id)
        if not np.array_equal(expected, found):
            raise CacheError(
                f"clip {clip.id!r}: {other.stream} and visual_prompts are not of the same instants; extract both "
                "again, with one set of settings"
            )


def check_one_video(first: StreamReader, second: StreamReader, clip_id: str) -> None:
    """Refuses rows of a clip that come from two files, as after one stream was made again from a changed video.

    Raises:
        CacheError: they do.
    """
    sources = first.source_sha256(clip_id), second.source_sha256(clip_id)
    if all(sources) and sources[0] != sources[1]:
        raise CacheError(
            f"clip {clip_id!r}: {first.stream} and {second.stream} were made from different videos under one id; run "
            "`deconfound extract --overwrite` with all streams"
        )


def denser(reader: StreamReader, num_frames: int) -> str:
    """The key that gives more rows a clip; where they follow from the clip's length, the shortest clip decides."""
    sampling = reader.fingerprint.sampling
    if "fps" in sampling:
        return f"a higher extract.fps than {sampling['fps']:g}, or leave out clips that are too short"
    if "every_nth" in sampling:
        return f"a lower extract.every_nth than {sampling['every_nth']}, or leave out clips that are too short"
    return f"extract.num_frames of at least {num_frames}"


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


def read_ahead(pieces: Iterable[Indices], read: Callable[[int], Read]) -> Generator[tuple[Indices, list[Read]]]:
    """Each piece with what `read` gives for its clip numbers; in threads, one piece ahead of the one in use.

    Close it, or threads go on reading for a consumer that has left.
    """
    pool = ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="decode")
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
