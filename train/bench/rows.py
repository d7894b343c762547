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

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from cache.sidecar import sidecars
from train.bench.row_files import StoredRows
from train.bench.row_ways import (
    DATALOADER,
    MEMMAP,
    OTHERS,
    STORE,
    Chunk,
    Loader,
    Rows,
    Way,
    Ways,
    batch_ways,
    check_equal,
    draw_chunks,
    h5py_slices,
    single_ways,
)

_PASSES = 4
"""Over all clips in one round; of the DataLoader one."""
_CPU = torch.device("cpu")


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
        CorruptShard: two ways read different rows.
    """
    num_clips = len(rows.clip_ids)
    if not 1 <= batch_size <= num_clips:
        raise ValueError(f"batches of {batch_size} clips out of {num_clips}: give more clips or smaller batches")
    found, clock = [], _Clock()
    with ExitStack() as stack:
        slices, loader = h5py_slices(rows.reader, stack), Loader(rows, workers)
        singles, batches = single_ways(rows, slices), batch_ways(rows, slices, device)
        for number in range(-1, repeats):  # the first round warms up: views are made, workers start
            chunks = draw_chunks(rows.clip_ids, batch_size, seed=number + 1)
            for ways in (singles, batches) if number < 0 else ():
                check_equal(ways, chunks[0])
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


class _Clock:
    """Times ways of reading in turns, and how much of a core they had."""

    def __init__(self) -> None:
        self._seconds = self._core_seconds = 0.0
        self._held: dict[str, Rows | Tensor] = {}

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
                turns[way].append(self._time(way, ways[way], chunk) / len(chunk.indices))
        return {way: median(seconds) for way, seconds in turns.items()}

    def _time(self, name: str, way: Way, chunk: Chunk) -> float:
        """Seconds; what was read is held until the same way has read the next, as a step holds its batch."""
        core_start, start = time.thread_time(), time.perf_counter()
        rows = way(chunk)
        seconds = time.perf_counter() - start
        self._core_seconds += time.thread_time() - core_start
        self._seconds += seconds
        self._held[name] = rows
        return seconds
