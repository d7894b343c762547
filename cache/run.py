"""A run directory: what was trained, how it went, and the logits that came out.

    RUN/run.json            who and what: method, task, seed, fingerprints, versions, notices, status
    RUN/config.json         the resolved configuration
    RUN/metrics.jsonl       one object an epoch
    RUN/checkpoints/        owned by train.checkpoint
    RUN/predictions/<split>.h5
    RUN/explanations/<split>.h5    what the run did inside for some clips; only if it was asked for

Reading a run needs no torch: `evaluate` lives on this file alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from cache import atomic
from cache.errors import CacheError, CorruptShard
from cache.explanation import Explanation
from cache.explanation_file import read_explanation
from cache.predictions import Predictions

RunStatus = Literal["running", "finished"]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The body of `run.json`.

    `dataset_folder` and `cache_folder` are where training found them; both can be rebound on the command line.
    """

    name: str
    method: str
    variant: str
    task: str
    dataset: str
    protocol: str
    seed: int
    recipe: str
    dataset_folder: str
    cache_folder: str
    notices: tuple[str, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    status: RunStatus = "running"


class Run:
    """A run directory opened by `open` or `create`."""

    def __init__(self, path: Path, info: RunInfo, config: Mapping[str, Any]) -> None:
        self.path = path
        self.info = info
        self.config = config

    def __repr__(self) -> str:
        return f"Run({self.info.name!r}, {self.info.method} {self.info.variant}, {self.info.status})"

    @classmethod
    def create(cls, path: Path, info: RunInfo, config: Mapping[str, Any]) -> Self:
        """Makes a new run directory.

        Raises:
            CacheError: the directory holds a run already.
        """
        if (path / "run.json").exists():
            raise CacheError(f"{path} holds a run already; continue it, or choose another --run")
        atomic.write_json(path / "config.json", config)
        run = cls(path, info, config)
        run._write_info()
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens an existing run directory.

        Raises:
            CacheError: there is no run.
            CorruptShard: run.json or config.json is damaged.
        """
        try:
            body, config = atomic.read_json(path / "run.json"), atomic.read_json(path / "config.json")
        except FileNotFoundError as error:
            raise CacheError(
                f"{path} is not a run directory ({error.filename} is absent); make one with `deconfound train`"
            ) from None
        known = {entry.name for entry in fields(RunInfo)}
        if not known >= body.keys():
            raise CorruptShard(f"{path / 'run.json'} has unknown keys {sorted(body.keys() - known)}")
        return cls(path, RunInfo(**{**body, "notices": tuple(body.get("notices", ()))}), config)

    def update(self, **changes: Any) -> None:  # noqa: ANN401 (the fields of RunInfo)
        """Replaces fields of `run.json`."""
        self.info = replace(self.info, **changes)
        self._write_info()

    def replace_config(self, config: Mapping[str, Any]) -> None:
        """Replaces `config.json`, for a run that goes on with other settings of memory and time."""
        atomic.write_json(self.path / "config.json", config)
        self.config = config

    def _write_info(self) -> None:
        atomic.write_json(self.path / "run.json", asdict(self.info))

    @property
    def metrics_path(self) -> Path:
        """`metrics.jsonl`."""
        return self.path / "metrics.jsonl"

    def metrics(self) -> list[dict[str, Any]]:
        """One row an epoch; of an epoch that was run twice after a stop, the last row."""
        if not self.metrics_path.exists():
            return []
        rows: dict[int, dict[str, Any]] = {}
        for line in self.metrics_path.read_text().splitlines():
            try:
                row = json.loads(line)
                rows[row["epoch"]] = row
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # a kill can leave half a line; the epoch is repeated on resume
        return [rows[epoch] for epoch in sorted(rows)]

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds one epoch to `metrics.jsonl`, on a line of its own also after half a line that a kill left."""
        with self.metrics_path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            separator = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.write(separator + json.dumps(dict(row)).encode() + b"\n")

    def predictions_path(self, split: str) -> Path:
        """`predictions/<split>.h5`."""
        return self.path / "predictions" / f"{split}.h5"

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have predictions."""
        return tuple(sorted(path.stem for path in (self.path / "predictions").glob("*.h5")))

    def predictions(self, split: str) -> Predictions:
        """Logits of one split.

        Raises:
            CacheError: that split was not predicted; says what to run.
        """
        path = self.predictions_path(split)
        if not path.exists():
            raise CacheError(
                f"{self.path} has no predictions for split {split!r} (it has {list(self.splits)}); "
                f"run `deconfound predict {self.path} --split {split}`"
            )
        return Predictions.read(path)

    def explanation_path(self, split: str) -> Path:
        """`explanations/<split>.h5`."""
        return self.path / "explanations" / f"{split}.h5"

    def explanation(self, split: str) -> Explanation | None:
        """What the run did inside for some clips of a split; None if nobody asked for it.

        Raises:
            CorruptShard: the file is damaged.
        """
        path = self.explanation_path(split)
        return read_explanation(path) if path.exists() else None
