"""What is wrong with a cache as a whole: what no single stream can notice, because a file that tells of it is gone.

A lost sidecar is not among it: a shard without one does not exist, its clips are counted as left and are made again.
"""

from collections.abc import Iterator
from pathlib import Path

from cache import atomic, fingerprint
from cache.errors import CorruptShard
from cache.plan import Plan
from cache.rows import STREAMS, TOKEN_STREAMS
from cache.sidecar import shard_numbers, sidecars

_NUM_NAMED = 5


def folder_problems(cache: Path) -> list[str]:
    """Damaged files beside the plan, streams without a fingerprint, and clips that no plan file holds."""
    problems = []
    for path in sorted(cache.glob("*.json")):
        try:
            if not path.name.startswith("plan"):  # Plan.load reads those, and cannot do without
                atomic.read_json(path, advice="delete it; extraction makes it again")
        except CorruptShard as error:
            problems.append(str(error))
    return problems + [line for folder in _stream_folders(cache) for line in _stream_problems(cache, folder)]


def _stream_folders(cache: Path) -> Iterator[Path]:
    """Where streams are or should be, with a fingerprint or without."""
    yield from (cache / stream for stream in STREAMS)
    for stream in TOKEN_STREAMS:
        yield from sorted(path for path in (cache / stream).glob("*") if path.is_dir())


def _stream_problems(cache: Path, folder: Path) -> Iterator[str]:
    is_made = shard_numbers(folder) or (folder.name == "text" and any(folder.glob("*-*.json")))
    mark = folder / fingerprint.FILE_NAME
    if is_made and not mark.exists():
        yield (
            f"{mark} is gone though the stream holds files: put it back from a copy, or delete {folder} and extract "
            "the stream again"
        )
    elif is_made and folder.parent == cache:
        yield from _unplanned(cache, folder)


def _unplanned(cache: Path, folder: Path) -> Iterator[str]:
    try:
        plan = Plan.load(cache)
        committed = sidecars(folder)
    except CorruptShard:
        return  # reported where they are read
    for sidecar in committed:
        strangers = {clip.id for clip in sidecar.clips} - set(plan.shards.get(sidecar.number, ()))
        if strangers:
            named = ", ".join(sorted(strangers)[:_NUM_NAMED])
            yield (
                f"{folder / sidecar.file} holds {len(strangers)} clips that the plan has not in this shard ({named}): "
                "a plan file is gone; put it back from a copy, or extract into another cache folder"
            )
