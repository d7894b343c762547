"""The loop: what is missing is decoded once, goes through the frozen models, and is committed shard by shard.

The unit of work is a shard and the unit of failure a clip. A shard is written when the last of its clips has come, in
any order; nothing else is state. So a killed run is continued by the same command, and finished work is a comparison
of settings and a look at sidecars, without a model.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache import atomic, fingerprint
from cache.encoder_spec import ImageEncoderSpec
from cache.errors import ConfigError
from cache.fingerprint import Fingerprint
from cache.manifest import Clip, Dataset
from cache.plan import Plan
from cache.rows import ClipRows
from cache.shard import read_sidecar
from extract import streams
from extract.config import ExtractConfig
from extract.decode_process import Prepared, PrepareSettings
from extract.products import VisualPrompts, failed_rows, frame_rows, joint_rows
from extract.shard_choice import choose_shards
from extract.shard_work import Collector, ShardTask, check_some_video_exists, shard_tasks, video_jobs
from extract.texts import missing_texts, write_texts
from extract.workers import DecodePool

if TYPE_CHECKING:
    import torch

    from extract.pose.estimator import PoseEstimator

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int, int], None]
"""Called with the number of clips done, failed and to do in all, after every clip."""


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """Rows of one stream that the chosen shards hold."""

    ok: int
    """Clips with features; for text, tasks."""
    failed: Mapping[str, int]
    """Clips without, by failure code."""


@dataclass(frozen=True, kw_only=True)
class ExtractionSummary:
    """What the chosen shards hold after a run."""

    streams: Mapping[str, StreamSummary]
    num_shards: int
    num_clips_decoded: int
    seconds: float
    already_done: bool
    """True if there was nothing to do."""

    @property
    def num_failed(self) -> int:
        """Failed rows over all streams."""
        return sum(sum(stream.failed.values()) for stream in self.streams.values())


@dataclass(eq=False)
class _Models:
    """The frozen models that the work at hand needs."""

    visual_prompts: VisualPrompts | None = None
    pose: "PoseEstimator | None" = None


def extract(
    dataset: Dataset,
    cache: Path,
    config: ExtractConfig,
    *,
    workers: int = 1,
    shards: str | None = None,
    device: str = "cpu",
    retry_failed: bool = False,
    progress: OnProgress | None = None,
) -> ExtractionSummary:
    """Fills a cache with what is missing in it.

    Args:
        dataset: clips and tasks.
        cache: the cache folder, created if absent.
        config: streams and settings.
        workers: decode processes.
        shards: part of the plan: `17-32` (inclusive), `2/8` (counted from 0), `auto`; None: all.
        device: where the models run, in torch's words; `auto` takes a GPU if there is one.
        retry_failed: also decode clips again whose rows are failures.
        progress: called after every clip.

    Raises:
        FingerprintMismatch: the cache was made with other settings.
        ConfigError: a model, a device or a choice of shards that does not exist.
        ManifestError: not a single video is where the dataset says.
        StorageError: the disk refused; the same command continues later.
    """
    started = time.monotonic()
    marks = streams.fingerprints(config, cache)
    for stream, mark in marks.items():
        atomic.sweep(cache / stream)
        fingerprint.ensure(cache / stream, mark)
    plan = Plan.ensure(cache, (clip.id for clip in dataset.clips), config.shard_size)
    streams.remember(config, marks, cache)
    chosen = choose_shards(plan.shards, shards)
    texts = missing_texts(dataset, cache, marks)
    tasks = shard_tasks(dataset, cache, plan, chosen, config, retry_failed=retry_failed)
    if texts:
        write_texts(texts, cache, config, marks["text"], _device(device))
    if tasks:
        check_some_video_exists(dataset, tasks)
        _run(dataset, cache, config, marks, tasks, workers=workers, device=device, progress=progress)
    return ExtractionSummary(
        streams=_summarise(dataset, cache, chosen, config),
        num_shards=len(chosen),
        num_clips_decoded=sum(len(task.clip_ids) for task in tasks),
        seconds=time.monotonic() - started,
        already_done=not tasks and not texts,
    )


def _run(
    dataset: Dataset,
    cache: Path,
    config: ExtractConfig,
    marks: Mapping[str, Fingerprint],
    tasks: list[ShardTask],
    *,
    workers: int,
    device: str,
    progress: OnProgress | None,
) -> None:
    shard_of = {clip_id: task.number for task in tasks for clip_id in task.clip_ids}
    collector = Collector(cache, marks, {task.number: task for task in tasks}, shard_of)
    needed = {stream for task in tasks for stream in task.missing}
    settings = PrepareSettings(
        num_frames=config.num_frames,
        decoding=config.decoding,
        frames=config.frames,
        encoder=ImageEncoderSpec.from_fingerprint(marks["visual_prompts"]) if "visual_prompts" in needed else None,
    )
    done = failed = 0
    clips = {clip.id: clip for clip in dataset.clips}
    with DecodePool(video_jobs(dataset, tasks), settings, workers=workers) as pool:
        deliveries = iter(pool)
        models = _load_models(config, needed, device)
        for delivery in deliveries:
            prepared = delivery.clip
            wanted = collector.tasks[shard_of[prepared.clip_id]].streams_of(prepared.clip_id)
            for stream, row in _rows(prepared, clips[prepared.clip_id], wanted, models, config):
                collector.add(stream, row)
            delivery.release()
            done, failed = done + 1, failed + (prepared.failure is not None)
            if progress is not None:
                progress(done, failed, len(shard_of))
        if models.visual_prompts is not None:
            for row in models.visual_prompts.flush():
                collector.add("visual_prompts", row)


def _rows(
    prepared: Prepared, clip: Clip, wanted: frozenset[str], models: _Models, config: ExtractConfig
) -> Iterator[tuple[str, ClipRows]]:
    """Rows that are ready now, of this clip and of earlier ones that waited for a full batch."""
    if prepared.failure is not None:
        for stream in sorted(wanted):
            yield stream, failed_rows(prepared, prepared.failure)
        return
    if "frames" in wanted:
        yield "frames", frame_rows(prepared)
    if "joints" in wanted:
        assert models.pose is not None
        yield "joints", joint_rows(prepared, clip, models.pose, config)
    if "visual_prompts" in wanted:
        assert models.visual_prompts is not None
        for row in models.visual_prompts.add(prepared):
            yield "visual_prompts", row


def _load_models(config: ExtractConfig, needed: set[str], device: str) -> _Models:
    models = _Models()
    if "visual_prompts" in needed:
        from extract.image_encoder import ImageEncoder

        encoder = ImageEncoder.load(config.image_encoder, _device(device))
        models.visual_prompts = VisualPrompts(encoder, config.num_frames)
    if "joints" in needed:
        from extract.pose.estimator import PoseEstimator

        # A batch holds one clip: a larger one would be padding. F is part of the fingerprint, so the size is constant.
        batch_size = min(config.pose.batch_size, config.num_frames)
        models.pose = PoseEstimator.load(replace(config.pose, batch_size=batch_size), _device(device))
    return models


def _device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: {error}. Use cpu, or cuda where torch sees a GPU") from error
    return device


def _summarise(dataset: Dataset, cache: Path, chosen: list[int], config: ExtractConfig) -> dict[str, StreamSummary]:
    ours = {clip.id for clip in dataset.clips}
    summary: dict[str, StreamSummary] = {}
    for stream in config.streams:
        if stream == "text":
            summary[stream] = StreamSummary(ok=len(dataset.tasks), failed={})
            continue
        codes: Counter[str] = Counter()
        for number in chosen:
            sidecar = read_sidecar(cache / stream, number)
            clips = [clip for clip in sidecar.clips if clip.id in ours] if sidecar else []
            codes.update(clip.failure.code.value if clip.failure else "ok" for clip in clips)
        failures = {code: count for code, count in sorted(codes.items()) if code != "ok"}
        summary[stream] = StreamSummary(ok=codes["ok"], failed=failures)
    return summary
