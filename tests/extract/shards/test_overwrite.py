"""Streams made again with other settings: refused where clips would be lost, built by parts, killed, given up."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from cache import fingerprint
from cache.errors import CacheError, FailureCode, FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.plan import Plan
from cache.rows import ClipRows, Failure
from cache.store import FeatureStore
from cache.stream_swap import NEXT, under_construction
from cache.verify import verify
from extract.config import ExtractConfig
from extract.shards.collector import Collector
from extract.shards.overwrite import begin, finish
from extract.shards.work import shard_tasks
from tests.kills import Killed, every_kill, killed_at
from tests.toys import ACTIVITY, toy_cache, toy_dataset, toy_fingerprint, toy_text, visual_prompt_rows

STREAM = "visual_prompts"
OLD = toy_fingerprint(STREAM, name="toy-clip")
NEW = {STREAM: toy_fingerprint(STREAM, name="new")}
NEWEST = {STREAM: toy_fingerprint(STREAM, name="newest")}
SHARD_SIZE = 5


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return toy_dataset(video_root=tmp_path / "videos")


@pytest.fixture
def cache(tmp_path: Path, dataset: Dataset) -> Path:
    return toy_cache(tmp_path / "cache", dataset)


def fill(dataset: Dataset, root: Path, marks: dict[str, Fingerprint], shards: Iterable[int] | None = None) -> list[str]:
    """What extraction does in a root; returns the clips that it made."""
    plan = Plan.load(root)
    config = ExtractConfig(streams=("visual_prompts",))
    tasks = shard_tasks(dataset, root, plan, plan.shards if shards is None else shards, config, marks)
    shard_of = {clip_id: task.number for task in tasks for clip_id in task.clip_ids}
    collector = Collector(root, marks, {task.number: task for task in tasks}, shard_of)
    for clip_id in sorted(shard_of):
        row = visual_prompt_rows(clip_id, seed=len(str(marks[STREAM].model["name"])))
        collector.add(STREAM, replace(row, provenance=None))
    return sorted(shard_of)


def overwrite(dataset: Dataset, cache: Path, marks: dict[str, Fingerprint] = NEW) -> list[str]:
    """The whole command, as one process; the clips that it made."""
    streams = begin(dataset, cache, marks, SHARD_SIZE)
    made = fill(dataset, cache / NEXT, marks) if streams else []
    if streams:
        assert finish(dataset, cache, {stream: marks[stream] for stream in streams}) == set(streams)
    return made


def content(cache: Path) -> str | None:
    report = verify(cache, deep=True)[STREAM]
    assert report.problems == []
    return report.content_sha256


def made_by(cache: Path) -> Fingerprint:
    return FeatureStore.open(cache).visual_prompts.fingerprint


def test_the_new_stream_takes_the_place_of_the_old_one_and_equals_one_made_from_nothing(
    cache: Path, dataset: Dataset, tmp_path: Path
) -> None:
    old = content(cache)
    assert overwrite(dataset, cache) == [clip.id for clip in dataset.clips]
    fresh = tmp_path / "fresh"
    Plan.ensure(fresh, [clip.id for clip in dataset.clips], SHARD_SIZE)
    fingerprint.ensure(fresh / STREAM, NEW[STREAM])
    fill(dataset, fresh, NEW)
    assert content(cache) == content(fresh) != old
    assert made_by(cache) == NEW[STREAM]
    assert not (cache / NEXT).exists()
    assert begin(dataset, cache, NEW, SHARD_SIZE) == ()


def test_nothing_happens_where_the_settings_are_those_of_the_cache(cache: Path, dataset: Dataset) -> None:
    before = sorted(cache.rglob("*"))
    renamed = replace(OLD, model={**OLD.model, "weights_name": "another name of the same file"})
    assert begin(dataset, cache, {STREAM: renamed, "frames": toy_fingerprint("frames")}, SHARD_SIZE) == ()
    assert sorted(cache.rglob("*")) == before


def test_a_dataset_that_lacks_clips_of_the_old_stream_is_refused(cache: Path, dataset: Dataset) -> None:
    before = sorted(cache.rglob("*"))
    part = replace(dataset, clips=dataset.clips[7:])
    with pytest.raises(FingerprintMismatch, match=r"7 clips that .*'toy' lacks \('clip-000', .*, \.\.\.\).* drop "):
        begin(part, cache, NEW, SHARD_SIZE)
    assert sorted(cache.rglob("*")) == before


def test_a_failed_clip_of_another_dataset_is_no_loss(cache: Path, dataset: Dataset) -> None:
    failure = Failure(code=FailureCode.MISSING, message="no such file")
    Plan.ensure(cache, ["zz"], SHARD_SIZE)
    (number,) = (number for number, ids in Plan.load(cache).shards.items() if ids == ("zz",))
    collector = Collector(cache, {STREAM: OLD}, {}, {"zz": number})
    collector.rows[number, STREAM].append(ClipRows.failed("zz", failure))
    collector.commit_ready()
    assert len(overwrite(dataset, cache)) == 12


def test_clips_that_came_into_the_old_stream_meanwhile_are_not_lost(cache: Path, dataset: Dataset) -> None:
    begin(dataset, cache, NEW, SHARD_SIZE)
    fill(dataset, cache / NEXT, NEW)
    grown = toy_dataset(14, video_root=dataset.video_root)
    Plan.ensure(cache, [clip.id for clip in grown.clips], SHARD_SIZE)
    assert fill(grown, cache, {STREAM: OLD}) == ["clip-012", "clip-013"]
    with pytest.raises(FingerprintMismatch, match="2 clips that"):
        finish(dataset, cache, NEW)
    assert made_by(cache) == OLD
    assert overwrite(grown, cache) == ["clip-012", "clip-013"]
    assert made_by(cache) == NEW[STREAM]


def test_of_tasks_that_build_parts_the_one_that_finds_it_whole_swaps(cache: Path, dataset: Dataset) -> None:
    for shard, whole in ((0, False), (2, False), (1, True)):
        assert begin(dataset, cache, NEW, SHARD_SIZE) == (STREAM,)
        fill(dataset, cache / NEXT, NEW, [shard])
        assert (finish(dataset, cache, NEW) == {STREAM}) == whole
        assert (made_by(cache) == NEW[STREAM]) == whole
    assert begin(dataset, cache, NEW, SHARD_SIZE) == ()
    assert finish(dataset, cache, NEW) == {STREAM}  # a task that began before, and comes late


_PART = """
import sys
from pathlib import Path
from tests.extract.shards.test_overwrite import NEW, NEXT, SHARD_SIZE, begin, fill, finish
from tests.toys import toy_dataset
cache, dataset = Path(sys.argv[1]), toy_dataset(60)
sys.stdin.read(1)
if begin(dataset, cache, NEW, SHARD_SIZE):
    fill(dataset, cache / NEXT, NEW, range(int(sys.argv[2]), 12, 3))
    finish(dataset, cache, NEW)
