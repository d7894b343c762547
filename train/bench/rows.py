"""How fast cached rows are here, against raw np.memmap, h5py and a DataLoader with workers.

    deconfound bench cache --json

Two questions, each in random order on a warm page cache, every row copied: clips one by one, and batches. In a round
all ways take turns, a batch (or as many single clips) each, in random order and not on rows that another has just read;
what counts is the median of these turns, and then the median over rounds. So what else runs on the machine slows down
all of them, and what interrupts a turn counts for nothing. Only the DataLoader, which works ahead, is timed over a
whole round. The decision to question: np.memmap is asked by row number and the store by clip id, as each would be used;
looking ids up is in the store's time.

    ratio_to_memmap       seconds of the store over those of `np.array(raw[i])`, or of `raw[indices]` for batches
    ratio_to_h5py         over those of h5py slicing the same shards, kept open, rows stacked for a batch
    ratio_to_dataloader   over those of a torch DataLoader with workers that read the same store
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cache.sidecar import sidecars
from cache.store import StreamReader
from train.bench.row_files import StoredRows
from train.row_table import RowTable

STORE, MEMMAP, H5PY, DATALOADER = "store", "memmap", "h5py", "dataloader"
OTHERS = (MEMMAP, H5PY, DATALOADER)
_PASSES = 4
"""Over all clips in one round; of the DataLoader one."""
_LOADER_CHUNKS = 8
"""That the DataLoader reads clip by clip: it takes longer than all else together."""
_CPU = torch.device("cpu")

Slices = Mapping[str, tuple[h5py.Dataset, int, int]]
"""Clip id -> the dataset of its shard, kept open, its first row and the one after its last."""
Ways = Mapping[str, Callable[["Chunk"], None]]
"""Ways of reading a chunk, by name."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """As many clips as a batch has, in the words of every way of reading."""

    numbers: npt.NDArray[np.int64]
    indices: list[int]
    clip_ids: list[str]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds for one clip, by way of reading, in every round."""

    rounds: tuple[dict[str, float], ...]

    @property
    def ways(self) -> tuple[str, ...]:
        """The store first."""
        return tuple(self.rounds[0])

    def ratios(self, way: str, other: str) -> list[float]:
        """Seconds of one way over those of another, by round."""
        return [seconds[way] / seconds[other] for seconds in self.rounds]

    def clips_per_second(self, way: str) -> float:
        """Median over the rounds."""
        return median(1 / seconds[way] for seconds in self.rounds)

    def to_json(self) -> dict[str, Any]:
        """Ratios of the store to each other way, their medians on top, and clips a second."""
        ratios = {f"ratio_to_{other}": self.ratios(STORE, other) for other in OTHERS}
        return {
            **{key: median(values) for key, values in ratios.items()},
            "ratios": ratios,
            "clips_per_second": {way: self.clips_per_second(way) for way in self.ways},
        }


@dataclass(frozen=True, kw_only=True)
class RowsBench:
    """What was measured.

    Attributes:
        facts: clips, frames, dim, bytes_per_clip, shards, batch_size, repeats, workers, device.
        single: clips one by one.
        batches: the same in batches; also by the tables that training reads, wherever they live.
        core_share: processor time over time while reading; below 1 others run here too.
    """

    facts: dict[str, Any]
    single: Timing
    batches: Timing
    core_share: float

    @property
    def tables(self) -> tuple[str, ...]:
        """Where tables of training live, as train.features names it."""
        return tuple(way for way in self.batches.ways if way not in (STORE, *OTHERS))

    def to_json(self) -> dict[str, Any]:
        """Plain values; on top are the ratios of clips one by one."""
        ratios = {name: self.batches.ratios(name, MEMMAP) for name in self.tables}
        training = {name: {"ratio_to_memmap": median(values), "ratios": values} for name, values in ratios.items()}
        batches = {**self.batches.to_json(), "training": training}
        return {**self.facts, "core_share": self.core_share, **self.single.to_json(), "batches": batches}


def bench_rows(
    rows: StoredRows,
    *,
    batch_size: int = 64,
    repeats: int = 11,
    workers: int = 2,
    device: torch.device = _CPU,
    progress: Callable[[], None] = lambda: None,
) -> RowsBench:
    """Measures all ways of reading.

    Args:
        rows: what is read.
        batch_size: clips of a batch; a smaller rest is not read.
        repeats: rounds.
        workers: processes of the DataLoader.
        device: where else than in RAM a table of training is measured, if it is not the CPU.
        progress: called once per round.

    Raises:
        ValueError: fewer clips than a batch takes.
    """
    num_clips = len(rows.clip_ids)
    if not 1 <= batch_size <= num_clips:
        raise ValueError(f"batches of {batch_size} clips out of {num_clips}: give more clips or smaller batches")
    found, clock = [], _Clock()
    with ExitStack() as stack:
        slices, loader = _h5py_slices(rows.reader, stack), _Loader(rows, workers)
        singles, batches = _single_ways(rows, slices), _batch_ways(rows, slices, device)
        for number in range(-1, repeats):  # the first round warms up: views are made, workers start
            chunks = _chunks(rows.clip_ids, batch_size, seed=number + 1)
            found.append((clock.measure(singles, chunks), clock.measure(batches, chunks)))
            for seconds, one_by_one in zip(found[-1], (True, False), strict=True):
                seconds[DATALOADER] = loader.seconds(chunks, one_by_one=one_by_one)
            progress()
    single, batch = zip(*found[1:], strict=True)
    facts = {
        "clips": num_clips,
        "frames": rows.raw.shape[1],
        "dim": rows.raw.shape[-1],
        "bytes_per_clip": rows.raw.nbytes // num_clips,
        "shards": len(sidecars(rows.reader.folder)),
        "batch_size": batch_size,
        "repeats": repeats,
        "workers": workers,
        "device": str(device),
    }
    return RowsBench(
        facts=facts, single=Timing(rounds=single), batches=Timing(rounds=batch), core_share=clock.core_share
    )


