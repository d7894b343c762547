"""The loop: what is missing is decoded once, goes through the frozen models, and is committed shard by shard.

The unit of work is a shard and the unit of failure a clip. A shard is written when the last of its clips has come, in
any order; nothing else is state. So a killed run is continued by the same command, and finished work is a comparison
of settings and a look at sidecars, without a model.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache import fingerprint
from cache.encoder_spec import ImageEncoderSpec
from cache.fingerprint import Fingerprint
from cache.manifest import Clip, Dataset, Task
from cache.plan import Plan
from cache.rows import ClipRows
from cache.shard import sweep
from cache.sidecar import read_sidecar
from extract import streams
from extract.config import ExtractConfig
from extract.decode_process import Prepared, PrepareSettings
from extract.frozen_models import FrozenModels
from extract.products import failed_rows, frame_rows, joint_rows
from extract.shard_choice import choose_shards
from extract.shard_work import Collector, ShardTask, check_some_video_exists, shard_tasks, video_jobs
from extract.texts import missing_texts, write_texts
from extract.workers import DecodePool

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


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What the cache lacks."""

    chosen: list[int]
    tasks: list[ShardTask]
    texts: list[Task]

    @property
    def is_done(self) -> bool:
        return not self.tasks and not self.texts

    @property
    def streams(self) -> frozenset[str]:
        """Those with something missing."""
        return frozenset(stream for task in self.tasks for stream in task.missing) | ({"text"} if self.texts else set())


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
    """Fills a cache with what is missing in it. A command that is refused leaves no file and pins no settings.

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
        FingerprintMismatch: the cache was made with other settings, or from other videos under the same clip ids.
        CorruptShard: a shard that must be made again is damaged.
        ConfigError: a model, a device or a choice of shards that does not exist.
        ManifestError: not a single video is where the dataset says.
        StorageError: the disk refused; the same command continues later.
    """
    started = time.monotonic()
    ids = [clip.id for clip in dataset.clips]
    models, resolver = FrozenModels(config, device), streams.Resolver(config, cache)
    marks, preview = streams.agreed(cache, resolver.marks()), Plan.preview(cache, ids, config.shard_size)
    work = _survey(dataset, cache, config, preview, marks, shards=shards, retry_failed=retry_failed)
    if not work.is_done:
        check_some_video_exists(dataset, work.tasks)
        marks |= streams.agreed(cache, resolver.resolve(work.streams))
        models.load(work.streams)
    plan = _pin(cache, marks, resolver, ids, config.shard_size)
    if plan != preview:  # somebody else has planned other clips since
        work = _survey(dataset, cache, config, plan, marks, shards=shards, retry_failed=retry_failed)
    if work.texts:
        write_texts(work.texts, cache, config, marks["text"], models.device)
    if work.tasks:
        _run(dataset, cache, config, marks, work, models, workers=workers, progress=progress)
    return ExtractionSummary(
        streams=_summarise(dataset, cache, work.chosen, config),
        num_shards=len(work.chosen),
        num_clips_decoded=sum(len(task.clip_ids) for task in work.tasks),
        seconds=time.monotonic() - started,
        already_done=work.is_done,
    )


def _survey(
    dataset: Dataset,
    cache: Path,
    config: ExtractConfig,
    plan: Plan,
    marks: Mapping[str, Fingerprint],
    *,
    shards: str | None,
    retry_failed: bool,
) -> _Work:
    """What is missing; refuses settings that are not those of the cache. Nothing is written."""
    chosen = choose_shards(plan.shards, shards)
    streams.agreed(cache, marks)
    return _Work(
        chosen=chosen,
        tasks=shard_tasks(dataset, cache, plan, chosen, config, marks, retry_failed=retry_failed),
        texts=missing_texts(dataset, cache, marks),
    )


def _pin(
    cache: Path, marks: Mapping[str, Fingerprint], resolver: streams.Resolver, ids: list[str], shard_size: int
) -> Plan:
    """Fixes settings and plan in the cache: its first files."""
    for stream, mark in marks.items():
        fingerprint.ensure(cache / stream, mark)
        sweep(cache / stream)
    plan = Plan.ensure(cache, ids, shard_size)
    resolver.remember()
    return plan


def _run(
    dataset: Dataset,
    cache: Path,
    config: ExtractConfig,
    marks: Mapping[str, Fingerprint],
    work: _Work,
    models: FrozenModels,
    *,
    workers: int,
    progress: OnProgress | None,
) -> None:
    shard_of = {clip_id: task.number for task in work.tasks for clip_id in task.clip_ids}
    collector = Collector(cache, marks, {task.number: task for task in work.tasks}, shard_of)
    encoder = ImageEncoderSpec.from_fingerprint(marks["visual_prompts"]) if "visual_prompts" in work.streams else None
    settings = PrepareSettings(
        num_frames=config.num_frames, decoding=config.decoding, frames=config.frames, encoder=encoder
    )
    done = failed = 0
    clips = {clip.id: clip for clip in dataset.clips}
    with DecodePool(video_jobs(dataset, work.tasks), settings, workers=workers) as pool:
        for delivery in pool:
            prepared = delivery.clip
            wanted = collector.tasks[shard_of[prepared.clip_id]].streams_of(prepared.clip_id)
            for stream, row in _rows(prepared, clips[prepared.clip_id], wanted, models, config):
                collector.add(stream, row)
            delivery.release()
            done, failed = done + 1, failed + (prepared.failure is not None)
            if progress is not None:
                progress(done, failed, len(shard_of))
        if "visual_prompts" in work.streams:
            for row in models.visual_prompts.flush():
                collector.add("visual_prompts", row)


def _rows(
    prepared: Prepared, clip: Clip, wanted: frozenset[str], models: FrozenModels, config: ExtractConfig
) -> Iterator[tuple[str, ClipRows]]:
    """Rows that are ready now, of this clip and of earlier ones that waited for a full batch."""
    if prepared.failure is not None:
        for stream in sorted(wanted):
            yield stream, failed_rows(prepared, prepared.failure)
        return
    if "frames" in wanted:
        yield "frames", frame_rows(prepared)
    if "joints" in wanted:
        yield "joints", joint_rows(prepared, clip, models.pose, config)
    if "visual_prompts" in wanted:
        for row in models.visual_prompts.add(prepared):
            yield "visual_prompts", row


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
