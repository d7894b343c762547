"""What the videos were when they were last looked at, so that finished work need not read them.

A video's identity is its size and a digest of its content, never a date: dates change when files are copied, and may
stay when a file is replaced. Here the date is only a hint: a file of the size and time of change that are remembered
is taken to have the digest that is remembered. Without the file CACHE/sources.json every video is read once (2 MiB).
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import atomic
from cache.errors import CorruptShard, StorageError, VideoError
from extract.video.source_file import source_identity

logger = logging.getLogger(__name__)

FILE_NAME = "sources.json"
_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FileState:
    """What `stat` says of a file: its size in bytes and when it changed."""

    size: int
    mtime_ns: int


class SourceMemory:
    """Digests of a root's videos, by their paths in it.

    Args:
        cache: the cache folder, where they are kept.
        root: the videos' folder.
    """

    def __init__(self, cache: Path, root: Path) -> None:
        self._path, self._root = cache / FILE_NAME, root
        self._remembered = _read(self._path)
        self._states: dict[str, FileState | None] = {}
        self._digests: dict[str, str | None] = {}

    def state_of(self, video: str) -> FileState | None:
        """Size and time of change, asked once; None if the video is not there."""
        if video not in self._states:
            try:
                status = (self._root / video).stat()
                self._states[video] = FileState(status.st_size, status.st_mtime_ns)
            except (OSError, ValueError):  # decoding says why, if it comes to that
                self._states[video] = None
        return self._states[video]

    def sha256_of(self, video: str) -> str | None:
        """The digest of a video as in its rows' provenance; read if it is not remembered, None if it cannot be."""
        if video not in self._digests:
            self._digests[video] = self._recall(video) or self._read_digest(video)
        return self._digests[video]

    def learn(self, video: str, size: int, sha256: str) -> None:
        """Takes over what a decoder found in a video; a file that was changed since `state_of` is read next time."""
        state = self.state_of(video)
        if sha256 and state is not None and state.size == size:
            self._digests.setdefault(video, sha256)

    def save(self) -> None:
        """Keeps what is new for the next run; what other runs have kept meanwhile stays."""
        learnt = {
            video: [state.size, state.mtime_ns, sha256]
            for video, sha256 in self._digests.items()
            if sha256 and (state := self.state_of(video))
        }
        _add(self._path, learnt)

    def _recall(self, video: str) -> str | None:
        size, mtime_ns, sha256 = self._remembered.get(video, (0, 0, None))
        return sha256 if self.state_of(video) == FileState(size, mtime_ns) else None

    def _read_digest(self, video: str) -> str | None:
        try:
            return source_identity(self._root / video)[1]
        except VideoError:
            return None


def merge(cache: Path, *, into: Path) -> None:
    """Adds what one cache remembers to what another one does, for the same videos."""
    _add(into / FILE_NAME, _read(cache / FILE_NAME))


def _add(path: Path, videos: dict[str, list[Any]]) -> None:
    known = _read(path)
    if known | videos == known:
        return
    try:
        atomic.write_json(path, {"schema_version": _SCHEMA_VERSION, "videos": known | videos})
    except (PermissionError, StorageError):
        logger.info("%s cannot be written: videos are read again next time", path)


def _read(path: Path) -> dict[str, list[Any]]:
    try:
        body = atomic.read_json(path)
    except FileNotFoundError:
        return {}
    except CorruptShard:
        logger.warning("%s is damaged: the videos are read again", path)
        return {}
    return dict(body["videos"]) if body.get("schema_version") == _SCHEMA_VERSION else {}
