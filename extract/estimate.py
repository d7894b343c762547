"""The dry run behind `deconfound plan`: what is there, what is missing, what it would cost.

Nothing is written or loaded. Time and size are estimates from a few probed videos and the stated assumptions: they
tell an hour from a week. The dimension of the embedding is guessed from the model's name, because looking it up would
import the model's library. Videos are probed in decode processes: a hostile file must not hang a dry run either.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from cache.errors import FailureCode, VideoError
from cache.fingerprint import FILE_NAME, load
from cache.manifest import Clip, Dataset
from cache.plan import Plan
from cache.rows import Failure
from extract import streams
from extract.config import ExtractConfig, PoseConfig
from extract.decoding.decode_process import ClipSpan, Prepared, PrepareSettings, VideoJob
from extract.decoding.workers import DecodePool
from extract.shards.choice import choose_shards
from extract.shards.work import ShardTask, shard_tasks
from extract.sources.sources import Sources
from extract.sources.video_root import video_files
from extract.video.probe import VideoInfo, probe

NUM_PROBED = 20
_PROBING_PROCESSES = 2
DECODED_PIXELS_PER_SECOND = 300e6
"""Of one process, H.264 or MPEG-4; AV1 and 10-bit video are slower."""
JPEG_BYTES_PER_PIXEL = 0.32
IMAGES_PER_SECOND = {"cpu": 5.0, "cuda": 1000.0}
"""ViT-B/16 in fp32 on two cores, and on one recent GPU; HRNet-W32 at 256 x 192 costs about half of it."""
HRNET_COSTS = {"hrnet_w32": 1.0, "hrnet_w48": 2.1, "hrnet_w8_tiny": 0.05}
"""Per pixel of the input, HRNet-W32 being 1: 7.1 and 14.6 GFLOPs in the paper (Sun et al., CVPR 2019)."""
DETECTOR_SECONDS = {
    "ssdlite320_mobilenet_v3_large": 0.41,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 0.61,
    "fasterrcnn_mobilenet_v3_large_fpn": 0.55,
    "fasterrcnn_resnet50_fpn": 2.9,
    "fasterrcnn_resnet50_fpn_v2": 6.1,
    "keypointrcnn_resnet50_fpn": 3.0,
}
"""Per image on two cores, at 640 x 480; the last two follow from the first ResNet's by their operations."""
DETECTOR_SPEEDUP = {"cpu": 1.0, "cuda": 100.0}
"""Of a GPU against two cores: assumed, not measured."""
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
    """Path and reason: the probed ones that are, and all that lie outside the video root."""
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
    allow_outside: bool = False,
) -> ExtractionPlan:
    """What `extract` with the same arguments would find and do.

    Whether the cache was made with other settings is not asked: that takes the weights' digests. `extract` asks it.

    Raises:
        ConfigError: a choice of shards that does not exist.
        FingerprintMismatch: the cache holds rows of other videos or spans under ids of this dataset.
    """
    shard_plan = Plan.preview(cache, (clip.id for clip in dataset.clips), config.shard_size)
    chosen = choose_shards(shard_plan.shards, shards)
    sources = Sources(dataset, cache, allow_outside=allow_outside)
    marks = streams.stored(cache, config.streams)
    tasks = shard_tasks(dataset, cache, shard_plan, chosen, config, marks, sources=sources)
    files = video_files(dataset, allow_outside=allow_outside)
    infos, unreadable = _probe_some(files.present, config)
    outside = [f"{path}: {FailureCode.OUTSIDE_ROOT}" for path in files.outside]
    planned = {clip_id for number in chosen for clip_id in shard_plan.shards[number]}
    clips = {clip.id: clip for clip in dataset.clips if clip.id in planned}
    rows = _rows_left(dataset, config, tasks, clips, infos)
    return ExtractionPlan(
        num_clips=len(clips),
        num_videos=len(files.present) + len(files.missing) + len(files.outside),
        missing_videos=files.missing,
        unreadable_videos=(*unreadable, *outside),
        num_shards=len(chosen),
        shards_left=tuple(task.number for task in tasks),
        streams=_streams(cache, config, tasks, len(clips), rows, list(infos.values())),
        hours=_hours(config, tasks, clips, rows, list(infos.values()), workers, device),
        assumptions=_assumptions(config, len(infos), workers, device),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Probed(Prepared):
    """What comes out of a decode process that probes."""

    info: VideoInfo | None = None


def probe_video(job: VideoJob, settings: PrepareSettings, alive: Callable[[], None]) -> Iterator[Prepared]:
    """What a decode process does here in place of decoding: one result for the video."""
    limits, (span,) = settings.decoding, job.spans
    try:
        info = probe(job.path, max_pixels=limits.max_pixels, min_decodable=limits.min_decodable, alive=alive)
        yield _Probed(clip_id=span.clip_id, info=info)
    except VideoError as error:
        yield _Probed(clip_id=span.clip_id, failure=Failure(code=error.code, message=error.message))


def _probe_some(paths: Sequence[Path], config: ExtractConfig) -> tuple[dict[Path, VideoInfo], tuple[str, ...]]:
    step = max(1, math.ceil(len(paths) / NUM_PROBED))
    chosen = {str(number): path for number, path in enumerate(paths[::step])}
    jobs = (
        VideoJob(path=path, spans=(ClipSpan(clip_id=number),), streams=frozenset()) for number, path in chosen.items()
    )
    settings = PrepareSettings(sampling=config.instants, decoding=config.decoding, frames=config.frames, encoder=None)
    infos: dict[Path, VideoInfo] = {}
    unreadable: dict[Path, str] = {}
    with DecodePool(jobs, settings, workers=_PROBING_PROCESSES, prepare=probe_video) as pool:
        for delivery in pool:
            result, path = delivery.clip, chosen[delivery.clip.clip_id]
            if isinstance(result, _Probed) and result.info is not None:
                infos[path] = result.info
            elif result.failure is not None:
                unreadable[path] = f"{path}: {result.failure.code}: {result.failure.message}"
    return infos, tuple(unreadable[path] for path in sorted(unreadable))


def _rows_left(
    dataset: Dataset,
    config: ExtractConfig,
    tasks: Sequence[ShardTask],
    clips: Mapping[str, Clip],
    infos: Mapping[Path, VideoInfo],
) -> dict[str, float]:
    """Rows per stream that are missing; a clip of a video that was not probed is like those that were."""
    seconds = fmean(info.duration_seconds for info in infos.values()) if infos else 0.0
    rate = fmean(_frames_per_second(info) for info in infos.values()) if infos else 0.0
    rows: dict[str, float] = {}
    for task in tasks:
        for stream, missing in task.missing.items():
            for clip in (clips[clip_id] for clip_id in missing):
                info = infos.get(dataset.video_path(clip))
                expected = config.instants.expected_rows(
                    _length(clip, seconds if info is None else info.duration_seconds),
                    rate if info is None else _frames_per_second(info),
                )
                rows[stream] = rows.get(stream, 0.0) + expected
    return rows


def _length(clip: Clip, seconds: float) -> float:
    """Of a clip whose video is so long, if that is known; 0: unknown."""
    start, end = clip.start_seconds or 0.0, clip.end_seconds or seconds
    return max(0.0, (min(end, seconds) if seconds else end) - start)


def _frames_per_second(info: VideoInfo) -> float:
    return info.num_frames / info.duration_seconds


def _streams(
    cache: Path,
    config: ExtractConfig,
    tasks: list[ShardTask],
    num_clips: int,
    rows: Mapping[str, float],
    infos: list[VideoInfo],
) -> dict[str, StreamPlan]:
    plans: dict[str, StreamPlan] = {}
    for stream in config.streams:
        if stream == "text":
            continue
        left = sum(len(task.missing.get(stream, ())) for task in tasks)
        size = rows.get(stream, 0.0) * _bytes_per_frame(stream, cache, config, infos)
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
    clips: Mapping[str, Clip],
    rows: Mapping[str, float],
    infos: list[VideoInfo],
    workers: int,
    device: str,
) -> float:
    """Decoding and models overlap: the slower of the two decides."""
    left = {clip_id for task in tasks for clip_id in task.clip_ids}
    if not infos or not left:
        return 0.0
    videos = {clips[clip_id].video for clip_id in left}
    pixels = fmean(info.num_frames * info.height * info.width for info in infos)
    decoding = len(videos) * pixels / DECODED_PIXELS_PER_SECOND / workers
    kind = _kind(device)
    encoding = rows.get("visual_prompts", 0.0) / IMAGES_PER_SECOND[kind]
    return max(decoding, encoding + rows.get("joints", 0.0) * _seconds_per_person(config.pose, kind)) / 3600


