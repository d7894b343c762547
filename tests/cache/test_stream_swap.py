"""The swap of a stream, killed at each of its changes: the old stream or the new one, never a mixture, never none."""

import shutil
from pathlib import Path

import pytest

from cache import atomic, fingerprint
from cache.errors import StorageError
from cache.fingerprint import Fingerprint
from cache.shard import write_shard
from cache.store import SETTINGS, FeatureStore, stream_settings
from cache.stream_swap import (
    NEXT,
    claimed,
    discard,
    discard_next,
    empty_trash,
    finish_swaps,
    swap_in,
    under_construction,
)
from cache.verify import verify
from tests.kills import Killed, every_kill, killed_at
from tests.toys import toy_cache, toy_dataset, toy_fingerprint, visual_prompt_rows

STREAM = "visual_prompts"
MARK = toy_fingerprint(STREAM, name="new")


def build_next(cache: Path, mark: Fingerprint = MARK) -> None:
    """A new stream beside the old one, of fewer shards and other rows."""
    root = cache / NEXT
    root.mkdir()
    shutil.copy(cache / "plan.json", root)
    fingerprint.ensure(root / STREAM, mark)
    rows = [visual_prompt_rows(f"clip-{number:03d}", seed=1) for number in range(12)]
    write_shard(root / STREAM, 0, STREAM, rows, fingerprint=mark)
    atomic.write_json(root / SETTINGS, {"streams": {STREAM: {"is": "new"}}})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    cache = toy_cache(tmp_path / "cache", toy_dataset())
    atomic.write_json(cache / SETTINGS, {"streams": {STREAM: {"is": "old"}, "text": {"is": "text"}}})
    build_next(cache)
    return cache


def content(cache: Path, name: str = STREAM) -> str | None:
    report = verify(cache, deep=True)[name]
    assert report.problems == []
    return report.content_sha256


def swap(cache: Path) -> None:
    with claimed(cache):
        swap_in(cache, STREAM)
    empty_trash(cache)


def test_a_stream_under_construction_is_no_stream_but_status_and_verify_see_it(cache: Path) -> None:
    assert FeatureStore.open(cache).streams == ("text", STREAM)
    assert under_construction(cache) == {STREAM: cache / NEXT / STREAM}
    reports = verify(cache, deep=True)
    assert set(reports) == {"text", STREAM, f"next/{STREAM}"}
    assert reports[STREAM].content_sha256 != reports[f"next/{STREAM}"].content_sha256
    assert (reports[f"next/{STREAM}"].ok, reports[f"next/{STREAM}"].left) == (12, 0)


def test_a_swap_leaves_the_new_stream_its_settings_and_nothing_else(cache: Path) -> None:
    new = content(cache, f"next/{STREAM}")
    swap(cache)
    assert content(cache) == new
    assert FeatureStore.open(cache).visual_prompts.fingerprint == MARK
    assert stream_settings(cache) == {STREAM: {"is": "new"}, "text": {"is": "text"}}
    assert {path.name for path in cache.iterdir()} == {"plan.json", SETTINGS, "text", STREAM, "lock"}


def test_a_swap_killed_anywhere_is_finished_by_the_next_one_who_looks(cache: Path, tmp_path: Path) -> None:
    begin, old, new = tmp_path / "begin", content(cache), content(cache, f"next/{STREAM}")
    shutil.copytree(cache, begin)
    seen = []
    for _ in every_kill(lambda: swap(cache)):
        folders = [
            folder for folder in (cache, cache / "old", cache / NEXT) if (folder / STREAM / "shard-00000.json").exists()
        ]
        assert folders
        finish_swaps(cache)
        seen.append(content(cache))
        assert stream_settings(cache)[STREAM] == {"is": "old" if seen[-1] == old else "new"}
        with claimed(cache):
            assert not (cache / "old").exists()
        if seen[-1] == old:
            swap(cache)
        assert content(cache) == new
        empty_trash(cache)
        assert {path.name for path in cache.iterdir()} == {"plan.json", SETTINGS, "text", STREAM, "lock"}
        shutil.rmtree(cache)
        shutil.copytree(begin, cache)
    assert set(seen) == {old, new}
    assert seen == sorted(seen, key=[old, new].index)  # once begun, it is finished


