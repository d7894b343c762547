"""The dry run behind `deconfound plan`: what is there, what is missing, what it would cost.

Nothing is written or loaded. Time and size are estimates from a few probed videos and the stated assumptions: they
tell an hour from a week. The dimension of the embedding is guessed from the model's name, because looking it up would
import the model's library.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from cache.errors import VideoError
from cache.fingerprint import FILE_NAME, load
from cache.manifest import Clip, Dataset
from cache.plan import Plan
from extract import streams
from extract.config import ExtractConfig
from extract.shard_choice import choose_shards
from extract.shard_work import ShardTask, shard_tasks
from extract.video.probe import VideoInfo, probe

NUM_PROBED = 20
DECODED_PIXELS_PER_SECOND = 300e6
"""Of one process, H.264 or MPEG-4; AV1 and 10-bit video are slower."""
JPEG_BYTES_PER_PIXEL = 0.32
IMAGES_PER_SECOND = {"cpu": 5.0, "cuda": 1000.0}
"""ViT-B/16 in fp32 on two cores, and on one recent GPU; HRNet costs about half of it."""
_EMBED_DIMS = {"ViT-H": 1024, "ViT-g": 1024, "ViT-bigG": 1280, "ViT-L": 768}
_JOINT_BYTES_PER_FRAME = 17 * 12 + 26


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """One stream of the plan: clips that have a row, clips that do not, and gigabytes that those will take."""

    num_done: int
    num_left: int
    gigabytes_left: float


@dataclass(frozen=True, kw_only=True)
class ExtractionPlan:
    """What `extract` would do."""

    num_clips: int
    num_videos: int
    missing_videos: tuple[Path, ...]
    unreadable_videos: tuple[str, ...]
    """Among the probed ones: path and reason."""
    num_shards: int
    shards_left: tuple[int, ...]
    streams: dict[str, StreamPlan]
    hours: float
    assumptions: tuple[str, ...]

    @property
    def gigabytes_left(self) -> float:
        """Over all streams."""
        return sum(stream.gigabytes_left for stream in self.streams.values())


def plan(
    dataset: Dataset,
    cache: Path,
    config: ExtractConfig,
    *,
    workers: int = 1,
    shards: str | None = None,
    device: str = "cpu",
) -> ExtractionPlan:
    """What `extract` with the same arguments would find and do.

    Raises:
        ConfigError: a choice of shards that does not exist.
        FingerprintMismatch: the cache holds rows of other videos or spans under ids of this dataset.
    """
    shard_plan = Plan.preview(cache, (clip.id for clip in dataset.clips), config.shard_size)
    chosen = choose_shards(shard_plan.shards, shards)
    tasks = shard_tasks(dataset, cache, shard_plan, chosen, config, streams.stored(cache, config.streams))
    paths = sorted({dataset.video_path(clip) for clip in dataset.clips})
    present = [path for path in paths if path.exists()]
    missing = tuple(sorted(set(paths).difference(present)))
    infos, unreadable = _probe_some(present, config)
    planned = {clip_id for number in chosen for clip_id in shard_plan.shards[number]}
    clips = [clip for clip in dataset.clips if clip.id in planned]
    return ExtractionPlan(
        num_clips=len(clips),
        num_videos=len(paths),
        missing_videos=missing,
        unreadable_videos=unreadable,
        num_shards=len(chosen),
        shards_left=tuple(task.number for task in tasks),
        streams=_streams(cache, config, tasks, len(clips), infos),
        hours=_hours(config, tasks, clips, infos, workers, device),
        assumptions=_assumptions(len(infos), workers, device),
    )


def _probe_some(paths: Sequence[Path], config: ExtractConfig) -> tuple[list[VideoInfo], tuple[str, ...]]:
    step = max(1, math.ceil(len(paths) / NUM_PROBED))
    infos: list[VideoInfo] = []
    unreadable: list[str] = []
    for path in paths[::step]:
        try:
            infos.append(
                probe(path, max_pixels=config.decoding.max_pixels, min_decodable=config.decoding.min_decodable)
            )
        except VideoError as error:
            unreadable.append(f"{path}: {error.code}: {error.message}")
    return infos, tuple(unreadable)


def _streams(
    cache: Path, config: ExtractConfig, tasks: list[ShardTask], num_clips: int, infos: list[VideoInfo]
) -> dict[str, StreamPlan]:
    plans: dict[str, StreamPlan] = {}
    for stream in config.streams:
        if stream == "text":
            continue
        left = sum(len(task.missing.get(stream, ())) for task in tasks)
        size = left * config.num_frames * _bytes_per_frame(stream, cache, config, infos)
        plans[stream] = StreamPlan(num_done=num_clips - left, num_left=left, gigabytes_left=size / 1e9)
    return plans


def _bytes_per_frame(stream: str, cache: Path, config: ExtractConfig, infos: list[VideoInfo]) -> float:
    if stream == "joints":
        return _JOINT_BYTES_PER_FRAME
    if stream == "visual_prompts":
        return 2.0 * _embed_dim(cache, config)
    pixels = [_stored_pixels(info, config.frames.short_side) for info in infos]
    return JPEG_BYTES_PER_PIXEL * fmean(pixels) if pixels else 0.0


def _embed_dim(cache: Path, config: ExtractConfig) -> int:
    if (cache / "visual_prompts" / FILE_NAME).exists():
        return int(load(cache / "visual_prompts").model["embed_dim"])
    return next((dim for name, dim in _EMBED_DIMS.items() if config.image_encoder.model.startswith(name)), 512)


def _stored_pixels(info: VideoInfo, short_side: int) -> float:
    scale = min(1.0, short_side / min(info.height, info.width))
    return info.height * info.width * scale**2


def _hours(
    config: ExtractConfig,
    tasks: list[ShardTask],
    clips: list[Clip],
    infos: list[VideoInfo],
    workers: int,
    device: str,
) -> float:
    """Decoding and models overlap: the slower of the two decides."""
    left = {clip_id for task in tasks for clip_id in task.clip_ids}
    if not infos or not left:
        return 0.0
    videos = {clip.video for clip in clips if clip.id in left}
    pixels = fmean(info.num_frames * info.height * info.width for info in infos)
    decoding = len(videos) * pixels / DECODED_PIXELS_PER_SECOND / workers
    rate = IMAGES_PER_SECOND[_kind(device)]
    cost = {"visual_prompts": 1.0, "joints": 0.5}
    images = sum(
        weight * config.num_frames * len(task.missing.get(stream, ()))
        for stream, weight in cost.items()
        for task in tasks
    )
    return max(decoding, images / rate) / 3600


def _kind(device: str) -> str:
    """Key of IMAGES_PER_SECOND; `auto` is the slower one."""
    return "cuda" if device.partition(":")[0] == "cuda" else "cpu"


def _assumptions(num_probed: int, workers: int, device: str) -> tuple[str, ...]:
    return (
        f"{num_probed} videos probed for length and size; the others are like them",
        f"{workers} decode process(es) of {DECODED_PIXELS_PER_SECOND / 1e6:.0f} million pixels a second each",
        f"the image encoder (ViT-B/16) takes {IMAGES_PER_SECOND['cpu']:g} images a second on two cores and "
        f"{IMAGES_PER_SECOND['cuda']:g} on a GPU, HRNet half the time of it; device {device!r} counts as "
        f"{_kind(device)}{', because nothing is loaded that could look for a GPU' if device == 'auto' else ''}",
        f"JPEGs take {JPEG_BYTES_PER_PIXEL} bytes a pixel; videos are read whole",
    )
