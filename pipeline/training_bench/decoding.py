"""Training without a cache: clips come from the video files in every step, and frozen models run again.

The baseline must be one that a careful person would write, or nothing is proven by beating it: the container of every
file is read once, before the clock starts; clips are decoded at the very instants that training takes, not at all that
a cache holds; all cores decode ahead of the step, through the function that reads the cache; nothing becomes a JPEG;
frozen models run in the arithmetic of training (the cache's ran in fp32 unless told otherwise), on whole batches and
without gradients. The step that follows is the trainer's own.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from cache.manifest import Clip, Dataset
from extract.bench.parts import DECODING, Cost, MeasuredClip, mean, threads
from extract.video.decode import decode, instants_of_span
from extract.video.pieces import Images
from extract.video.probe import VideoInfo, probe
from extract.video.sampling import Sampling, Seconds
from train.clip_set import ClipSet
from train.config import TrainConfig
from train.read_ahead import read_ahead
from train.sampling import Indices

VIDEO_ENCODER = "video encoder"
BatchT = TypeVar("BatchT")
ClipT = TypeVar("ClipT")
Result = TypeVar("Result")


class Run(Protocol):
    """Does one part of the work; a bench may look at its clock meanwhile."""

    def __call__(self, part: str, work: Callable[[], Result]) -> Result:
        """What `work` returns."""
        ...


@dataclass(frozen=True)
class _Video:
    path: Path
    info: VideoInfo
    instants: Seconds


class Recordings:
    """The clips' videos, looked into once; frames are decoded whenever they are asked for."""

    def __init__(self, dataset: Dataset, clips: Sequence[Clip], sampling: Sampling) -> None:
        """Reads every container.

        Raises:
            VideoError: a file is no video.
        """
        self._videos = [self._open(dataset.video_path(clip), clip, sampling) for clip in clips]

    def num_instants(self, number: int) -> int:
        """F of a clip."""
        return len(self._videos[number].instants)

    def frames(self, number: int, instants: Indices) -> Images:
        """A clip's frames (L, H, W, 3) at some of its F instants."""
        video = self._videos[number]
        return decode(video.path, video.info, video.instants[instants]).frames

    @staticmethod
    def _open(path: Path, clip: Clip, sampling: Sampling) -> _Video:
        info = probe(path)
        return _Video(path, info, instants_of_span(info, clip.start_seconds, clip.end_seconds, sampling))


class DecodingSource(ABC, Generic[ClipT, BatchT]):
    """Batches of a clip set, decoded and encoded again each time; see `train.data.BatchSource`."""

    def __init__(self, clip_set: ClipSet, recordings: Recordings) -> None:
        self.clip_set, self.recordings = clip_set, recordings

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[BatchT]:
        """See BatchSource. Clips are decoded ahead of the step, on all cores."""
        with contextlib.closing(read_ahead(pieces, partial(self._begin, epoch))) as ahead:
            for piece, clips in ahead:
                yield self.finish(piece, clips, _plainly)

    def _begin(self, epoch: int | None, piece: Indices) -> tuple[tuple[Indices, list[ClipT]], list[Callable[[], None]]]:
        """A piece with room for its clips, and a job for each."""
        clips: list[Any] = [None] * len(piece)

        def read(place: int, number: int) -> None:
            clips[place] = self.read(number, epoch)

        return (piece, clips), [partial(read, place, number) for place, number in enumerate(piece.tolist())]

    @abstractmethod
    def read(self, number: int, epoch: int | None) -> ClipT:
        """What a thread does for one clip: decoding, and the views that networks will see."""

    @abstractmethod
    def finish(self, piece: Indices, clips: Sequence[ClipT], run: Run) -> BatchT:
        """What the step waits for: frozen models on a batch of clips, each a part for `run`."""


def measure_parts(
    source: DecodingSource[ClipT, BatchT], pieces: Iterable[Indices], device: torch.device
) -> dict[str, Cost]:
    """What a clip costs beside the training step, each part alone on the machine: decoding on one thread, models."""
    found = []
    for piece in pieces:
        measured = MeasuredClip(device)
        with threads(1):
            clips = measured.run(DECODING, partial(_read_all, source, piece))
        source.finish(piece, clips, measured.run)
        found.append({part: cost * (1 / len(piece)) for part, cost in measured.costs.items()})
    return mean(found)


def _read_all(source: DecodingSource[ClipT, BatchT], piece: Indices) -> list[ClipT]:
    return [source.read(int(number), 0) for number in piece]


@contextlib.contextmanager
def frozen(device: torch.device, config: TrainConfig) -> Iterator[None]:
    """Without gradients, in the arithmetic of training."""
    is_bf16 = config.precision == "bf16"
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
        yield


def _plainly(part: str, work: Callable[[], Result]) -> Result:  # noqa: ARG001
    return work()
