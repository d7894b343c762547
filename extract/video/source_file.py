"""What the file system says of a video's file, before and while it is read.

A file can vanish between two looks at it (a mount is lost, somebody tidies up), so every place that opens one by itself
turns the system's error into the same codes by `file_error`.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path

from cache.errors import FailureCode, VideoError

_MEBIBYTE = 1 << 20


def check_file(path: Path) -> None:
    """Asks the file system whether `path` is a regular, readable, non-empty file.

    Raises:
        VideoError: with the cause.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "directory" if stat.S_ISDIR(status.st_mode) else "special file (FIFO, device or socket)"
            raise VideoError(FailureCode.NOT_A_FILE, f"is a {kind}")
        if status.st_size == 0:
            raise VideoError(FailureCode.EMPTY, "has 0 bytes")
        os.close(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
    except (OSError, ValueError) as error:
        raise file_error(path, error) from error


def source_identity(path: Path) -> tuple[int, str]:
    """Size in bytes, and the sha256 of that size with the first and last MiB: it survives copying, unlike a date.

    Raises:
        VideoError: the file has gone, or the disk refuses to read it.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode() + b"\0")
            digest.update(file.read(_MEBIBYTE))
            file.seek(max(0, size - _MEBIBYTE))
            digest.update(file.read(_MEBIBYTE))
    except OSError as error:
        raise file_error(path, error) from error
    return size, digest.hexdigest()


def file_error(path: Path, error: OSError | ValueError) -> VideoError:
    """The cause behind an error of opening or reading a file."""
    if isinstance(error, FileNotFoundError):
        is_link = path.is_symlink()
        what = "is a link to a file that does not exist" if is_link else "no such file"
        return VideoError(FailureCode.MISSING, what)
    if isinstance(error, PermissionError):
        return VideoError(FailureCode.PERMISSION, "may not be read by this user")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return VideoError(FailureCode.LOOP, "is a link that leads back to itself")
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return VideoError(FailureCode.CORRUPT, f"cannot be read ({error})")
    return VideoError(FailureCode.MISSING, f"cannot be reached ({error})")