def _seconds_per_person(pose: PoseConfig, kind: str) -> float:
    """Of finding somebody in a kept frame and their joints; every frame counts as one with somebody."""
    network = 0.5 * _hrnet_cost(pose) / IMAGES_PER_SECOND[kind]
    if pose.boxes != "detector":
        return network
    return network + DETECTOR_SECONDS[pose.detector] / DETECTOR_SPEEDUP[kind] / pose.detect_every


def _hrnet_cost(pose: PoseConfig) -> float:
    """A person through the configured network; 1 is HRNet-W32 at 256 x 192 once."""
    size = pose.input_height * pose.input_width / (256 * 192)
    return HRNET_COSTS[pose.model] * size * (2 if pose.flip_test else 1)


def _kind(device: str) -> str:
    """Key of IMAGES_PER_SECOND; `auto` is the slower one."""
    return "cuda" if device.partition(":")[0] in ("cuda", "all") else "cpu"


def _assumptions(config: ExtractConfig, num_probed: int, workers: int, device: str) -> tuple[str, ...]:
    varying = config.instants.rows_per_clip is None
    return (
        f"{num_probed} videos probed for length and size; the others are like them",
        f"{workers} decode process(es) of {DECODED_PIXELS_PER_SECOND / 1e6:.0f} million pixels a second each",
        f"the image encoder (ViT-B/16) takes {IMAGES_PER_SECOND['cpu']:g} images a second on two cores and "
        f"{IMAGES_PER_SECOND['cuda']:g} on a GPU, HRNet-W32 half the time of it; device {device!r} counts as "
        f"{_kind(device)}{', because nothing is loaded that could look for a GPU' if device == 'auto' else ''}",
        f"JPEGs take {JPEG_BYTES_PER_PIXEL} bytes a pixel; videos are read whole",
        *_pose_assumptions(config),
        *([f"rows of a clip follow from its length, by sampling = {config.sampling!r}"] if varying else []),
    )


def _pose_assumptions(config: ExtractConfig) -> Iterator[str]:
    pose = config.pose
    if "joints" not in config.streams:
        return
    flip = " with the flip test" if pose.flip_test else ""
    yield (
        f"{pose.model} at {pose.input_height} x {pose.input_width}{flip} takes {_hrnet_cost(pose):.2g} times as long "
        "as HRNet-W32; somebody is in every frame"
    )
    if pose.boxes == "detector":
        yield (
            f"the detector {pose.detector} takes {DETECTOR_SECONDS[pose.detector]:g} s an image of 640 x 480 on two "
            f"cores and, assumed and not measured, {DETECTOR_SPEEDUP['cuda']:g} times less on a GPU; it sees one of "
            f"{pose.detect_every} kept frames"
        )
