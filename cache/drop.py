"""Removes one stream of a cache, whole or not at all: it is taken out of the cache in one step, and then deleted.

What a killed process took out and did not delete is deleted by the next drop or extract. A process that is filling the
stream meanwhile is refused at its next commit; plan and other streams stay.
"""

from pathlib import Path

from cache.errors import CacheError
from cache.file_lock import LOCK_NAME, locked
from cache.plan import Plan
from cache.rows import STREAMS, TOKEN_STREAMS
from cache.store import stream_folders
from cache.stream_swap import NEXT, claimed, discard, discard_next, empty_trash, forget_settings, under_construction


def droppable(cache: Path) -> dict[str, Path]:
    """What `drop` takes: streams, tokens by kind or by kind and digest, and streams under construction.

    Raises:
        CacheError: the folder is not a cache.
    """
    Plan.load(cache)
    folders = {name: cache / name for name in (*STREAMS, *TOKEN_STREAMS) if (cache / name).is_dir()}
    building = {f"{NEXT}/{stream}": folder for stream, folder in under_construction(cache).items()}
    return folders | stream_folders(cache) | building


def stream_bytes(cache: Path, stream: str) -> int:
    """Bytes that removing a stream frees.

    Raises:
        CacheError: the cache has no such stream; lists what it has.
    """
    files = (path for path in _folder_of(cache, stream).rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files)


def drop(cache: Path, stream: str) -> int:
    """Removes a stream from a cache; returns the number of bytes that this frees.

    Args:
        cache: the cache folder.
        stream: a key of `droppable`.

    Raises:
        CacheError: the cache has no such stream; lists what it has.
        StorageError: the disk refused.
    """
    _folder_of(cache, stream)  # what is refused leaves no file
    with claimed(cache):
        folder, num_bytes = _folder_of(cache, stream), stream_bytes(cache, stream)
        if stream.startswith(f"{NEXT}/"):
            discard_next(cache, folder.name)
        else:
            forget_settings(cache, stream)
            with locked(folder / LOCK_NAME, wait=True):
                discard(cache, folder)
    empty_trash(cache)
    return num_bytes


def _folder_of(cache: Path, stream: str) -> Path:
    folders = droppable(cache)
    if stream not in folders:
        raise CacheError(f"{cache} has no stream {stream!r}; it has {', '.join(sorted(folders)) or 'none'}")
    return folders[stream]
