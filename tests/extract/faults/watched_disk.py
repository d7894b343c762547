"""Every operation by which a process changes or reads a folder, announced one by one: to look at the disk, or to fail.

The calls are caught where Python hands them to the system (`io.open`, `os.fsync`, `os.replace`, ...), below pathlib
and above the kernel, so that code which learns to write in another way is seen too. A write comes in two halves: a
kill or a full disk between them leaves the first one.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from unittest import mock

Kind = Literal["read", "open", "write", "half", "fsync", "fsync folder", "replace", "link", "unlink", "mkdir"]
CHANGES: tuple[Kind, ...] = ("open", "write", "half", "fsync", "fsync folder", "replace", "link", "unlink", "mkdir")


@dataclass(frozen=True)
class Operation:
    """What is about to happen; `target` is the second path of a rename or link."""

    kind: Kind
    path: Path
    target: Path | None = None


Watch = Callable[[Operation], None]


@contextlib.contextmanager
def watched(root: Path, before: Watch) -> Iterator[None]:
    """Calls `before` ahead of every operation below `root`; what it raises, the operation raises."""
    seam = _Seam(root.resolve(), before)
    with contextlib.ExitStack() as stack:
        for module, name, replacement in (
            (io, "open", seam.open_file),
            (os, "open", seam.open_descriptor),
            (os, "fsync", seam.fsync),
            (os, "replace", seam.two_paths("replace", os.replace)),
            (os, "rename", seam.two_paths("replace", os.rename)),
            (os, "link", seam.two_paths("link", os.link)),
            (os, "unlink", seam.one_path("unlink", os.unlink)),
            (os, "remove", seam.one_path("unlink", os.remove)),
            (os, "mkdir", seam.one_path("mkdir", os.mkdir)),
        ):
            stack.enter_context(mock.patch.object(module, name, replacement))
        yield


class _WatchedFile:
    """A file opened for writing, of which every write is announced in two halves."""

    def __init__(self, file: Any, path: Path, before: Watch) -> None:  # noqa: ANN401 (any kind of file object)
        self._file, self._path, self._before = file, path, before

    def write(self, data: bytes | memoryview) -> int:
        half = len(data) // 2
        self._before(Operation("write", self._path))
        written = self._file.write(data[:half])
        self._before(Operation("half", self._path))
        return written + self._file.write(data[half:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the file has)
        return getattr(self._file, name)


class _Seam:
    def __init__(self, root: Path, before: Watch) -> None:
        self._root, self._before = root, before
        self._open_file, self._open_descriptor, self._fsync = io.open, os.open, os.fsync
        self._paths: dict[int, Path] = {}

    def open_file(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (as io.open)
        path = self._below(file)
        if path is None:
            return self._open_file(file, mode, *arguments, **options)
        writes = not set(mode).isdisjoint("wxa+")
        self._before(Operation("open" if writes else "read", path))
        opened = self._open_file(file, mode, *arguments, **options)
        self._paths[opened.fileno()] = path
        return _WatchedFile(opened, path, self._before) if writes else opened

    def open_descriptor(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:  # noqa: ANN401 (as os.open)
        below = self._below(path)
        if below is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._before(Operation("open", below))
        descriptor = self._open_descriptor(path, flags, *arguments, **options)
        self._paths.pop(descriptor, None)
        if below is not None:
            self._paths[descriptor] = below
        return descriptor

    def fsync(self, descriptor: int) -> None:
        path = self._paths.get(descriptor)
        if path is not None:
            self._before(Operation("fsync folder" if path.is_dir() else "fsync", path))
        self._fsync(descriptor)

    def one_path(self, kind: Kind, original: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 (as the original)
            below = self._below(path)
            if below is not None:
                self._before(Operation(kind, below))
            original(path, *arguments, **options)

        return call

    def two_paths(self, kind: Kind, original: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any, **options: Any) -> None:  # noqa: ANN401 (as the original)
            below = self._below(target)
            if below is not None:
                self._before(Operation(kind, Path(source).absolute(), below))
            original(source, target, **options)

        return call

    def _below(self, path: Any) -> Path | None:  # noqa: ANN401 (whatever open() takes)
        if isinstance(path, int):
            return None
        absolute = Path(os.fsdecode(path)).absolute()
        return absolute if absolute.is_relative_to(self._root) else None
