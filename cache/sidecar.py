"""The `.json` beside a shard: the mark that commits it, and all that is needed to know it without opening it.

No sidecar means that the shard does not exist. Its `file` names the shard's bytes, so that replacing the sidecar
switches from one file to another in one step.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache import atomic
from cache.errors import CorruptShard, FailureCode
from cache.rows import Failure

SCHEMA_VERSION = 1
SHARD_NAME = re.compile(r"shard-(\d{5,})-[0-9a-f]{8}\.h5")
_SIDECAR_NAME = re.compile(r"shard-(\d{5,})\.json")


@dataclass(frozen=True, kw_only=True)
class SidecarClip:
    """One clip of a shard: its id, number of rows, crc32 of their bytes, its failure if it has none, and its source.

    `reduced_batch`: see Provenance. It is written only where it is not 0, so that all other sidecars stay as they were.
    """

    id: str
    num_rows: int
    crc32: int
    failure: Failure | None = None
    source_size: int = 0
    source_sha256: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None
    reduced_batch: int = 0


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The `.json` beside a shard: the commit mark, with what is needed to know the shard without opening it."""

    stream: str
    number: int
    file: str
    size_bytes: int
    sha256: str
    fingerprint_sha256: str
    clips: tuple[SidecarClip, ...]
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return asdict(self) | {"clips": [_clip_to_json(clip) for clip in self.clips]}


def sidecar_path(folder: Path, number: int) -> Path:
    """`folder/shard-00017.json`, which names `shard-00017-<first 8 digits of its sha256>.h5`."""
    return folder / f"shard-{number:05d}.json"


def read_sidecar(folder: Path, number: int) -> Sidecar | None:
    """The sidecar of a shard, or None if the shard was never committed.

    Raises:
        CorruptShard: the file is damaged.
    """
    path = sidecar_path(folder, number)
    try:
        body = atomic.read_json(path, advice="delete it; the shard is made again")
    except FileNotFoundError:
        return None
    return _sidecar_from_json(path, body)


def sidecars(folder: Path) -> list[Sidecar]:
    """All committed shards of a stream folder, by number."""
    found = (read_sidecar(folder, number) for number in shard_numbers(folder))
    return [sidecar for sidecar in found if sidecar is not None]


def shard_numbers(folder: Path) -> list[int]:
    """Numbers of the shards that have a sidecar; other files that lie there are not ours."""
    matches = (_SIDECAR_NAME.fullmatch(path.name) for path in folder.glob("shard-*.json"))
    return sorted(int(match[1]) for match in matches if match)


def _sidecar_from_json(path: Path, body: Mapping[str, Any]) -> Sidecar:
    if body.get("schema_version") != SCHEMA_VERSION:
        raise CorruptShard(f"{path}: schema_version {body.get('schema_version')}; this version reads {SCHEMA_VERSION}")
    try:
        clips = tuple(SidecarClip(**{**clip, "failure": _failure_from_json(clip["failure"])}) for clip in body["clips"])
        if not SHARD_NAME.fullmatch(body["file"]):
            raise ValueError(f"file {body['file']!r} is not the name of a shard")
        return Sidecar(**{**body, "clips": clips})
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptShard(f"{path} is not a sidecar of this version: {error}") from error


def _clip_to_json(clip: SidecarClip) -> dict[str, Any]:
    body = asdict(clip)
    if not clip.reduced_batch:
        del body["reduced_batch"]
    return body


def _failure_from_json(body: Mapping[str, str] | None) -> Failure | None:
    return None if body is None else Failure(code=FailureCode(body["code"]), message=body["message"])
