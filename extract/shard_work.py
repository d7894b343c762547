"""What a shard still lacks, the jobs that give it, and the commit once the last row has come.

Streams of a shard are independent, and a manifest may hold only some of a shard's clips: what is missing is counted
per stream and clip, and a shard that gains clips is made again from the rows it has and the new ones.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import ManifestError
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.plan import Plan
from cache.rows import ClipRows
from cache.shard import write_shard
from extract.committed import clip_rows, committed_shard
from extract.config import ExtractConfig
from extract.decode_process import ClipSpan, VideoJob
from extract.sources import Sources

logger = logging.getLogger(__name__)


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
) -> list[ShardTask]:
    """The shards in which a stream lacks clips of this dataset.

    Raises:
        FingerprintMismatch: a shard was made with other settings than its stream's mark, or holds rows of another
            video or span under the id of a clip.
    """
    ours = {clip.id for clip in dataset.clips}
    sources = Sources(dataset)
    tasks = []
    for number in chosen:
        wanted = ours.intersection(plan.shards[number])
        missing: dict[str, frozenset[str]] = {}
        for stream in config.streams:
            if stream != "text":
                sidecar = committed_shard(cache / stream, number, marks.get(stream))
                held = [clip for clip in sidecar.clips if clip.id in wanted] if sidecar else []
                done = {clip.id for clip in held if sources.is_done(clip, retry_failed=retry_failed)}
                missing[stream] = frozenset(wanted - done)
        missing = {stream: ids for stream, ids in missing.items() if ids}
        if missing:
            tasks.append(ShardTask(number=number, missing=missing))
    sources.refuse_foreign_rows(cache)
    return tasks


def video_jobs(dataset: Dataset, tasks: list[ShardTask]) -> Iterator[VideoJob]:
    """One job per video, shard and set of missing streams; a shard's videos in the order of its ids."""
    clips = {clip.id: clip for clip in dataset.clips}
    for task in tasks:
        groups: dict[tuple[Path, frozenset[str]], list[ClipSpan]] = {}
        for clip_id in sorted(task.clip_ids):
            clip = clips[clip_id]
            key = (dataset.video_path(clip), task.streams_of(clip_id))
            span = ClipSpan(clip_id=clip_id, start_seconds=clip.start_seconds, end_seconds=clip.end_seconds)
            groups.setdefault(key, []).append(span)
        for (path, wanted), spans in groups.items():
            yield VideoJob(path=path, spans=tuple(spans), streams=wanted)


def check_some_video_exists(dataset: Dataset, tasks: list[ShardTask]) -> None:
    """A wrong root must not become a cache full of failures. Without a task there is nothing to look for.

    Raises:
        ManifestError: not a single video of the dataset is there.
    """
    if tasks and not any(dataset.video_path(clip).exists() for clip in dataset.clips):
        raise ManifestError(
            f"not one of the videos exists; the first would be {dataset.video_path(dataset.clips[0])}. Say where they "
            "are with `--videos FOLDER` or DECONFOUND_VIDEOS"
        )


@dataclass(eq=False)
class Collector:
    """Rows as they come, until a stream of a shard is whole; what a shard held before is kept."""

    cache: Path
    marks: Mapping[str, Fingerprint]
    tasks: dict[int, ShardTask]
    shard_of: dict[str, int]
    rows: dict[int, dict[str, list[ClipRows]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, stream: str, row: ClipRows) -> None:
        """Keeps a row; commits the shard's stream once nothing of it is missing."""
        number = self.shard_of[row.clip_id]
        rows = self.rows[number][stream]
        rows.append(row)
        if len(rows) == len(self.tasks[number].missing[stream]):
            self._commit(number, stream, self.rows[number].pop(stream))

    def _commit(self, number: int, stream: str, rows: list[ClipRows]) -> None:
        folder = self.cache / stream
        new = {row.clip_id for row in rows}
        sidecar = committed_shard(folder, number, self.marks[stream])
        kept = [row for row in clip_rows(folder, sidecar) if row.clip_id not in new] if sidecar else []
        write_shard(folder, number, stream, kept + rows, fingerprint=self.marks[stream])
        logger.info("%s: shard %d committed, %d clips", stream, number, len(kept) + len(rows))
