"""A lock on a file that the system frees when the process ends, however it ends.

A reader may ask why the file is never removed: the lock is on the open file, not on its presence, so nothing stale
is left by a kill, and removing it would let two processes lock two files of one name.
"""

import contextlib
import errno
import functools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

LOCK_NAME = "lock"
"""In a folder: held by those who change what is in it."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds the lock on `path`, which is created if need be.

    A file system that has no locks is used without, after one warning per file.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
        OSError: the file cannot be created.
    """
    with path.open("a+b") as file:
        try:
            _lock(file, wait=wait)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _warn(path, error.strerror)
        yield


@functools.cache
def _warn(path: Path, reason: str) -> None:
    logger.warning("%s cannot be locked (%s): run one process at a time here", path, reason)


def _lock(file: BinaryIO, *, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except PermissionError as error:  # what Windows calls a lock that is held
            raise BlockingIOError(*error.args) from None
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
