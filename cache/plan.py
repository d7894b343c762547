"""Which clip goes into which shard: fixed once, identical for every worker that computes it.

`plan.json` holds the sorted ids of the first extraction; a dataset that has grown adds `plan-0001.json` and so on. No
file is ever rewritten, and each is a pure function of ids and settings, so a hundred tasks may start at once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cache import atomic
from cache.errors import CacheError, CorruptShard

_ADVICE = "put it back from a copy, or extract into another cache folder"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Shards by number, each with its sorted clip ids."""

    shards: Mapping[int, tuple[str, ...]]

    @property
    def num_clips(self) -> int:
        """How many clips are planned."""
        return sum(len(ids) for ids in self.shards.values())

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """All planned ids, by shard."""
        return tuple(clip_id for ids in self.shards.values() for clip_id in ids)

    @classmethod
    def load(cls, cache: Path) -> Self:
        """Reads all plan files of a cache.

        Raises:
            CacheError: there is no plan: the folder is not a cache.
        """
        shards: dict[int, tuple[str, ...]] = {}
        for path in _plan_files(cache):
            shards |= _shards_of(path, atomic.read_json(path, advice=_ADVICE), first=len(shards))
        if not shards:
            raise CacheError(f"{cache} is not a cache (no plan.json); make one with `deconfound extract`")
        return cls(shards=shards)

    @classmethod
    def ensure(cls, cache: Path, clip_ids: Iterable[str], shard_size: int) -> Self:
        """Creates the plan, or extends it by ids that it does not hold yet.

        Args:
            cache: the cache folder, created if absent.
            clip_ids: ids of the dataset at hand; planned ids that are not among them stay.
            shard_size: clips a shard, for new shards.
        """
        return cls._extend(cache, clip_ids, shard_size, create=True)

    @classmethod
    def preview(cls, cache: Path, clip_ids: Iterable[str], shard_size: int) -> Self:
        """What `ensure` would give; nothing is written."""
        return cls._extend(cache, clip_ids, shard_size, create=False)

    @classmethod
    def _extend(cls, cache: Path, clip_ids: Iterable[str], shard_size: int, *, create: bool) -> Self:
        wanted = set(clip_ids)
        while True:
            files = _plan_files(cache)
            shards = dict(cls.load(cache).shards) if files else {}
            new = sorted(wanted - {clip_id for ids in shards.values() for clip_id in ids})
            if not new:
                return cls(shards=shards)
            body = {
                "schema_version": 1,
                "first_shard": len(shards),
                "shard_size": shard_size,
                "clip_ids": new,
            }
            name = "plan.json" if not files else f"plan-{len(files):04d}.json"
            if not create:
                return cls(shards=shards | _shards_of(cache / name, body, first=len(shards)))
            # Losing the race is fine: the loop reads what the winner wrote and adds only what is still missing.
            atomic.create_bytes(cache / name, atomic.encode_json(body))


def _plan_files(cache: Path) -> list[Path]:
    return [path for path in (cache / "plan.json",) if path.exists()] + sorted(cache.glob("plan-*.json"))


def _shards_of(path: Path, body: Mapping[str, Any], *, first: int) -> dict[int, tuple[str, ...]]:
    if body.get("first_shard") != first:
        raise CorruptShard(
            f"{path} begins at shard {body.get('first_shard')}, expected {first}: a plan file is missing; {_ADVICE}"
        )
    ids, size = body["clip_ids"], body["shard_size"]
    starts = range(0, len(ids), size)
    return {first + number: tuple(ids[start : start + size]) for number, start in enumerate(starts)}
