"""Raw logits of one run on one split: all that evaluation ever reads.

Logits are stored as they left the model, in float32: rounded or squashed scores tie, and ties move mAP by points.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cache import array_file, atomic
from cache.errors import CorruptShard
from cache.manifest import TaskKind

SCHEMA_VERSION = 1
_TEXTS = ("task", "kind", "dataset", "protocol", "split", "run_name")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Logits and targets of n clips over C classes.

    Attributes:
        logits: (n, C) float32, raw.
        targets: (n,) int64 class indices (`single`) or (n, C) uint8 (`multi`).
        fingerprints: stream name -> sha256 of its fingerprint.
        groups: e.g. "subject" -> one value per clip, "" where unknown.
        skipped: clip id -> why it has no logits (failed extraction, no label).
        num_official: clips that the benchmark has in this split; None where that is not known.
        notices: what a reader must be told (random weights, best checkpoint chosen on test).
    """

    clip_ids: tuple[str, ...]
    logits: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64] | npt.NDArray[np.uint8]
    task: str
    kind: TaskKind
    class_names: tuple[str, ...]
    dataset: str
    protocol: str
    split: str
    run_name: str
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    num_official: int | None = None
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.clip_ids), len(self.class_names))
        if self.logits.shape != shape or self.logits.dtype != np.float32:
            raise ValueError(f"logits are {self.logits.dtype} {self.logits.shape}, expected float32 (n, C) = {shape}")
        expected = shape[:1] if self.kind == "single" else shape
        if self.targets.shape != expected:
            raise ValueError(
                f"targets of a {self.kind}-label task have shape {self.targets.shape}, expected {expected}"
            )
        if (
            self.kind == "single"
            and len(self.targets)
            and not (0 <= self.targets.min() <= self.targets.max() < shape[1])
        ):
            raise ValueError(f"targets must be class indices below {shape[1]}")
        bad = [self.clip_ids[row] for row in np.flatnonzero(~np.isfinite(self.logits).all(axis=1))]
        if bad:
            raise ValueError(f"logits of {len(bad)} clips are NaN or infinite, first {bad[:5]}; the model diverged")
        wrong = {name: len(values) for name, values in self.groups.items() if len(values) != shape[0]}
        if wrong:
            raise ValueError(f"groups must have one value per clip ({shape[0]}): {wrong}")

    def __repr__(self) -> str:
        n, num_classes = self.logits.shape
        return f"Predictions({self.run_name!r}, split={self.split!r}, task={self.task!r}, n={n}, C={num_classes})"

    def write(self, path: Path) -> None:
        """Writes one HDF5 file atomically."""
        arrays = {
            "logits": self.logits,
            "targets": self.targets,
            **array_file.pack_texts("clip_ids", self.clip_ids),
            **array_file.pack_texts("class_names", self.class_names),
            **array_file.pack_texts("about", [json.dumps(self._about(), ensure_ascii=False)]),
        }
        attributes = {"schema_version": SCHEMA_VERSION} | {name: getattr(self, name) for name in _TEXTS}
        atomic.write_bytes(path, array_file.build(arrays, attributes))

    def _about(self) -> dict[str, Any]:
        return {
            "fingerprints": dict(self.fingerprints),
            "groups": {name: list(values) for name, values in self.groups.items()},
            "skipped": dict(self.skipped),
            "num_official": self.num_official,
            "notices": list(self.notices),
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file written by `write`.

        Raises:
            CorruptShard: not a predictions file, or damaged.
        """
        arrays, attributes = array_file.read(path)
        try:
            about = json.loads(array_file.unpack_texts("about", arrays)[0])
            return cls(
                clip_ids=array_file.unpack_texts("clip_ids", arrays),
                logits=np.array(arrays["logits"]),
                targets=np.array(arrays["targets"]),
                class_names=array_file.unpack_texts("class_names", arrays),
                fingerprints=about["fingerprints"],
                groups={name: tuple(values) for name, values in about["groups"].items()},
                skipped=about["skipped"],
                num_official=about.get("num_official"),
                notices=tuple(about["notices"]),
                **{name: attributes[name] for name in _TEXTS},  # type: ignore[arg-type]
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CorruptShard(f"{path} is not a predictions file of this version: {error}") from error
