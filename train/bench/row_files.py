"""Rows to measure on: a made-up stream, or clips of an existing one; and the same rows in one raw file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache import fingerprint
from cache.errors import ConfigError
from cache.fingerprint import RANDOM_WEIGHTS, Fingerprint
from cache.rows import ClipRows
from cache.shard import write_shard
from cache.store import StreamReader

_NUM_SHARDS = 8
_STREAM = "visual_prompts"


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """n clips with F rows each, in the store and in one raw file."""

    reader: StreamReader
    clip_ids: tuple[str, ...]
    raw: np.memmap[tuple[int, ...], np.dtype[np.float16]]
    """(n, F, D), in the order of `clip_ids`."""


def make_stream(folder: Path, *, num_clips: int, num_frames: int, dim: int) -> StreamReader:
    """A stream of visual prompts of made-up numbers, (F, D) float16 for every clip, in up to eight shards."""
    mark = Fingerprint(
        stream=_STREAM,
        dtype="float16",
        model={"name": "made up", "weights": RANDOM_WEIGHTS},
        sampling={"num_frames": num_frames},
    )
    fingerprint.ensure(folder, mark)
    generator = np.random.default_rng(0)
    for number, clips in enumerate(np.array_split(np.arange(num_clips), min(_NUM_SHARDS, num_clips))):
        rows = [
            ClipRows(
                clip_id=f"clip-{clip:06d}",
                fields={_STREAM: generator.standard_normal((num_frames, dim), np.float32).astype(np.float16)},
                pts_seconds=np.arange(num_frames) / 10,
                frame_index=np.arange(num_frames),
            )
            for clip in clips
        ]
        write_shard(folder, number, _STREAM, rows, fingerprint=mark)
    return StreamReader(folder)


def choose_clips(reader: StreamReader, most: int) -> tuple[str, ...]:
    """Up to `most` clips with equally many rows: of the number of rows that most clips have, drawn evenly.

    Raises:
        ConfigError: no clip has rows.
    """
    counts = {clip_id: reader.num_rows(clip_id) for clip_id in reader}
    if not counts:
        raise ConfigError(f"{reader.folder} has no clip with rows: there is nothing to measure on")
    ((usual, _),) = Counter(counts.values()).most_common(1)
    alike = [clip_id for clip_id, count in counts.items() if count == usual]
    chosen = np.linspace(0, len(alike) - 1, min(most, len(alike))).round().astype(int)
    return tuple(alike[index] for index in chosen)


def store_rows(reader: StreamReader, clip_ids: Sequence[str], path: Path) -> StoredRows:
    """Copies the clips' rows into a raw file, which also brings both into the page cache."""
    first = reader[clip_ids[0]]
    with path.open("wb") as file:
        for clip_id in clip_ids:
            file.write(reader[clip_id].tobytes())
    raw: npt.NDArray[np.float16] = np.memmap(path, first.dtype, "r", shape=(len(clip_ids), *first.shape))
    assert isinstance(raw, np.memmap)
    return StoredRows(reader=reader, clip_ids=tuple(clip_ids), raw=raw)
