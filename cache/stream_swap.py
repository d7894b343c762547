"""A stream that is made again with other settings: built in CACHE/next/<stream>, then put in the place of the old one.

A folder cannot be replaced in one step, so a swap is two renames: the old stream into CACHE/old/, the new one into its
place. The presence of CACHE/old/<stream> says that a swap was begun. A process may be killed

* before the first rename: the old stream is there, and the new one in next/;
* between the two: the stream is absent for readers. The new one is whole (only whole ones are swapped), so whoever
  claims the cache next (extract, status, verify, drop) moves it into its place;
* after the second: the new stream is there; the settings and the removal of the old one are made up for.

At every moment at least one of the two is whole under a name that is known. What is removed goes to CACHE/trash/ by one
rename first, so that nothing is ever half there.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from cache import atomic, fingerprint
from cache.errors import StorageError
from cache.file_lock import LOCK_NAME, locked
from cache.store import SETTINGS, stream_settings

logger = logging.getLogger(__name__)

NEXT = "next"
"""In a cache: streams under construction, as a small cache of its own."""
_OLD = "old"
_TRASH = "trash"


@contextlib.contextmanager
def claimed(cache: Path) -> Iterator[None]:
    """Keeps other processes from swapping or dropping streams; a swap that was begun is finished first."""
    with contextlib.ExitStack() as stack:
        with atomic.storage_errors(cache / LOCK_NAME):
            stack.enter_context(locked(cache / LOCK_NAME, wait=True))
        for old in sorted(path for path in (cache / _OLD).glob("*") if path.is_dir()):
            logger.warning("%s: finishing the swap of %s that was interrupted", cache, old.name)
            _complete(cache, old.name)
        _remove_if_empty(cache / _OLD)
        yield


def finish_swaps(cache: Path) -> None:
    """Finishes swaps that were interrupted; a cache that cannot be written stays as it is."""
    if (cache / _OLD).is_dir():
        try:
            with claimed(cache):
                pass
        except (PermissionError, StorageError) as error:
            logger.warning("%s: a swap of streams was interrupted and cannot be finished here (%s)", cache, error)


def under_construction(cache: Path) -> dict[str, Path]:
    """Folders of the streams that are being made again, by name."""
    marks = sorted(cache.glob(f"{NEXT}/*/{fingerprint.FILE_NAME}"))
    return {path.parent.name: path.parent for path in marks}


def swap_in(cache: Path, stream: str) -> None:
    """Puts the stream under construction, which must be whole, in the place of the old one; call in `claimed`.

    Raises:
        ValueError: there is nothing to put there.
        StorageError: the disk refused; the next claim goes on.
    """
    place, new = cache / stream, cache / NEXT / stream
    if not _holds_work(new):
        raise ValueError(f"{new} holds nothing")
    with contextlib.ExitStack() as stack:
        for folder in (place, new):
            if folder.is_dir():
                stack.enter_context(locked(folder / LOCK_NAME, wait=True))  # no shard is being committed
        if place.is_dir():
            _move(place, cache / _OLD / stream)
        _complete(cache, stream)


def discard(cache: Path, folder: Path) -> None:
    """Takes a folder out of the cache in one step; `empty_trash` deletes it."""
    _move(folder, cache / _TRASH / f"{folder.name}-{os.getpid()}-{time.time_ns()}")


def discard_next(cache: Path, stream: str) -> None:
    """Gives up a stream under construction; after the last one, next/ itself. Call in `claimed`."""
    folder = cache / NEXT / stream
    if folder.is_dir():
        with locked(folder / LOCK_NAME, wait=True):
            discard(cache, folder)
    if (cache / NEXT).is_dir() and not under_construction(cache):
        discard(cache, cache / NEXT)


def empty_trash(cache: Path) -> None:
    """Deletes what was taken out of the cache, by this process or one that was killed."""
    for folder in (cache / _TRASH).glob("*"):
        logger.info("deleting %s", folder)
        shutil.rmtree(folder, ignore_errors=True)  # what cannot be deleted now is tried again by the next one
    _remove_if_empty(cache / _TRASH)


def forget_settings(cache: Path, stream: str) -> None:
    """Removes a stream from settings.json."""
    settings = stream_settings(cache)
    if settings.pop(stream, None) is not None:
        atomic.write_json(cache / SETTINGS, {"streams": settings})


def _complete(cache: Path, stream: str) -> None:
    """Whatever is left to do of a swap."""
    place, new, old = cache / stream, cache / NEXT / stream, cache / _OLD / stream
    if not _holds_work(place):
        if place.is_dir():  # made by somebody who found no stream there
            discard(cache, place)
        _move(new if _holds_work(new) else old, place)
    _take_over_settings(cache, stream)
    discard_next(cache, stream)
    if old.is_dir():  # last, as it says that there is something left to do
        discard(cache, old)


def _holds_work(folder: Path) -> bool:
    """True if something was committed into a stream; not if it has only its settings."""
    return any(path.name != fingerprint.FILE_NAME for path in folder.glob("*.json"))


def _take_over_settings(cache: Path, stream: str) -> None:
    """The settings that the stream was asked for with; in next/ they go when the swap is complete."""
    asked, settings = stream_settings(cache / NEXT).get(stream), stream_settings(cache)
    if asked is not None and settings.get(stream) != asked:
        atomic.write_json(cache / SETTINGS, {"streams": settings | {stream: asked}})


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _move(source: Path, target: Path) -> None:
    with atomic.storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        for folder in {source.parent, target.parent}:
            atomic.sync_folder(folder)
