"""Extraction as a whole: the cache is filled, or streams with other settings beside it, and what it holds is counted.

The unit of work is a shard and the unit of failure a clip. Nothing is remembered but what is committed: a run that was
killed or stopped is continued by the same command, and finished work is a comparison of settings and a look at
sidecars, without a model.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cache.manifest import Dataset
from cache.sidecar import read_sidecar
from cache.stream_swap import NEXT, empty_trash, finish_swaps
from extract import streams
from extract.config import ExtractConfig
from extract.filling import FillOptions, Work, fill
from extract.launch.failure_policy import FailureLimit, OnProgress
from extract.launch.stopping import StopSignals
from extract.shards.overwrite import begin, finish


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


def extract(
    dataset: Dataset,
    cache: Path,
    config: ExtractConfig,
    *,
    workers: int = 1,
    shards: str | None = None,
    device: str = "cpu",
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_outside: bool = False,
    max_failures: FailureLimit | None = None,
    ray: str | None = None,
    progress: OnProgress | None = None,
) -> ExtractionSummary:
    """Fills a cache with what is missing in it. A command that is refused leaves no file and pins no settings.

    Args:
        dataset: clips and tasks.
        cache: the cache folder, created if absent.
        config: streams and settings.
        workers: decode processes.
        shards: part of the plan: `17-32` (inclusive), `2/8` (counted from 0), `auto`; None: all.
        device: where the models run, in torch's words; several with commas are a process each, `all` is every GPU,
            `auto` takes a GPU if there is one.
        retry_failed: also decode clips again whose rows are failures.
        overwrite: make streams again that the cache has with other settings, beside the old ones, which are replaced
            when the new ones are whole; and rows of videos or spans that have changed, in their place.
        allow_outside: also read videos outside the dataset's video root.
        max_failures: clips that may fail before the run stops; None: any number, unless more than half of the first
            twenty fail.
        ray: a Ray cluster to work on: `auto`, `local`, or its address.
        progress: called after every clip.

    Raises:
        FingerprintMismatch: the cache was made with other settings, or from other videos under the same clip ids.
        CorruptShard: a shard that must be made again is damaged.
        ConfigError: a model, a device or a choice of shards that does not exist.
        ManifestError: not a single video is where the dataset says.
        StorageError: the disk refused, or the videos' folder disappeared; the same command continues later.
        TooManyFailures: more clips failed than may.
        Stopped: SIGTERM, SIGINT or SIGUSR1 came. What was ready is committed; the same command continues.
    """
    with StopSignals() as signals:
        options = FillOptions(
            workers=workers,
            shards=shards,
            device=device,
            ray=ray,
            retry_failed=retry_failed,
            overwrite=overwrite,
            allow_outside=allow_outside,
            max_failures=max_failures,
            progress=progress,
            check=signals.check,
        )
        return _extract(dataset, cache, config, options)


def _extract(dataset: Dataset, cache: Path, config: ExtractConfig, options: FillOptions) -> ExtractionSummary:
    started = time.monotonic()
    finish_swaps(cache)
    empty_trash(cache)
    roots: dict[str, Path] = dict.fromkeys(config.streams, cache)
    if options.overwrite:
        roots |= dict.fromkeys(_differing(dataset, cache, config), cache / NEXT)
    works: dict[Path, Work] = {}
    for root in (cache / NEXT, cache):
        chosen = tuple(stream for stream in config.streams if roots[stream] == root)
        if not chosen:
            continue
        options.check()
        part = replace(config, streams=chosen)
        works[root] = fill(dataset, root, part, options)
        if root != cache:
            swapped = finish(dataset, cache, streams.Resolver(part, root).marks())
            roots |= dict.fromkeys(swapped, cache)
    return ExtractionSummary(
        streams={stream: _summarise(dataset, root, stream, works) for stream, root in roots.items()},
        num_shards=max(len(work.chosen) for work in works.values()),
        num_clips_decoded=sum(work.num_clips for work in works.values()),
        seconds=time.monotonic() - started,
        already_done=all(work.is_done for work in works.values()),
    )


def _differing(dataset: Dataset, cache: Path, config: ExtractConfig) -> tuple[str, ...]:
    """The streams that the cache has with other settings; CACHE/next is ready for them."""
    if not cache.exists():
        return ()
    return begin(dataset, cache, streams.Resolver(config, cache).marks(), config.shard_size)


def _summarise(dataset: Dataset, root: Path, stream: str, works: Mapping[Path, Work]) -> StreamSummary:
    if stream == "text":
        return StreamSummary(ok=len(dataset.tasks), failed={})
    ours = {clip.id for clip in dataset.clips}
    codes: Counter[str] = Counter()
    for number in {number for work in works.values() for number in work.chosen}:
        sidecar = read_sidecar(root / stream, number)
        clips = [clip for clip in sidecar.clips if clip.id in ours] if sidecar else []
        codes.update(clip.failure.code.value if clip.failure else "ok" for clip in clips)
    failures = {code: count for code, count in sorted(codes.items()) if code != "ok"}
    return StreamSummary(ok=codes["ok"], failed=failures)
