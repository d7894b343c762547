"""Commits of shards that are not whole, and of shards that several processes grow at once."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from cache import file_lock, fingerprint
from cache.errors import CacheError, FailureCode, StorageError
from cache.rows import ClipRows, Failure
from cache.sidecar import read_sidecar
from cache.store import StreamReader
from cache.verify import verify
from extract.shards import collector as collectors
from extract.shards.collector import Collector
from extract.shards.work import ShardTask
from tests.toys import toy_cache, toy_dataset, toy_fingerprint, visual_prompt_rows

STREAM = "visual_prompts"
MARK = toy_fingerprint(STREAM)


def make_collector(cache: Path, *shards: Iterable[str]) -> Collector:
    """For shards 0, 1, ... that lack these clips."""
    fingerprint.ensure(cache / STREAM, MARK)
    tasks = {
        number: ShardTask(number=number, missing={STREAM: frozenset(clip_ids)})
        for number, clip_ids in enumerate(shards)
    }
    shard_of = {clip_id: number for number, task in tasks.items() for clip_id in task.clip_ids}
    return Collector(cache, {STREAM: MARK}, tasks, shard_of)


def committed(cache: Path, number: int = 0) -> list[str]:
    sidecar = read_sidecar(cache / STREAM, number)
    return [clip.id for clip in sidecar.clips] if sidecar else []


def add(collector: Collector, clip_ids: Iterable[str]) -> None:
    for clip_id in clip_ids:
        collector.add(STREAM, visual_prompt_rows(clip_id))


def test_a_shard_is_committed_when_the_last_of_its_clips_comes_in_any_order(tmp_path: Path) -> None:
    collector = make_collector(tmp_path, "abc", "de")
    add(collector, "cda")
    assert (committed(tmp_path), committed(tmp_path, 1)) == ([], [])
    add(collector, "e")
    assert (committed(tmp_path), committed(tmp_path, 1)) == ([], ["d", "e"])
    add(collector, "b")
    assert committed(tmp_path) == ["a", "b", "c"]
    assert collector.commit_ready() == 0


def test_what_has_come_can_be_committed_early_and_the_rest_later(tmp_path: Path) -> None:
    collector = make_collector(tmp_path, "abc", "de", "f")
    add(collector, "bd")
    assert collector.commit_ready() == 2
    assert (committed(tmp_path), committed(tmp_path, 1), committed(tmp_path, 2)) == (["b"], ["d"], [])
    add(collector, "c")
    assert committed(tmp_path) == ["b"]
    assert collector.commit_ready() == 1
    add(collector, "ae")
    assert (committed(tmp_path), committed(tmp_path, 1)) == (["a", "b", "c"], ["d", "e"])
    whole = make_collector(tmp_path / "whole", "abc", "de")
    add(whole, "abcde")
    assert read_sidecar(tmp_path / STREAM, 0) == read_sidecar(tmp_path / "whole" / STREAM, 0)


def test_a_clip_counts_once_however_many_streams_it_is_in(tmp_path: Path) -> None:
    marks = {name: toy_fingerprint(name) for name in ("frames", STREAM)}
    task = ShardTask(number=0, missing={name: frozenset("ab") for name in marks})
    for name, mark in marks.items():
        fingerprint.ensure(tmp_path / name, mark)
    collector = Collector(tmp_path, marks, {0: task}, {"a": 0, "b": 0})
    failure = Failure(code=FailureCode.MISSING, message="no such file")
    collector.add("frames", ClipRows.failed("a", failure))
    collector.add(STREAM, ClipRows.failed("a", failure))
    collector.add("frames", ClipRows.failed("b", failure))  # frames are whole, and committed
    assert read_sidecar(tmp_path / "frames", 0) is not None
    assert collector.commit_ready() == 1


def test_a_commit_that_a_full_disk_refused_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = make_collector(tmp_path, "ab")
    with monkeypatch.context() as patch:

        def refuse(*_: object, **__: object) -> None:
            raise StorageError("full")

        patch.setattr(collectors, "write_shard", refuse)
        with pytest.raises(StorageError):
            add(collector, "ab")
    assert collector.commit_ready() == 2
    assert committed(tmp_path) == ["a", "b"]


def test_a_row_made_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    add(make_collector(tmp_path, "abc"), "abc")
    collector = make_collector(tmp_path, "b")
    collector.add(STREAM, visual_prompt_rows("b", seed=7))
    reader = StreamReader(tmp_path / STREAM)
    assert sorted(reader) == ["a", "b", "c"]
    assert (reader["b"] == visual_prompt_rows("b", seed=7).fields[STREAM]).all()
    assert (reader["c"] == visual_prompt_rows("c").fields[STREAM]).all()


_GROW = """
import sys
from pathlib import Path
from tests.extract.shards.test_collector import add, make_collector
sys.stdin.read(1)
for number in range(int(sys.argv[3])):
    clip_ids = [f"{sys.argv[2]}-{number:02d}"]
    add(make_collector(Path(sys.argv[1]), clip_ids), clip_ids)
"""


def test_two_processes_that_grow_one_shard_lose_nothing(tmp_path: Path) -> None:
    expected = sorted(f"{name}-{number:02d}" for name in "ab" for number in range(25))
    processes = [
        subprocess.Popen([sys.executable, "-c", _GROW, str(tmp_path), name, "25"], stdin=subprocess.PIPE)
        for name in "ab"
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"!")
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0]
    assert committed(tmp_path) == expected
    reader = StreamReader(tmp_path / STREAM)
    assert all((reader[clip_id] == visual_prompt_rows(clip_id).fields[STREAM]).all() for clip_id in expected)


def test_without_locks_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(file_lock, "_lock", refuse)
    add(make_collector(tmp_path, "ab"), "ab")
    assert committed(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_stream_that_was_dropped_or_replaced_meanwhile_is_left_alone(tmp_path: Path, is_replaced: bool) -> None:
    collector = make_collector(tmp_path, "ab")
    shutil.rmtree(tmp_path / STREAM)
    if is_replaced:
        fingerprint.ensure(tmp_path / STREAM, toy_fingerprint(STREAM, name="another"))
    with pytest.raises(CacheError, match="was dropped or replaced by another process"):
        add(collector, "ab")
    assert committed(tmp_path) == []
    assert (tmp_path / STREAM).exists() == is_replaced


def test_the_lock_is_no_part_of_the_cache(tmp_path: Path) -> None:
    cache = toy_cache(tmp_path / "cache", toy_dataset(2))
    before = verify(cache, deep=True)
    with file_lock.locked(cache / STREAM / file_lock.LOCK_NAME, wait=True):
        pass
    assert verify(cache, deep=True) == before
