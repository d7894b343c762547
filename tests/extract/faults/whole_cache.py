"""A cache with everything that a cache can hold, made by the real extraction, for tests that damage it."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from cache.errors import CacheError
from cache.plan import Plan
from cache.store import FeatureStore
from cache.verify import StreamReport, verify
from extract.extractor import extract
from tests.extract.kitchen import make_config, make_dataset

NUM_FIRST = 5
FORGETFUL = {"settings.json", "resolved.json", "sources.json", "verified.json"}
"""Files that only remember: without them nothing of the content is lost."""


def make_whole_cache(folder: Path) -> Path:
    """All streams and the text, failed clips, a plan of two files, settings, remembered fingerprints and checks.

    A cache that stands there from an earlier call is returned as it is: tests put back what they damage.
    """
    cache = folder / "cache"
    if not cache.exists():
        dataset = make_dataset(folder, num_plain=2)
        config = make_config(folder, "frames", "visual_prompts", "joints", "text", shard_size=NUM_FIRST)
        config = replace(config, pose=replace(config.pose, model="hrnet_w8_tiny"))
        Plan.ensure(cache, sorted(clip.id for clip in dataset.clips)[:NUM_FIRST], NUM_FIRST)
        extract(dataset, cache, config)
        FeatureStore.open(cache).verify_once()
    return cache


def files_of(cache: Path) -> list[Path]:
    """All files with content, sorted; locks have none."""
    return [path for path in sorted(cache.rglob("*")) if path.is_file() and path.stat().st_size]


@contextlib.contextmanager
def damaged(path: Path, content: bytes | None) -> Iterator[None]:
    """Puts other bytes in the place of a file, or none, and puts it back afterwards."""
    before = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def statuses(reports: Mapping[str, StreamReport]) -> dict[str, tuple[object, ...]]:
    """Content and counts of every stream."""
    return {
        name: (report.rows, report.ok, report.failed, report.left, report.content_sha256)
        for name, report in reports.items()
    }


def outcome(cache: Path, whole: Mapping[str, tuple[object, ...]]) -> str:
    """What `verify --deep` says: `reported`, else `changed` or `unchanged` against the statuses of the whole cache."""
    try:
        reports = verify(cache, deep=True)
    except CacheError:
        return "reported"
    if any(report.problems for report in reports.values()):
        return "reported"
    return "unchanged" if statuses(reports) == whole else "changed"
