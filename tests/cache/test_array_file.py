from pathlib import Path

import h5py
import pytest

from cache import array_file
from cache.errors import CorruptShard


def test_files_that_reach_outside_themselves_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"root:x:0:0" * 100)
    path = tmp_path / "evil.h5"

    def external(file: h5py.File) -> None:
        file.create_dataset("raw", (10,), "u1", external=[(str(secret), 0, 10)])

    def external_link(file: h5py.File) -> None:
        file["raw"] = h5py.ExternalLink(str(path), "/x")

    def soft_link(file: h5py.File) -> None:
        file["raw"] = h5py.SoftLink("/raw")

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((10,), "u1")
        layout[:] = h5py.VirtualSource(str(path), "x", (10,))
        file.create_virtual_dataset("raw", layout)

    def variable(file: h5py.File) -> None:
        file.create_dataset("raw", data=["text"])

    def chunked(file: h5py.File) -> None:
        file.create_dataset("raw", (10,), "u1", chunks=(5,), compression="gzip")

    def group(file: h5py.File) -> None:
        file.create_group("raw")

    for make in (external, external_link, soft_link, virtual, variable, chunked, group):
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(CorruptShard, match="refused"):
            array_file.read(path)


def test_a_shape_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", (10**12,), "f4")
    with pytest.raises(CorruptShard, match="does not fit"):
        array_file.read(path)