def test_finishing_a_swap_may_be_killed_too(cache: Path, tmp_path: Path) -> None:
    new = content(cache, f"next/{STREAM}")
    for number in range(100):  # until the old stream is away and the new one not yet there
        shutil.copytree(cache, tmp_path / str(number))
        with pytest.raises(Killed), killed_at(number):
            swap(tmp_path / str(number))
        if not (tmp_path / str(number) / STREAM).exists():
            break
    between, again = tmp_path / str(number), tmp_path / "again"
    shutil.copytree(between, again)
    for _ in every_kill(lambda: finish_swaps(again)):
        assert content(again) == new
        shutil.rmtree(again)
        shutil.copytree(between, again)
    assert content(again) == new


def test_a_stream_begun_between_the_renames_gives_way_to_the_whole_one(cache: Path) -> None:
    new = content(cache, f"next/{STREAM}")
    (cache / "old").mkdir()
    (cache / STREAM).rename(cache / "old" / STREAM)
    fingerprint.ensure(cache / STREAM, toy_fingerprint(STREAM, name="third"))
    finish_swaps(cache)
    assert content(cache) == new


def test_rows_that_a_late_process_makes_in_next_do_not_replace_a_swapped_stream(cache: Path) -> None:
    new = content(cache, f"next/{STREAM}")
    (cache / "old").mkdir()
    (cache / STREAM).rename(cache / "old" / STREAM)
    (cache / NEXT / STREAM).rename(cache / STREAM)
    fingerprint.ensure(cache / NEXT / STREAM, MARK)
    write_shard(cache / NEXT / STREAM, 0, STREAM, [visual_prompt_rows("clip-000")], fingerprint=MARK)
    finish_swaps(cache)
    assert content(cache) == new
    assert under_construction(cache) == {}


def test_an_old_stream_without_a_new_one_goes_back(cache: Path) -> None:
    old = content(cache)
    (cache / "old").mkdir()
    (cache / STREAM).rename(cache / "old" / STREAM)
    shutil.rmtree(cache / NEXT)
    finish_swaps(cache)
    assert content(cache) == old
    assert stream_settings(cache)[STREAM] == {"is": "old"}


def test_a_cache_that_cannot_be_written_is_read_as_it_is(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "old").mkdir()
    (cache / STREAM).rename(cache / "old" / STREAM)

    def refuse(*_: object) -> None:
        raise StorageError("read-only")

    monkeypatch.setattr("cache.stream_swap._move", refuse)
    assert set(verify(cache)) == {"text", f"next/{STREAM}"}


def test_nothing_is_swapped_in_that_holds_nothing(cache: Path) -> None:
    before = content(cache)
    with pytest.raises(ValueError, match="holds nothing"), claimed(cache):
        swap_in(cache, "text")
    assert content(cache) == before


def test_next_goes_with_the_last_stream_in_it(cache: Path) -> None:
    fingerprint.ensure(cache / NEXT / "frames", toy_fingerprint("frames"))
    with claimed(cache):
        discard_next(cache, "frames")
        assert set(under_construction(cache)) == {STREAM}
        discard_next(cache, STREAM)
    assert not (cache / NEXT).exists()
    empty_trash(cache)
    assert not (cache / "trash").exists()


def test_what_was_discarded_twice_under_one_name_is_deleted(cache: Path) -> None:
    for _ in range(2):
        (cache / "x").mkdir()
        discard(cache, cache / "x")
    assert len(list((cache / "trash").iterdir())) == 2
    empty_trash(cache)
    assert not (cache / "trash").exists()
