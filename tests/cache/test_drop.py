import shutil
from pathlib import Path

import pytest

from cache import atomic, fingerprint
from cache.drop import drop, droppable, stream_bytes
from cache.errors import CacheError
from cache.shard import write_shard
from cache.store import SETTINGS, FeatureStore, stream_settings
from cache.stream_swap import NEXT
from cache.verify import survey, verify
from tests.kills import every_kill
from tests.toys import toy_cache, toy_dataset, toy_fingerprint, visual_prompt_rows

STREAM = "visual_prompts"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two streams, tokens of two encoders, and a stream under construction."""
    cache = toy_cache(tmp_path / "cache", toy_dataset())
    atomic.write_json(cache / SETTINGS, {"streams": {STREAM: {"a": 1}, "text": {"b": 2}}})
    for digest in ("0123", "4567"):
        fingerprint.ensure(cache / "video_tokens" / digest, toy_fingerprint("video_tokens"))
    mark = toy_fingerprint(STREAM, name="new")
    fingerprint.ensure(cache / NEXT / STREAM, mark)
    write_shard(cache / NEXT / STREAM, 0, STREAM, [visual_prompt_rows("clip-000")], fingerprint=mark)
    return cache


def test_every_stream_can_be_named(cache: Path) -> None:
    tokens = {"video_tokens", "video_tokens/0123", "video_tokens/4567"}
    assert set(droppable(cache)) == {STREAM, "text", f"next/{STREAM}"} | tokens


def test_one_stream_goes_with_its_settings_and_all_else_stays(cache: Path) -> None:
    before = survey(cache)
    num_bytes = sum(path.stat().st_size for path in (cache / STREAM).iterdir())
    assert stream_bytes(cache, STREAM) == num_bytes == drop(cache, STREAM)
    after = survey(cache)
    assert set(before) - set(after) == {STREAM}
    assert all(after[name] == before[name] for name in after)
    assert stream_settings(cache) == {"text": {"b": 2}}
    assert not (cache / "trash").exists()


def test_tokens_go_by_encoder_or_altogether(cache: Path) -> None:
    drop(cache, "video_tokens/0123")
    assert "video_tokens/4567" in survey(cache)
    drop(cache, "video_tokens")
    assert not (cache / "video_tokens").exists()


def test_a_stream_under_construction_is_given_up(cache: Path) -> None:
    drop(cache, f"next/{STREAM}")
    assert not (cache / NEXT).exists()
    assert STREAM in FeatureStore.open(cache).streams
    assert stream_settings(cache)[STREAM] == {"a": 1}


@pytest.mark.parametrize(
    "name", ["joints", "", ".", "..", "../cache/text", "text/", "plan.json", "next", "video_tokens/89"]
)
def test_what_is_no_stream_is_refused_and_the_streams_are_listed(cache: Path, name: str) -> None:
    before = sorted(cache.rglob("*"))
    with pytest.raises(CacheError, match=r"it has next/visual_prompts, text, video_tokens, "):
        stream_bytes(cache, name)
    with pytest.raises(CacheError):
        drop(cache, name)
    assert sorted(cache.rglob("*")) == before


def test_a_folder_that_is_no_cache_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    with pytest.raises(CacheError, match="is not a cache"):
        stream_bytes(tmp_path, "text")
    with pytest.raises(CacheError, match="is not a cache"):
        drop(tmp_path, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_stream_without_its_fingerprint_can_be_dropped(cache: Path) -> None:
    (cache / STREAM / fingerprint.FILE_NAME).unlink()
    drop(cache, STREAM)
    assert not (cache / STREAM).exists()


def test_a_drop_killed_anywhere_leaves_a_whole_stream_or_none_and_the_next_one_cleans_up(
    cache: Path, tmp_path: Path
) -> None:
    origin = tmp_path / "origin"
    shutil.copytree(cache, origin)
    whole = verify(cache, deep=True)[STREAM]
    states = []
    for _ in every_kill(lambda: drop(cache, STREAM)):
        reports = verify(cache, deep=True)
        states.append(STREAM in reports)
        assert reports.get(STREAM, whole).content_sha256 == whole.content_sha256
        drop(cache, STREAM if states[-1] else "video_tokens")
        assert STREAM not in survey(cache)
        assert stream_settings(cache) == {"text": {"b": 2}}
        assert not (cache / "trash").exists()
        shutil.rmtree(cache)
        shutil.copytree(origin, cache)
    assert set(states) == {True, False}
