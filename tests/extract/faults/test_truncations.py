import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cache import array_file, atomic, fingerprint
from cache.errors import CacheError, CorruptShard
from cache.plan import Plan
from cache.shard import read_shard
from cache.sidecar import Sidecar, read_sidecar, sidecars
from cache.store import FeatureStore
from cache.verify import verify
from tests.extract.faults.whole_cache import FORGETFUL, damaged, files_of, make_whole_cache, outcome, statuses

NUM_CUTS = 50


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whole_cache(tmp_path_factory.getbasetemp() / "whole")


def some_lengths(size: int, count: int) -> list[int]:
    """Shorter than `size`: the ends, and random ones."""
    return sorted({0, 1, 8, size // 2, size - 2, size - 1, *random.Random(size).sample(range(size), count)})


def reader_of(path: Path) -> Callable[[], object]:
    """Whatever reads a JSON file of a cache."""
    if path.name.startswith("plan"):
        return lambda: Plan.load(path.parent)
    if path.name == fingerprint.FILE_NAME:
        return lambda: fingerprint.load(path.parent)
    if path.name.startswith("shard"):
        return lambda: read_sidecar(path.parent, int(path.stem.split("-")[1]))
    return lambda: atomic.read_json(path)


def all_shards(cache: Path) -> list[tuple[Path, Sidecar]]:
    streams = ("frames", "visual_prompts", "joints")
    return [(cache / stream, sidecar) for stream in streams for sidecar in sidecars(cache / stream)]


def test_a_json_file_that_is_cut_anywhere_is_refused_by_its_reader(cache: Path) -> None:
    files = [path for path in files_of(cache) if path.suffix == ".json"]
    for path in files:
        read, content = reader_of(path), path.read_bytes()
        assert content.endswith(b"}\n")  # without the line break it is still whole
        with damaged(path, content[:-1]):
            read()
            for length in reversed(range(len(content) - 1)):
                os.truncate(path, length)
                with pytest.raises(CorruptShard):
                    read()


def test_a_shard_that_is_cut_anywhere_is_refused_with_its_sidecar_and_without(cache: Path) -> None:
    for folder, sidecar in all_shards(cache):
        path = folder / sidecar.file
        content = path.read_bytes()
        for length in some_lengths(len(content), NUM_CUTS):
            with damaged(path, content[:length]):
                with pytest.raises(CorruptShard, match=f"has {length} bytes"):
                    read_shard(folder, sidecar)
                with pytest.raises(CorruptShard):  # also without a size to compare: no read past the end of the file
                    array_file.read(path)


def test_a_text_file_that_is_cut_anywhere_is_refused(cache: Path) -> None:
    (path,) = (cache / "text").glob("*.h5")
    whole = statuses(verify(cache, deep=True))
    for length in some_lengths(path.stat().st_size, 10):
        with damaged(path, path.read_bytes()[:length]):
            assert outcome(cache, whole) == "reported"


def test_verify_reports_every_file_that_is_cut(cache: Path) -> None:
    for path in files_of(cache):
        content = path.read_bytes()
        for length in (0, len(content) // 2, len(content) - 2):
            with damaged(path, content[:length]):
                try:
                    problems = [line for report in verify(cache).values() for line in report.problems]
                except CacheError as error:
                    problems = [str(error)]
                assert any(path.name in line for line in problems), (path, length, problems)


def test_verify_notices_every_file_that_is_gone(cache: Path) -> None:
    whole = statuses(verify(cache, deep=True))
    for path in files_of(cache):
        with damaged(path, None):
            told = outcome(cache, whole)
        is_commit_mark = path.name.startswith(("shard", "activity")) and path.suffix == ".json"
        expected = "changed" if is_commit_mark else "unchanged" if path.name in FORGETFUL else "reported"
        assert told == expected, path


def test_a_lost_sidecar_is_work_that_is_left(cache: Path) -> None:
    with damaged(cache / "frames" / "shard-00001.json", None):
        report = verify(cache)["frames"]
        assert (report.left, report.problems) == (4, [])


def test_a_store_reads_no_shard_that_was_cut(cache: Path) -> None:
    folder, sidecar = all_shards(cache)[0]
    path = folder / sidecar.file
    with damaged(path, path.read_bytes()[:4096]):
        reader = FeatureStore.open(cache).frames
        with pytest.raises(CorruptShard, match=path.name):
            reader[reader.clip_ids[0]]
