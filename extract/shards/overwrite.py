"""Streams with other settings than the cache has: built beside the old ones, and swapped in when they are whole.

CACHE/next is a small cache with copies of the plan, so that extraction runs in it as in any other; training goes on
with the old stream until the new one has a row for every clip of the dataset. For a while both need their space.

Killed at any time, the same command goes on: while building, committed shards are found as in any cache; copies of
the plan are completed; a swap is finished (see cache/stream_swap.py for its moments). Of several tasks that build parts
of one stream, the one whose last shard makes it whole swaps; those that come later find that there is nothing to do.
A process that still works for a stream that was swapped or given up is refused at its next commit.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from cache import atomic, fingerprint
from cache.errors import FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.plan import Plan
from cache.sidecar import sidecars
from cache.stream_swap import NEXT, claimed, discard, discard_next, empty_trash, swap_in
from extract.shards.committed import committed_shard
from extract.sources import memory as source_memory
from extract.texts import missing_texts

logger = logging.getLogger(__name__)

_NUM_LISTED = 5


def begin(dataset: Dataset, cache: Path, marks: Mapping[str, Fingerprint], shard_size: int) -> tuple[str, ...]:
    """Prepares CACHE/next for the streams that the cache has with other settings than these.

    A stream that was begun there with yet other settings is given up.

    Args:
        dataset: the clips.
        cache: the cache folder.
        marks: what is asked for, by stream.
        shard_size: clips a shard, for clips that are not planned yet.

    Returns:
        The streams to extract into CACHE/next, in the order of `marks`; none if there is nothing to overwrite.

    Raises:
        FingerprintMismatch: a stream holds clips or tasks that this dataset lacks: they would be lost.
    """
    for stream in (streams := _differing(cache, marks)):
        _refuse_loss(dataset, cache, stream, kept=_names(dataset, stream))
    if not streams:
        return ()
    with claimed(cache):
        streams = _differing(cache, marks)  # fewer, if another task has just swapped one
        for stream in streams:
            if not _is_made_by(cache / NEXT / stream, marks[stream]):
                discard_next(cache, stream)
        if streams:
            Plan.ensure(cache, [clip.id for clip in dataset.clips], shard_size)
            _copy_plan(cache)
        for stream in streams:
            fingerprint.ensure(cache / NEXT / stream, marks[stream])
    empty_trash(cache)
    return streams


def finish(dataset: Dataset, cache: Path, marks: Mapping[str, Fingerprint]) -> frozenset[str]:
    """Swaps in the streams that have become whole.

    Args:
        dataset: the clips that each must have a row for.
        cache: the cache folder.
        marks: what is asked for, of the streams that `begin` returned.

    Returns:
        Those that the cache has as asked for now, whoever swapped them; the others lack clips that other tasks make.

    Raises:
        FingerprintMismatch: an old stream has got clips meanwhile that this dataset lacks.
    """
    done = set()
    with claimed(cache):
        source_memory.merge(cache / NEXT, into=cache)
        for stream, mark in marks.items():
            folder = cache / NEXT / stream
            if _is_made_by(cache / stream, mark):
                if not (folder / fingerprint.FILE_NAME).exists() or _is_made_by(folder, mark):
                    discard_next(cache, stream)  # made by a task that did not know that it was late
                done.add(stream)
            elif _is_made_by(folder, mark) and _is_whole(dataset, cache / NEXT, stream):
                _refuse_loss(dataset, cache, stream, kept=_held(cache / NEXT, stream, with_failures=True))
                swap_in(cache, stream)
                logger.info("%s: %s has the new settings now", cache, stream)
                done.add(stream)
    empty_trash(cache)
    return frozenset(done)


def _differing(cache: Path, marks: Mapping[str, Fingerprint]) -> tuple[str, ...]:
    return tuple(
        stream
        for stream, mark in marks.items()
        if (cache / stream / fingerprint.FILE_NAME).exists() and not _is_made_by(cache / stream, mark)
    )


def _is_made_by(folder: Path, mark: Fingerprint) -> bool:
    return (folder / fingerprint.FILE_NAME).exists() and not fingerprint.load(folder).difference(mark)


def _copy_plan(cache: Path) -> None:
    """Byte copies; what was built by another plan (the cache was made anew) has its rows in other shards."""
    root = cache / NEXT
    plans = {path.name: path.read_bytes() for path in sorted(cache.glob("plan*.json"))}
    copies = {path.name: path.read_bytes() for path in root.glob("plan*.json")}
    if any(plans.get(name) != content for name, content in copies.items()):
        discard(cache, root)
    for name, content in plans.items():
        atomic.create_bytes(root / name, content)
    source_memory.merge(cache, into=root)


def _is_whole(dataset: Dataset, root: Path, stream: str) -> bool:
    """True if every clip of the dataset has a row, or every task its texts."""
    mark = fingerprint.load(root / stream)
    if stream == "text":
        return not missing_texts(dataset, root, {"text": mark})
    ours = {clip.id for clip in dataset.clips}
    shards = Plan.load(root).shards
    for number, clip_ids in shards.items():
        wanted = ours.intersection(clip_ids)
        sidecar = committed_shard(root / stream, number, mark) if wanted else None
        if wanted and (sidecar is None or not wanted.issubset(clip.id for clip in sidecar.clips)):
            return False
    return ours.issubset(clip_id for clip_ids in shards.values() for clip_id in clip_ids)


def _names(dataset: Dataset, stream: str) -> set[str]:
    """What a dataset gives a stream: clip ids; for text, task names."""
    return {task.name for task in dataset.tasks} if stream == "text" else {clip.id for clip in dataset.clips}


def _held(cache: Path, stream: str, *, with_failures: bool = False) -> set[str]:
    """The same of what a stream has."""
    folder = cache / stream
    if stream == "text":
        files = (path for path in folder.glob("*.json") if path.name != fingerprint.FILE_NAME)
        return {atomic.read_json(path)["task"] for path in files}
    clips = (clip for sidecar in sidecars(folder) for clip in sidecar.clips)
    return {clip.id for clip in clips if with_failures or clip.failure is None}


def _refuse_loss(dataset: Dataset, cache: Path, stream: str, *, kept: Collection[str]) -> None:
    lost = sorted(_held(cache, stream).difference(kept))
    if lost:
        what = "tasks" if stream == "text" else "clips"
        more = ", ..." if len(lost) > _NUM_LISTED else ""
        raise FingerprintMismatch(
            f"{cache / stream} holds {len(lost)} {what} that dataset {dataset.name!r} lacks "
            f"({', '.join(map(repr, lost[:_NUM_LISTED]))}{more}): --overwrite would lose them. Use the dataset that "
            f"has them all, or another cache folder, or remove the stream first with "
            f"`deconfound drop {cache} --stream {stream}`"
        )
