"""Files that are either whole or absent, also after a kill or a full disk.

Bytes are built in memory and written by us, never by HDF5: libhdf5 dies of SIGSEGV on a full disk, a plain write
returns an error that can be reported. Temporaries stand in the target's own folder, so that `os.replace` is atomic.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from cache.errors import CorruptShard, StorageError

_STORAGE_ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EIO: "look after the disk",
    errno.ESTALE: "look after the disk",
    errno.EROFS: "make the disk writable",
}
_TEMPORARY_NAME = re.compile(r"\..+~(?P<host>[^~]+)~(?P<pid>\d+)-\d+~\.tmp")
_SECONDS_OF_A_DAY = 86400.0
_CHECKSUM_KEY = "body_sha256"


def write_bytes(path: Path, data: bytes | memoryview, *, check: Callable[[Path], None] | None = None) -> None:
    """Replaces `path` by `data` atomically and durably.

    Args:
        path: the file to write.
        data: its whole content.
        check: reads the temporary back and raises if it is not what was meant; only then does it become `path`.

    Raises:
        StorageError: the disk is full or failing, or a file-size limit was hit; the old file is untouched.
    """
    with storage_errors(path):
        temporary = _write_temporary(path, data)
        try:
            if check is not None:
                check(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def create_bytes(path: Path, data: bytes) -> bool:
    """Creates `path` unless it exists; of many processes that try at once exactly one wins.

    Returns:
        True if this call created the file, False if it was there before (the caller compares the content).
    """
    with storage_errors(path):
        temporary = _write_temporary(path, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        sync_folder(path.parent)
    return True


@contextlib.contextmanager
def storage_errors(path: Path, doing: Literal["write", "read"] = "write") -> Iterator[None]:
    """Translates what a disk can refuse while `path` is written or read.

    Raises:
        StorageError: the disk is full or failing, or a limit was hit; says which path and what to do.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _STORAGE_ADVICE:
            raise StorageError(
                f"cannot {doing} {path}: {error.strerror}. What was committed before is safe; "
                f"{_STORAGE_ADVICE[error.errno]} and run the same command again"
            ) from error
        raise


def encode_json(body: Mapping[str, Any]) -> bytes:
    """Pretty JSON of `body` with a sha256 of its canonical form as last key."""
    return json.dumps({**body, _CHECKSUM_KEY: _canonical_sha256(body)}, indent=1).encode() + b"\n"


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Writes `encode_json(body)` atomically."""
    write_bytes(path, encode_json(body))


def read_json(path: Path, *, advice: str = "delete it and run the command that made it again") -> dict[str, Any]:
    """Reads a file written by `write_json` and returns its body without the checksum.

    Args:
        path: the file.
        advice: what to do if it is damaged, for the message.

    Raises:
        CorruptShard: not JSON, or the body does not match its sha256.
        StorageError: the disk fails.
    """
    try:
        with storage_errors(path, "read"):
            content = path.read_bytes()
        body = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptShard(f"{path} is not valid JSON ({error}): {advice}") from error
    stored = body.pop(_CHECKSUM_KEY, None) if isinstance(body, dict) else None
    if stored is None or stored != _canonical_sha256(body):
        raise CorruptShard(f"{path} does not match its own sha256, it was edited or damaged: {advice}")
    return body


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes; StorageError if the disk fails."""
    with storage_errors(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(folder: Path) -> int:
    """Removes temporaries that dead processes of this host, or any a day ago, left in `folder`; returns how many."""
    removed = 0
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY_NAME.fullmatch(path.name)
        if match and _is_abandoned(path, match["host"], int(match["pid"])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _is_abandoned(path: Path, host: str, pid: int) -> bool:
    if host == _host():
        return not _is_alive(pid)
    try:
        return time.time() - path.stat().st_mtime > _SECONDS_OF_A_DAY
    except FileNotFoundError:
        return False


def _write_temporary(path: Path, data: bytes | memoryview) -> Path:
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}~{_host()}~{os.getpid()}-{threading.get_ident()}~.tmp")
    try:
        with temporary.open("wb", buffering=0) as file:
            view = memoryview(data)
            while view.nbytes:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return temporary


def _make_folder(folder: Path) -> None:
    """Also durably: a power cut may otherwise take a new folder with all that was synced in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):  # some folders may be written to and not listed
            sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames and removals in a folder durable."""
    if os.name == "nt":  # Windows can't open folders; its rename is durable enough for reading and training.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _canonical_sha256(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _host() -> str:
    """Machine and space of process numbers: containers often share the name of the one and not the other."""
    name = socket.gethostname().replace("~", "-").replace("/", "-")
    try:
        return f"{name}.{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"
    except OSError:  # not Linux
        return name


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
