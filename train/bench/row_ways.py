"""The ways of reading rows that `bench cache` compares."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cache.errors import CorruptShard
from cache.sidecar import sidecars
from cache.store import StreamReader
from train.bench.row_files import StoredRows
from train.row_table import RowTable

STORE, MEMMAP, H5PY, DATALOADER = "store", "memmap", "h5py", "dataloader"
OTHERS = (MEMMAP, H5PY, DATALOADER)
_LOADER_CHUNKS = 8
"""That the DataLoader reads clip by clip: it takes longer than all else together."""
_CPU = torch.device("cpu")

Slices = Mapping[str, tuple[h5py.Dataset, int, int]]
"""Clip id -> the dataset of its shard, kept open, its first row and the one after its last."""
Rows = npt.NDArray[Any]
Way = Callable[["Chunk"], "Rows | Tensor"]
"""Reads a chunk; returns the batch, or the last clip."""
Ways = Mapping[str, Way]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """As many clips as a batch has, in the words of every way of reading."""

    numbers: npt.NDArray[np.int64]
    indices: list[int]
    clip_ids: list[str]


def draw_chunks(clip_ids: Sequence[str], size: int, *, seed: int) -> list[Chunk]:
    """A random order in pieces of `size` clips; a smaller rest is left out."""
    order = np.random.default_rng(seed).permutation(len(clip_ids))
    pieces = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    return [
        Chunk(numbers=piece, indices=piece.tolist(), clip_ids=[clip_ids[number] for number in piece.tolist()])
        for piece in pieces
    ]


def single_ways(rows: StoredRows, slices: Slices) -> Ways:
    """Clips one by one, each copied."""
    reader, raw = rows.reader, rows.raw

    def store(chunk: Chunk) -> Rows:
        for clip_id in chunk.clip_ids:
            last = np.array(reader[clip_id])
        return last

    def memmap(chunk: Chunk) -> Rows:
        for index in chunk.indices:
            last = np.array(raw[index])
        return last

    def by_h5py(chunk: Chunk) -> Rows:
        for clip_id in chunk.clip_ids:
            dataset, start, stop = slices[clip_id]
            last = dataset[start:stop]
        return last

    return {STORE: store, MEMMAP: memmap, H5PY: by_h5py}


def batch_ways(rows: StoredRows, slices: Slices, device: torch.device) -> Ways:
    """A chunk as one array; also by tables of training, where `device` needs them."""
    reader, raw = rows.reader, rows.raw

    def by_h5py(chunk: Chunk) -> Rows:
        return np.stack([dataset[start:stop] for dataset, start, stop in map(slices.__getitem__, chunk.clip_ids)])

    ways: Ways = {
        STORE: lambda chunk: reader.batch(chunk.clip_ids),
        MEMMAP: lambda chunk: raw[chunk.numbers],
        H5PY: by_h5py,
    }
    return {**ways, **{name: _table_way(table, device) for name, table in _tables(rows, device).items()}}


def _tables(rows: StoredRows, device: torch.device) -> dict[str, RowTable]:
    """What training reads with frozen tokens, by the values of train.features."""

    def read(numbers: Sequence[int]) -> Tensor:
        return torch.from_numpy(rows.reader.batch([rows.clip_ids[number] for number in numbers]))

    places = {"memory_map": None, "ram": _CPU} | ({} if device.type == "cpu" else {"device": device})
    tables = {name: RowTable(name, len(rows.clip_ids), read) for name in places}
    for name, place in places.items():
        if place is not None:
            tables[name].load(place)
    return tables


def _table_way(table: RowTable, device: torch.device) -> Way:
    """A batch where the step needs it."""

    def read(chunk: Chunk) -> Tensor:
        batch = table.take(torch.from_numpy(chunk.numbers)).to(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return batch

    return read


def check_equal(ways: Ways, chunk: Chunk) -> None:
    """Whoever is fast with other rows has not won."""
    found = {name: np.asarray(torch.as_tensor(way(chunk)).cpu()) for name, way in ways.items()}
    for name, rows in found.items():
        if not np.array_equal(rows, found[MEMMAP]):
            raise CorruptShard(f"{name} read other rows than {MEMMAP} did: run `deconfound verify --deep` on the cache")


def h5py_slices(reader: StreamReader, stack: ExitStack) -> Slices:
    """Where h5py finds every clip; `stack` closes the files."""
    slices = {}
    for sidecar in sidecars(reader.folder):
        file = stack.enter_context(h5py.File(reader.folder / sidecar.file, "r", locking=False))
        bounds = itertools.pairwise(itertools.accumulate((clip.num_rows for clip in sidecar.clips), initial=0))
        for clip, (start, stop) in zip(sidecar.clips, bounds, strict=True):
            slices[clip.id] = (file[reader.stream], start, stop)
    return slices


class Loader:
    """A torch DataLoader over clips of the store, with workers that live as long as it does."""

    def __init__(self, rows: StoredRows, workers: int) -> None:
        self._order: list[Any] = []
        self._loader = DataLoader(
            _Clips(rows.reader, rows.clip_ids),
            batch_size=None,  # the sampler gives one number, or a list of them for a batch
            sampler=_Given(self._order),
            num_workers=workers,
            multiprocessing_context="spawn",
            persistent_workers=True,
        )

    def seconds(self, chunks: Sequence[Chunk], *, one_by_one: bool) -> float:
        """For one row, of some chunks clip by clip or of all chunks as batches."""
        chunks = chunks[:_LOADER_CHUNKS] if one_by_one else chunks
        order = [chunk.indices for chunk in chunks]
        self._order[:] = itertools.chain(*order) if one_by_one else order
        start = time.perf_counter()
        for _ in self._loader:
            pass
        return (time.perf_counter() - start) / sum(map(len, order))


class _Clips(Dataset[Tensor]):
    """Rows by clip number."""

    def __init__(self, reader: StreamReader, clip_ids: Sequence[str]) -> None:
        self._reader, self._clip_ids = reader, clip_ids

    def __getitem__(self, index: int | list[int]) -> Tensor:
        if isinstance(index, int):
            return torch.from_numpy(np.array(self._reader[self._clip_ids[index]]))
        return torch.from_numpy(self._reader.batch([self._clip_ids[number] for number in index]))


class _Given(Sampler[Any]):
    """An order that is changed between passes."""

    def __init__(self, order: list[Any]) -> None:
        self._given = order

    def __iter__(self) -> Iterator[Any]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)
