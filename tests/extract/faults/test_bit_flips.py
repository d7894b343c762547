import random
from collections import Counter
from pathlib import Path

import pytest

from cache.verify import verify
from tests.extract.faults.whole_cache import damaged, files_of, make_whole_cache, outcome, statuses

NUM_FLIPS = 400
HEADER_BYTES = 2048  # HDF5's own structures stand there


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whole_cache(tmp_path_factory.getbasetemp() / "whole")


def choose_flips(cache: Path) -> list[tuple[str, Path, int]]:
    """Kind, file and bit of random flips: half outside HDF5, a quarter in HDF5's headers, a quarter anywhere in it."""
    generator = random.Random(0)
    files = files_of(cache)
    shards = [path for path in files if path.suffix == ".h5"]
    others = [path for path in files if path.suffix != ".h5"]
    flips = []
    for number in range(NUM_FLIPS):
        kind = ("other", "header", "other", "data")[number % 4]
        path = generator.choice(others if kind == "other" else shards)
        size = path.stat().st_size
        flips.append((kind, path, generator.randrange(8 * min(size, HEADER_BYTES if kind == "header" else size))))
    return flips


def flipped(path: Path, bit: int) -> bytes:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


def test_the_cache_holds_every_kind_of_file(cache: Path) -> None:
    names = {path.relative_to(cache).as_posix().split("-")[0] for path in files_of(cache)}
    assert {"plan.json", "plan", "settings.json", "resolved.json", "verified.json", "text/activity"} <= names
    for stream in ("frames", "visual_prompts", "joints"):
        assert {f"{stream}/shard", f"{stream}/fingerprint.json"} <= names
    reports = verify(cache, deep=True)
    assert [report.problems for report in reports.values()] == [[]] * 4
    assert all(report.failed.total() == 3 for name, report in reports.items() if name != "text")


@pytest.mark.slow
def test_no_flipped_bit_is_silent(cache: Path) -> None:
    whole = statuses(verify(cache, deep=True))
    found = []
    for kind, path, bit in choose_flips(cache):
        with damaged(path, flipped(path, bit)):
            found.append((outcome(cache, whole), kind, path.name, bit))
    assert [entry for entry in found if entry[0] == "changed"] == []
    counts = Counter((kind, told) for told, kind, _, _ in found)
    assert counts["header", "reported"] + counts["data", "reported"] == NUM_FLIPS // 2
    assert counts["other", "reported"] >= NUM_FLIPS // 2 - 5  # the rest: line breaks and the like
    assert outcome(cache, whole) == "unchanged"
