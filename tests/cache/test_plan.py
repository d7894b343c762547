import multiprocessing
from pathlib import Path

import pytest

from cache.errors import CacheError, CorruptShard
from cache.plan import Plan


def test_a_plan_is_a_function_of_ids_and_size_alone(tmp_path: Path) -> None:
    ids = ["b", "a", "d", "c", "e"]
    first = Plan.ensure(tmp_path / "1", ids, 2)
    second = Plan.ensure(tmp_path / "2", reversed(ids), 2)
    assert first.shards == second.shards == {0: ("a", "b"), 1: ("c", "d"), 2: ("e",)}
    assert (tmp_path / "1" / "plan.json").read_bytes() == (tmp_path / "2" / "plan.json").read_bytes()


def test_a_grown_dataset_adds_a_file_and_rewrites_none(tmp_path: Path) -> None:
    Plan.ensure(tmp_path, ["b", "d"], 2)
    before = (tmp_path / "plan.json").read_bytes()
    plan = Plan.ensure(tmp_path, ["a", "b", "c", "d"], 2)
    assert plan.shards == {0: ("b", "d"), 1: ("a", "c")}
    assert (tmp_path / "plan.json").read_bytes() == before
    assert Plan.load(tmp_path).shards == plan.shards


def test_a_dataset_that_shrank_leaves_the_plan_alone(tmp_path: Path) -> None:
    whole = Plan.ensure(tmp_path, ["a", "b", "c"], 2)
    assert Plan.ensure(tmp_path, ["b"], 2).shards == whole.shards


def test_a_preview_writes_nothing(tmp_path: Path) -> None:
    assert Plan.preview(tmp_path / "cache", ["a"], 2).num_clips == 1
    assert not (tmp_path / "cache").exists()


def test_many_processes_may_plan_at_once(tmp_path: Path) -> None:
    ids = [f"clip-{number}" for number in range(50)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        plans = pool.starmap(Plan.ensure, [(tmp_path, ids, 7)] * 6)
    assert all(plan == plans[0] for plan in plans)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_plan_file_is_noticed(tmp_path: Path) -> None:
    Plan.ensure(tmp_path, ["a"], 1)
    Plan.ensure(tmp_path, ["a", "b"], 1)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(CorruptShard, match="a plan file is missing"):
        Plan.load(tmp_path)


def test_a_folder_that_is_no_cache_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="deconfound extract"):
        Plan.load(tmp_path)