def _chunks(clip_ids: Sequence[str], size: int, *, seed: int) -> list[Chunk]:
    """A random order in pieces of `size` clips; a smaller rest is left out."""
    order = np.random.default_rng(seed).permutation(len(clip_ids))
    pieces = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    return [
        Chunk(numbers=piece, indices=piece.tolist(), clip_ids=[clip_ids[number] for number in piece.tolist()])
        for piece in pieces
    ]


class _Clock:
    """Times ways of reading in turns, and how much of a core they had."""

    def __init__(self) -> None:
        self._seconds = self._core_seconds = 0.0

    @property
    def core_share(self) -> float:
        """Over all turns."""
        return self._core_seconds / self._seconds

    def measure(self, ways: Ways, chunks: Sequence[Chunk]) -> dict[str, float]:
        """Median seconds for one clip, by way; each reads every chunk once per pass."""
        turns: dict[str, list[float]] = {way: [] for way in ways}
        apart = max(1, len(chunks) // len(ways))
        order = [(way, number * apart) for number, way in enumerate(ways)]
        shuffle = random.Random(0).shuffle
        for position in range(_PASSES * len(chunks)):
            shuffle(order)
            for way, distance in order:
                chunk = chunks[(position + distance) % len(chunks)]
                turns[way].append(self._time(ways[way], chunk) / len(chunk.indices))
        return {way: median(seconds) for way, seconds in turns.items()}

    def _time(self, way: Callable[[Chunk], None], chunk: Chunk) -> float:
        core_start, start = time.thread_time(), time.perf_counter()
        way(chunk)
        seconds = time.perf_counter() - start
        self._core_seconds += time.thread_time() - core_start
        self._seconds += seconds
        return seconds


def _single_ways(rows: StoredRows, slices: Slices) -> Ways:
    reader, raw = rows.reader, rows.raw

    def store(chunk: Chunk) -> None:
        for clip_id in chunk.clip_ids:
            _ = np.array(reader[clip_id])

    def memmap(chunk: Chunk) -> None:
        for index in chunk.indices:
            _ = np.array(raw[index])

    def by_h5py(chunk: Chunk) -> None:
        for clip_id in chunk.clip_ids:
            dataset, start, stop = slices[clip_id]
            _ = dataset[start:stop]

    return {STORE: store, MEMMAP: memmap, H5PY: by_h5py}


def _batch_ways(rows: StoredRows, slices: Slices, device: torch.device) -> Ways:
    reader, raw = rows.reader, rows.raw
    held: dict[str, Any] = {}  # as in training: a batch lives until the next one of its way is there

    def store(chunk: Chunk) -> None:
        held[STORE] = reader.batch(chunk.clip_ids)

    def memmap(chunk: Chunk) -> None:
        held[MEMMAP] = raw[chunk.numbers]

    def by_h5py(chunk: Chunk) -> None:
        places = map(slices.__getitem__, chunk.clip_ids)
        held[H5PY] = np.stack([dataset[start:stop] for dataset, start, stop in places])

    tables = {name: _table_way(table, device, held) for name, table in _tables(rows, device).items()}
    return {STORE: store, MEMMAP: memmap, H5PY: by_h5py, **tables}


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


def _table_way(table: RowTable, device: torch.device, held: dict[str, Any]) -> Callable[[Chunk], None]:
    """A batch where the step needs it."""

    def read(chunk: Chunk) -> None:
        held[table.name] = table.take(torch.from_numpy(chunk.numbers)).to(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return read


def _h5py_slices(reader: StreamReader, stack: ExitStack) -> Slices:
    slices = {}
    for sidecar in sidecars(reader.folder):
        file = stack.enter_context(h5py.File(reader.folder / sidecar.file, "r", locking=False))
        bounds = itertools.pairwise(itertools.accumulate((clip.num_rows for clip in sidecar.clips), initial=0))
        for clip, (start, stop) in zip(sidecar.clips, bounds, strict=True):
            slices[clip.id] = (file[reader.stream], start, stop)
    return slices


class _Loader:
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
