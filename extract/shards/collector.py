"""Rows as they come, committed shard by shard, by one process of possibly many that fill the same stream.

A shard that grows is made again from the rows it has and the new ones. Two processes that do so at the same moment
would each keep what they read before, and the later one would drop the earlier one's rows. So a commit reads, merges
and writes under a lock on the stream's folder. Where the file system has no locks a row may still be lost so: its clip
has no row then, which the next run finds, and makes it again.
"""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache import atomic, fingerprint
from cache.errors import CacheError
from cache.file_lock import LOCK_NAME, locked
from cache.fingerprint import Fingerprint
from cache.rows import ClipRows
from cache.shard import write_shard
from extract.shards.committed import clip_rows, committed_shard
from extract.shards.work import ShardTask

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Collector:
    """Rows as they come, until a stream of a shard is whole; what a shard held before is kept."""

    cache: Path
    marks: Mapping[str, Fingerprint]
    tasks: dict[int, ShardTask] = field(default_factory=dict)
    shard_of: dict[str, int] = field(default_factory=dict)
    rows: dict[tuple[int, str], list[ClipRows]] = field(default_factory=lambda: defaultdict(list))
    """By shard and stream, not committed yet."""
    _came: dict[tuple[int, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    def expect(self, task: ShardTask) -> None:
        """Says which rows are to come; before the first of them."""
        self.tasks[task.number] = task
        self.shard_of.update(dict.fromkeys(task.clip_ids, task.number))

    def add(self, stream: str, row: ClipRows) -> None:
        """Keeps a row; commits the shard's stream once nothing of it is missing."""
        number = self.shard_of[row.clip_id]
        self.rows[number, stream].append(row)
        self._came[number, stream].add(row.clip_id)
        if self._came[number, stream] >= self.tasks[number].missing[stream]:
            self._commit(number, stream)

    def commit_ready(self) -> int:
        """Commits the rows that have come, also of shards that are not whole; returns the number of clips they are of.

        A shard with part of its clips is a shard: the next run makes the others.
        """
        clip_ids = {row.clip_id for rows in self.rows.values() for row in rows}
        for number, stream in sorted(self.rows):
            self._commit(number, stream)
        return len(clip_ids)

    def _commit(self, number: int, stream: str) -> None:
        rows, folder = self.rows[number, stream], self.cache / stream
        new = {row.clip_id for row in rows}
        with _lock_on(folder, self.marks[stream]):
            sidecar = committed_shard(folder, number, self.marks[stream])
            kept = [row for row in clip_rows(folder, sidecar) if row.clip_id not in new] if sidecar else []
            write_shard(folder, number, stream, kept + rows, fingerprint=self.marks[stream])
        del self.rows[number, stream]  # only now: a commit that a full disk refused can be tried again
        logger.info("%s: shard %d committed, %d clips", stream, number, len(kept) + len(rows))


@contextlib.contextmanager
def _lock_on(folder: Path, mark: Fingerprint) -> Iterator[None]:
    """Keeps other processes from changing a stream, which must still be the one that this process fills.

    Raises:
        CacheError: it was dropped, or made again with other settings.
    """
    with contextlib.ExitStack() as stack:
        try:
            with atomic.storage_errors(folder / LOCK_NAME):
                stack.enter_context(locked(folder / LOCK_NAME, wait=True))
            is_ours = fingerprint.load(folder).sha256 == mark.sha256
        except FileNotFoundError:
            is_ours = False
        if not is_ours:
            raise CacheError(
                f"{folder} was dropped or replaced by another process while this one worked for it: run the same "
                "command again to see what is left to do"
            )
        yield
