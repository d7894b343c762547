"""Memory that a decode process and its parent share, so that frames never travel through a pipe.

Mapped files in /dev/shm rather than `multiprocessing.shared_memory`: that one does not reserve its pages, and writing
to it dies of SIGBUS where containers give 64 MB. Here the space is allocated first, and too little of it means a
mapped file in the temporary folder instead, with a warning. A file is unlinked as soon as both sides have mapped it;
one whose maker was killed before that is removed by the next run, which knows it by its lock: nobody holds it any more.
"""

import contextlib
import errno
import functools
import logging
import mmap
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cache.errors import StorageError

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
_ALIGNMENT = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)
_PREFIX = "deconfound-buffer-"
_NAME = re.compile(rf"{_PREFIX}\d+-[a-z0-9_]{{8}}")
_SECONDS_TO_LOCK = 60.0


class Buffer:
    """A mapped file of a fixed size; arrays lie in it one after the other, aligned to pages."""

    def __init__(self, path: Path, descriptor: int, num_bytes: int) -> None:
        self.path = path
        self.num_bytes = num_bytes
        self._map = mmap.mmap(descriptor, num_bytes)

    @classmethod
    def create(cls, num_bytes: int) -> Self:
        """Allocates a new one, in shared memory if there is room.

        Raises:
            StorageError: there is none in the temporary folder either.
        """
        if SHARED_MEMORY.is_dir():
            try:
                return cls._allocate(SHARED_MEMORY, num_bytes)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                logger.warning(
                    "%s has no room for a frame buffer of %.0f MB (containers often give 64 MB; `docker run "
                    "--shm-size`): using %s, which may be slower",
                    SHARED_MEMORY,
                    num_bytes / 1e6,
                    tempfile.gettempdir(),
                )
        folder = Path(tempfile.gettempdir())
        try:
            return cls._allocate(folder, num_bytes)
        except OSError as error:
            raise StorageError(
                f"cannot allocate a frame buffer of {num_bytes / 1e6:.1f} MB in {folder}: {error.strerror}. Make room, "
                "or name another folder in TMPDIR, and run the same command again"
            ) from error

    @classmethod
    def open(cls, path: Path) -> Self:
        """Maps a buffer that another process created, and unlinks its file."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            return cls(path, descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
            path.unlink()

    @classmethod
    def _allocate(cls, folder: Path, num_bytes: int) -> Self:
        sweep(folder)
        descriptor, name = tempfile.mkstemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=folder)
        try:
            with contextlib.suppress(OSError):  # a file system without locks: nobody can sweep there either
                _lock(descriptor)  # for as long as the memory is mapped: the map keeps a copy of the descriptor
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, num_bytes)
            else:
                os.truncate(descriptor, num_bytes)
            return cls(Path(name), descriptor, num_bytes)
        except OSError:
            Path(name).unlink()
            raise
        finally:
            os.close(descriptor)

    def arrays(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.uint8]]:
        """uint8 arrays of these shapes, in this order, that share the buffer's memory."""
        views: dict[str, npt.NDArray[Any]] = {}
        offset = 0
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            views[name] = np.frombuffer(self._map, np.uint8, size, offset).reshape(shape)
            offset += _aligned(size)
        return views

    def close(self) -> None:
        """Lets go of the memory once no array refers to it, and of the file if nobody has mapped it."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(BufferError):  # an array still refers to it; its end frees the map
            self._map.close()


@functools.cache
def sweep(folder: Path) -> None:
    """Removes, once per process, the buffers of processes that were killed before both sides had mapped them."""
    for path in folder.glob(f"{_PREFIX}*"):
        if _NAME.fullmatch(path.name):
            with contextlib.suppress(OSError):  # locked: somebody's who lives; or another user's, or just gone
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        # A new file has no lock yet. Process numbers would not do: containers share the folder and not the numbers.
        if time.time() - os.fstat(descriptor).st_mtime > _SECONDS_TO_LOCK:
            _lock(descriptor)
            path.unlink()
            logger.info("removed %s: the process that made it was killed", path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Locks a file that nobody else has locked; the system frees it when the process ends, however it ends."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def bytes_needed(shapes: dict[str, tuple[int, ...]]) -> int:
    """Size of a buffer for uint8 arrays of these shapes."""
    return sum(_aligned(int(np.prod(shape))) for shape in shapes.values())


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
