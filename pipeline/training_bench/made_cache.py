"""A dataset of made-up labels over real videos, and its cache by the real `extract`, with random weights.

Labels and weights change nothing about speed. Only the streams that the method reads are made, at the settings of the
recipe; people are taken to fill the frame, as nobody is in these videos.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.errors import FailureCode, VideoError
from cache.manifest import Clip, Dataset, Task, TaskKind
from extract.config import ExtractConfig, Stream
from extract.extractor import extract
from train.config import TrainConfig

_MULTI_LABEL = ("atomic", "step")
"""Tasks of the benchmarks whose clips have several labels."""


@dataclass(frozen=True, kw_only=True)
class MadeCache:
    """What training reads, and what it was made of."""

    dataset: Dataset
    folder: Path
    extract: ExtractConfig
    seconds_per_clip: float
    """Of the whole extraction, loading models and all."""


def make_cache(
    videos: Sequence[Path],
    folder: Path,
    config: ExtractConfig,
    train: TrainConfig,
    *,
    num_classes: int,
    workers: int,
    device: str,
) -> MadeCache:
    """Extracts what training will read, each video as one clip.

    Args:
        videos: files in one folder.
        folder: of the cache.
        config: the recipe's settings.
        train: says which streams, task, protocol and split.
        num_classes: C.
        workers: decode processes.
        device: where the frozen models run.

    Raises:
        VideoError: a video cannot be read.
        ConfigError: a model does not exist.
    """
    config = without_weights(config, streams_of(train))
    dataset = _dataset(videos, train, num_classes)
    started = time.perf_counter()
    summary = extract(dataset, folder, config, workers=workers, device=device)
    seconds = time.perf_counter() - started
    for stream in summary.streams.values():
        for code, count in stream.failed.items():
            raise VideoError(
                FailureCode(code), f"{count} clips failed ({code}): speed is measured on clips that do not"
            )
    return MadeCache(dataset=dataset, folder=folder, extract=config, seconds_per_clip=seconds / len(videos))


def streams_of(train: TrainConfig) -> tuple[Stream, ...]:
    """The streams that a method reads."""
    if train.method != "pevl":
        return ("frames", "visual_prompts", "text")
    found: tuple[Stream, ...] = ("frames",) if "video" in train.pevl.encoders else ()
    return (*found, "joints", "text") if "pose" in train.pevl.encoders else (*found, "text")


def without_weights(config: ExtractConfig, streams: tuple[Stream, ...]) -> ExtractConfig:
    """The same models with random weights, people who fill the frame, and these streams."""
    return replace(
        config,
        streams=streams,
        image_encoder=replace(config.image_encoder, pretrained="none"),
        pose=replace(config.pose, weights="none", boxes="whole_frame"),
    )


def _dataset(videos: Sequence[Path], train: TrainConfig, num_classes: int) -> Dataset:
    kind: TaskKind = "multi" if train.task in _MULTI_LABEL else "single"
    names = tuple(f"class {number}" for number in range(num_classes))
    clips = (
        Clip(
            id=path.stem,
            video=path.name,
            splits={train.protocol: train.train_split},
            labels={train.task: (names[number % num_classes],)},
        )
        for number, path in enumerate(videos)
    )
    return Dataset(
        name="bench",
        version="1",
        tasks=(Task(name=train.task, kind=kind, class_names=names, prompts=names),),
        protocols={train.protocol: (train.train_split,)},
        clips=tuple(clips),
        video_root=videos[0].parent,
    )
