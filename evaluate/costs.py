"""What a run cost, from what its directory holds: epochs, time, memory, size of the trained weights.

Only what was written down is told; a key that no epoch has is left out. Trained parameters are counted in the header of
the checkpoint's weights, without reading them: frozen encoders are not stored with a run and not counted.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cache import atomic
from cache.errors import CorruptShard
from cache.run import Run

_GIGABYTE = 1e9


def costs(run: Run) -> dict[str, float]:
    """What is known, by the names of `evaluate.detail_tables`: seconds, clips_per_second, parameters and others."""
    rows = run.metrics()
    found: dict[str, float] = {"epochs": float(len(rows))} if rows else {}
    seconds = _column(rows, "seconds")
    if seconds:
        found |= {"seconds": math.fsum(seconds), "seconds_per_epoch": math.fsum(seconds) / len(seconds)}
    waiting = _column(rows, "data_seconds")
    if waiting:
        found["data_seconds"] = math.fsum(waiting)
    rates = [(row["clips_per_second"], row["seconds"]) for row in rows if {"clips_per_second", "seconds"} <= row.keys()]
    if rates and math.fsum(time for _, time in rates) > 0:
        total = math.fsum(time for _, time in rates)
        found["clips_per_second"] = math.fsum(rate * time for rate, time in rates) / total
    memory = _column(rows, "peak_memory_bytes")
    if memory:
        found["peak_memory_gigabytes"] = max(memory) / _GIGABYTE
    parameters = _num_parameters(run)
    return found | ({"parameters": float(parameters)} if parameters else {})


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row.get(key) is not None]


def _num_parameters(run: Run) -> int:
    """Values in the weights of the last checkpoint; 0 where there is none, or it cannot be read."""
    folder = run.path / "checkpoints"
    try:
        names = atomic.read_json(folder / "last.json")["files"]
        weights = [name for name in names if name.endswith(".safetensors") and not name.startswith("optimizer")]
        return sum(_num_values(folder / name) for name in weights)
    except (FileNotFoundError, CorruptShard, KeyError, TypeError, SafetensorError):
        return 0


def _num_values(path: Path) -> int:
    with safe_open(path, framework="numpy") as tensors:
        return sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118 (no mapping)
