"""Flat HDF5 files of named numeric arrays: built in memory, audited on opening, read through one memory map.

HDF5 never touches the disk here. It lays the file out in memory (contiguous, uncompressed, aligned to pages), our own
write commits the bytes, and readers map the file and index it at the offsets that HDF5 reports: near raw speed out of
files that h5dump, MATLAB and Julia open. Texts are uint8 blobs with offsets, because variable-length types point into
heaps that a hostile file can abuse.
"""

import itertools
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cache import atomic
from cache.errors import CorruptShard, StorageError

Array = npt.NDArray[Any]
_ALIGNMENT = 4096
_ACCEPTED_KINDS = "iuf"
_MAX_ATTRIBUTE_BYTES = 1 << 20


def build(arrays: Mapping[str, Array], attributes: Mapping[str, int | str]) -> bytes:
    """The bytes of an HDF5 file that holds `arrays` as contiguous little-endian datasets.

    The same input gives the same bytes: no times are stored.
    """
    with h5py.File(
        "memory.h5",
        "w",
        driver="core",
        backing_store=False,
        libver=("v110", "v110"),
        alignment_threshold=1,
        alignment_interval=_ALIGNMENT,
    ) as file:
        for name, value in attributes.items():
            file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else np.int64(value)
        for name, array in arrays.items():
            if array.dtype.kind not in _ACCEPTED_KINDS:
                raise ValueError(f"array {name!r} has dtype {array.dtype}; accepted: integers and floats")
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            file.create_dataset(name, data=little)
        file.flush()
        return file.id.get_file_image()


def read(path: Path) -> tuple[dict[str, Array], dict[str, int | str]]:
    """Audits a file and maps its arrays.

    Returns:
        Arrays by name (read-only views of one memory map) and attributes by name.

    Raises:
        CorruptShard: not HDF5, truncated, or holding anything that `build` does not write.
        StorageError: the disk fails.
    """
    try:
        with atomic.storage_errors(path, "read"), h5py.File(path, "r", locking=False) as file:
            layout = {name: _audit_dataset(path, file, name) for name in file}
            attributes = _audit_attributes(path, file)
    except (FileNotFoundError, StorageError):
        raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CorruptShard(f"{path} cannot be read as HDF5: {error}; {_ADVICE}") from error
    return _map(path, layout), attributes


def pack_texts(name: str, texts: Sequence[str]) -> dict[str, Array]:
    """Two arrays: `name`, the utf-8 bytes, and `name_offsets`, (n + 1,) int64 into them."""
    return pack_blobs(name, [text.encode("utf-8", "surrogateescape") for text in texts])


def unpack_texts(name: str, arrays: Mapping[str, Array]) -> tuple[str, ...]:
    """The inverse of `pack_texts`."""
    blob, offsets = arrays[name].tobytes(), arrays[f"{name}_offsets"].tolist()
    pairs = itertools.pairwise(offsets)
    return tuple(blob[start:stop].decode("utf-8", "surrogateescape") for start, stop in pairs)


def unpack_text(name: str, arrays: Mapping[str, Array], index: int) -> str:
    """One of the texts that `pack_texts` packed."""
    start, stop = arrays[f"{name}_offsets"][index : index + 2].tolist()
    return arrays[name][start:stop].tobytes().decode("utf-8", "surrogateescape")


def pack_blobs(name: str, blobs: Sequence[bytes]) -> dict[str, Array]:
    """Like `pack_texts`, for bytes (JPEG files)."""
    return {
        name: np.frombuffer(b"".join(blobs), dtype=np.uint8),
        f"{name}_offsets": offsets_of([len(blob) for blob in blobs]),
    }


def offsets_of(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    """(n + 1,) starts of consecutive pieces, the last entry being the total."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)


_ADVICE = "delete it and its .json, then run the command that made it again"


def _audit_dataset(path: Path, file: h5py.File, name: str) -> tuple[np.dtype[Any], tuple[int, ...], int | None]:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise CorruptShard(f"{path}: {name!r} is a link to elsewhere; refused; {_ADVICE}")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise CorruptShard(f"{path}: {name!r} is not a plain dataset; refused; {_ADVICE}")
    creation = dataset.id.get_create_plist()
    if creation.get_external_count() or creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_nfilters():
        raise CorruptShard(f"{path}: {name!r} is external, virtual, chunked or filtered; refused; {_ADVICE}")
    type_class = dataset.id.get_type().get_class()
    if type_class not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        raise CorruptShard(f"{path}: {name!r} holds other values than integers and floats; refused; {_ADVICE}")
    return dataset.dtype, dataset.shape, dataset.id.get_offset()


def _audit_attributes(path: Path, file: h5py.File) -> dict[str, int | str]:
    attributes: dict[str, int | str] = {}
    for name in file.attrs:
        identifier = h5py.h5a.open(file.id, name.encode())
        kind = identifier.get_type()
        variable = kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
        if variable or kind.get_class() not in (h5py.h5t.STRING, h5py.h5t.INTEGER):
            raise CorruptShard(f"{path}: attribute {name!r} is not a fixed-length text or integer; {_ADVICE}")
        if identifier.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
            raise CorruptShard(f"{path}: attribute {name!r} is larger than {_MAX_ATTRIBUTE_BYTES} bytes; {_ADVICE}")
        value = file.attrs[name]
        attributes[name] = value.decode() if isinstance(value, bytes) else int(value)
    return attributes


def _map(path: Path, layout: Mapping[str, tuple[np.dtype[Any], tuple[int, ...], int | None]]) -> dict[str, Array]:
    with atomic.storage_errors(path, "read"), path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays: dict[str, Array] = {}
    for name, (dtype, shape, offset) in layout.items():
        count = int(np.prod(shape, dtype=object))
        if count == 0:
            arrays[name] = np.empty(shape, dtype)
            continue
        if offset is None or offset + count * dtype.itemsize > len(memory):
            raise CorruptShard(f"{path}: {name!r} of shape {shape} does not fit into the file; {_ADVICE}")
        arrays[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
    return arrays