"""


def test_processes_that_build_parts_at_the_same_time_end_with_one_swap(tmp_path: Path) -> None:
    cache = toy_cache(tmp_path / "cache", toy_dataset(60))
    arguments = [[sys.executable, "-c", _PART, str(cache), str(number)] for number in range(3)]
    processes = [subprocess.Popen(argument, stdin=subprocess.PIPE) for argument in arguments]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"!")
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert made_by(cache) == NEW[STREAM]
    assert verify(cache, deep=True)[STREAM].ok == 60
    assert {path.name for path in cache.iterdir()} == {"plan.json", "text", STREAM, "lock"}


def test_a_late_task_is_refused_at_its_commit_and_leaves_nothing(cache: Path, dataset: Dataset) -> None:
    begin(dataset, cache, NEW, SHARD_SIZE)
    late = Collector(cache / NEXT, NEW, {}, {"clip-000": 0})
    late.rows[0, STREAM].append(visual_prompt_rows("clip-000"))
    overwrite(dataset, cache)
    after = content(cache)
    with pytest.raises(CacheError, match="run the same command again"):
        late.commit_ready()
    fingerprint.ensure(cache / NEXT / STREAM, NEW[STREAM])  # one that looked before the swap, and pinned after it
    assert finish(dataset, cache, NEW) == {STREAM}
    assert content(cache) == after
    assert not (cache / NEXT).exists()


def test_work_on_the_old_stream_goes_on_beside_and_status_tells(cache: Path, dataset: Dataset) -> None:
    begin(dataset, cache, NEW, SHARD_SIZE)
    fill(dataset, cache / NEXT, NEW, [0])
    grown = toy_dataset(13, video_root=dataset.video_root)
    Plan.ensure(cache, [clip.id for clip in grown.clips], SHARD_SIZE)
    assert fill(grown, cache, {STREAM: OLD}) == ["clip-012"]
    reports = verify(cache)
    assert (reports[STREAM].ok, reports[STREAM].left) == (13, 0)
    assert (reports[f"next/{STREAM}"].ok, reports[f"next/{STREAM}"].left) == (5, 8)


def test_a_process_that_works_on_the_old_stream_is_refused_after_the_swap(cache: Path, dataset: Dataset) -> None:
    working = Collector(cache, {STREAM: OLD}, {}, {"clip-000": 0})
    working.rows[0, STREAM].append(visual_prompt_rows("clip-000"))
    overwrite(dataset, cache)
    after = content(cache)
    with pytest.raises(CacheError, match="was dropped or replaced"):
        working.commit_ready()
    assert content(cache) == after


def test_yet_other_settings_begin_again(cache: Path, dataset: Dataset) -> None:
    begin(dataset, cache, NEW, SHARD_SIZE)
    fill(dataset, cache / NEXT, NEW, [0, 1])
    still_working = Collector(cache / NEXT, NEW, {}, {"clip-011": 2})
    still_working.rows[2, STREAM].append(visual_prompt_rows("clip-011"))
    assert len(overwrite(dataset, cache, NEWEST)) == 12
    assert made_by(cache) == NEWEST[STREAM]
    begin(dataset, cache, NEWEST, SHARD_SIZE)
    with pytest.raises(CacheError):
        still_working.commit_ready()


def test_what_was_built_by_the_plan_of_another_cache_begins_again(cache: Path, dataset: Dataset) -> None:
    begin(dataset, cache, NEW, SHARD_SIZE)
    fill(dataset, cache / NEXT, NEW, [0])
    built = cache / NEXT
    built.rename(cache.with_name("built"))
    shutil.rmtree(cache)
    toy_cache(cache, dataset, shard_size=3)
    cache.with_name("built").rename(built)
    assert len(overwrite(dataset, cache)) == 12


def test_a_grown_dataset_is_built_by_the_plan_that_the_cache_gets(cache: Path, dataset: Dataset) -> None:
    begin(dataset, cache, NEW, SHARD_SIZE)
    fill(dataset, cache / NEXT, NEW)
    grown = toy_dataset(20, video_root=dataset.video_root)
    assert overwrite(grown, cache) == [f"clip-{number:03d}" for number in range(12, 20)]
    assert Plan.load(cache).num_clips == 20
    assert (verify(cache)[STREAM].ok, verify(cache)[STREAM].left) == (20, 0)


def test_texts_are_swapped_when_every_task_has_its_file(cache: Path, dataset: Dataset) -> None:
    marks = {"text": toy_fingerprint("text", name="new")}
    assert begin(dataset, cache, marks, SHARD_SIZE) == ("text",)
    activity, atomic = (toy_text(task, name="new", seed=1) for task in dataset.tasks)
    activity.write(cache / NEXT)
    assert finish(dataset, cache, marks) == frozenset()
    atomic.write(cache / NEXT)
    assert finish(dataset, cache, marks) == {"text"}
    assert (FeatureStore.open(cache).text(ACTIVITY).sentence == activity.sentence).all()
    assert len(list((cache / "text").glob("*.h5"))) == 2


def test_texts_of_a_task_that_the_dataset_lacks_are_not_lost(cache: Path, dataset: Dataset) -> None:
    clips = tuple(replace(clip, labels={}) for clip in dataset.clips)
    part = replace(dataset, tasks=(ACTIVITY,), clips=clips)
    with pytest.raises(FingerprintMismatch, match=r"1 tasks that .*'atomic'"):
        begin(part, cache, {"text": toy_fingerprint("text", name="new")}, SHARD_SIZE)


def test_the_same_command_continues_after_a_kill_anywhere(tmp_path: Path) -> None:
    dataset = toy_dataset(3, video_root=tmp_path / "videos")
    origin, cache = tmp_path / "origin", tmp_path / "cache"
    old = content(toy_cache(origin, dataset, shard_size=2))
    shutil.copytree(origin, cache)
    overwrite(dataset, cache)
    new, seen = content(cache), []
    shutil.rmtree(cache)
    shutil.copytree(origin, cache)
    for _ in every_kill(lambda: overwrite(dataset, cache)):
        seen.append(content(cache))
        overwrite(dataset, cache)
        assert content(cache) == new
        assert made_by(cache) == NEW[STREAM]
        assert under_construction(cache) == {}
        shutil.rmtree(cache)
        shutil.copytree(origin, cache)
    assert set(seen) == {old, new}
    assert seen == sorted(seen, key=[old, new].index)


def test_a_change_of_mind_may_be_killed_too(tmp_path: Path) -> None:
    dataset = toy_dataset(3, video_root=tmp_path / "videos")
    origin, cache = toy_cache(tmp_path / "origin", dataset, shard_size=2), tmp_path / "cache"
    begin(dataset, origin, NEW, 2)
    fill(dataset, origin / NEXT, NEW)
    number, is_over = 0, False
    while not is_over:
        shutil.copytree(origin, cache)
        try:
            with killed_at(number):
                begin(dataset, cache, NEWEST, 2)
            is_over = True
        except Killed:
            assert made_by(cache).difference(OLD) == []
        overwrite(dataset, cache, NEWEST)
        assert made_by(cache) == NEWEST[STREAM]
        shutil.rmtree(cache)
        number += 1
    assert number > 5
