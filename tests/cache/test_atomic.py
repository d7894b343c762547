import os
from pathlib import Path

import pytest

from cache import atomic
from cache.errors import StorageError


def test_a_full_disk_is_a_storage_error_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        atomic.write_bytes(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_sweep_removes_only_temporaries_of_dead_processes(tmp_path: Path) -> None:
    host = atomic._host()
    dead = tmp_path / f".shard.h5~{host}~4194399-1~.tmp"
    alive = tmp_path / f".shard.h5~{host}~{os.getpid()}-1~.tmp"
    elsewhere = tmp_path / ".shard.h5~another~4194399-1~.tmp"
    for path in (dead, alive, elsewhere):
        path.touch()
    assert atomic.sweep(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted([alive, elsewhere])
