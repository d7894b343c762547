"""What a shard still lacks, and the jobs that give it.

Streams of a shard are independent, and a manifest may hold only some of a shard's clips: what is missing is counted
per stream and clip.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.errors import ManifestError, VideoError
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.plan import Plan
from cache.sidecar import read_sidecar
from extract.config import ExtractConfig
from extract.decoding.decode_process import ClipSpan, VideoJob
from extract.shards.committed import committed_shard
from extract.sources.sources import Sources
from extract.sources.video_root import check_inside


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard's work: per stream the clips that have no row yet, or a failed one to be retried."""

    number: int
    missing: Mapping[str, frozenset[str]]

    @property
    def clip_ids(self) -> frozenset[str]:
        """Clips that must be decoded."""
        return frozenset().union(*self.missing.values())

    def streams_of(self, clip_id: str) -> frozenset[str]:
        """The streams in which a clip is missing."""
        return frozenset(stream for stream, ids in self.missing.items() if clip_id in ids)


def shard_tasks(
    dataset: Dataset,
    cache: Path,
    plan: Plan,
    chosen: Iterable[int],
    config: ExtractConfig,
    marks: Mapping[str, Fingerprint],
    *,
    retry_failed: bool = False,
    overwrite: bool = False,
    sources: Sources | None = None,
) -> list[ShardTask]:
    """The shards in which a stream lacks clips of this dataset.

    Args:
        dataset: the clips.
        cache: the cache folder.
        plan: which clip is in which shard.
        chosen: numbers of shards.
        config: streams.
        marks: fingerprints of the streams, where they are known.
        retry_failed: failed clips are missing.
        overwrite: clips with rows of another video or span are missing.
        sources: what is asked about the videos, for a caller who wants it remembered.

    Raises:
        FingerprintMismatch: a shard was made with other settings than its stream's mark, or holds rows of another
            video or span under the id of a clip (without `overwrite`).
    """
    ours = {clip.id for clip in dataset.clips}
    sources = sources or Sources(dataset, cache)
    is_done = functools.partial(sources.is_done, retry_failed=retry_failed, overwrite=overwrite)
    tasks = []
    for number in chosen:
        wanted = ours.intersection(plan.shards[number])
        missing: dict[str, frozenset[str]] = {}
        for stream in config.streams:
            if stream != "text":
                sidecar = committed_shard(cache / stream, number, marks.get(stream))
                held = {clip.id: clip for clip in sidecar.clips if clip.id in wanted} if sidecar else {}
                done = {clip_id for clip_id, clip in held.items() if is_done(clip)}
                missing[stream] = frozenset(wanted - done)
                for clip_id in wanted - done:
                    sources.begin(clip_id, held.get(clip_id))
        missing = {stream: ids for stream, ids in missing.items() if ids}
        if missing:
            tasks.append(ShardTask(number=number, missing=missing))
    sources.refuse_foreign_rows()
    return tasks


def learn_sources(sources: Sources, cache: Path, tasks: Iterable[ShardTask]) -> None:
    """Tells `sources` what is known of the videos from the rows that these tasks have made so far."""
    for task in tasks:
        for stream, clip_ids in task.missing.items():
            sidecar = read_sidecar(cache / stream, task.number)
            sources.learn(clip for clip in (sidecar.clips if sidecar else ()) if clip.id in clip_ids)


def video_jobs(dataset: Dataset, tasks: Iterable[ShardTask], *, allow_outside: bool = False) -> Iterator[VideoJob]:
    """One job per video, shard and set of missing streams; a shard's videos in the order of its ids."""
    clips = {clip.id: clip for clip in dataset.clips}
    root = None if allow_outside else dataset.video_root
    for task in tasks:
        groups: dict[tuple[Path, frozenset[str]], list[ClipSpan]] = {}
        for clip_id in sorted(task.clip_ids):
            clip = clips[clip_id]
            key = (dataset.video_path(clip), task.streams_of(clip_id))
            span = ClipSpan(clip_id=clip_id, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds)
            groups.setdefault(key, []).append(span)
        for (path, wanted), spans in groups.items():
            yield VideoJob(path=path, spans=tuple(spans), streams=wanted, root=root)


def check_some_video_exists(dataset: Dataset, tasks: list[ShardTask], *, allow_outside: bool = False) -> None:
    """A wrong root, or a folder of links, must not become a cache full of failures. Without a task nothing is asked.

    Raises:
        ManifestError: not a single video of the dataset may be read.
    """
    if not tasks:
        return
    refusal = ""
    for path in dict.fromkeys(dataset.video_path(clip) for clip in dataset.clips):
        try:
            if not allow_outside:
                check_inside(path, dataset.video_root)
            if path.exists():
                return
        except VideoError as error:
            refusal = refusal or f"{path} {error.message}"
    if refusal:
        raise ManifestError(f"not one of the videos may be read: {refusal}")
    raise ManifestError(
        f"not one of the videos exists; the first would be {dataset.video_path(dataset.clips[0])}. Say where they are "
        "with `--videos FOLDER` or DECONFOUND_VIDEOS"
    )
