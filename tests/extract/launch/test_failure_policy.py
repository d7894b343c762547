from pathlib import Path

import pytest

from cache.errors import ConfigError, FailureCode, StorageError, TooManyFailures
from cache.manifest import Clip, Dataset
from cache.rows import Failure
from cache.store import FeatureStore
from extract.config import ExtractConfig
from extract.extractor import extract
from extract.launch.failure_policy import NUM_FIRST, FailureLimit, FailureWatch, check_root
from tests.extract.videos import make_video

BROKEN = Failure(code=FailureCode.TRUNCATED, message="cut")


@pytest.mark.parametrize(
    ("text", "num_clips", "allowed"),
    [("0", 50, 0), ("12", 50, 12), ("5%", 50, 2), ("0.5%", 1000, 5), ("100%", 7, 7), ("29%", 100, 29)],
)
def test_a_limit_is_a_number_or_a_share(text: str, num_clips: int, allowed: int) -> None:
    assert FailureLimit.parse(text).allowed(num_clips) == allowed


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "many", "5 percent"])
def test_another_limit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--max-failures"):
        FailureLimit.parse(text)


def test_a_run_stops_at_the_failure_that_passes_the_limit() -> None:
    watch = FailureWatch(100, limit=FailureLimit(2))
    for clip_id in "ab":
        watch.failed(clip_id, BROKEN)
        watch.failed(clip_id, BROKEN)  # in another stream: still one clip
        watch.done(clip_id)
    with pytest.raises(TooManyFailures, match=r"3 of 100 clips failed \(truncated 3\), 2 are allowed") as caught:
        watch.failed("c", BROKEN)
    assert not caught.value.drop


@pytest.mark.parametrize(("num_broken", "stops"), [(10, False), (11, True)])
def test_more_than_half_of_the_first_clips_break_the_circuit(num_broken: int, stops: bool) -> None:
    def run() -> None:
        watch = FailureWatch(100)
        for number in range(NUM_FIRST):
            if number < num_broken:
                watch.failed(str(number), BROKEN)
            watch.done(str(number))
        for number in range(100, 140):
            watch.failed(str(number), BROKEN)
            watch.done(str(number))

    if stops:
        with pytest.raises(TooManyFailures, match="11 of the first 20 clips failed") as caught:
            run()
        assert caught.value.drop
    else:
        run()


def test_a_limit_or_a_retry_takes_the_place_of_the_breaker() -> None:
    for watch in (FailureWatch(100, limit=FailureLimit(100.0, is_share=True)), FailureWatch(100, breaker=False)):
        for number in range(NUM_FIRST):
            watch.failed(str(number), BROKEN)
            watch.done(str(number))


def test_a_clip_that_is_done_twice_counts_once() -> None:
    told: list[tuple[int, int, int]] = []
    watch = FailureWatch(3, progress=lambda *counts: told.append(counts))
    for clip_id in "aab":
        watch.done(clip_id)
    assert told == [(1, 0, 3), (1, 0, 3), (2, 0, 3)]


def test_a_root_that_disappears_is_no_broken_video(tmp_path: Path) -> None:
    root = tmp_path / "mount"
    with pytest.raises(StorageError, match="has disappeared or is empty"):
        check_root(root)
    root.mkdir()  # an empty mount point
    with pytest.raises(StorageError):
        check_root(root)
    (root / "b.mp4").touch()
    check_root(root)


def test_a_mount_that_is_lost_while_a_run_goes_on_leaves_no_missing_rows(tmp_path: Path) -> None:
    videos, cache = tmp_path / "videos", tmp_path / "cache"
    videos.mkdir()
    names = [f"{number:02d}" for number in range(30)]
    for name in names:
        make_video(videos / f"{name}.mp4", num_frames=6)
    config = ExtractConfig(streams=("frames",), num_frames=2, shard_size=3)

    def unmount(done: int, _failed: int, _total: int) -> None:
        if done == 5:
            videos.rename(tmp_path / "unplugged")

    with pytest.raises(StorageError, match="has disappeared"):
        extract(dataset_of(videos, names), cache, config, progress=unmount)
    reader = FeatureStore.open(cache).frames
    assert len(reader.failures) == 0
    assert len(reader) >= 5
    (tmp_path / "unplugged").rename(videos)
    assert extract(dataset_of(videos, names), cache, config).streams["frames"].ok == 30


def dataset_of(folder: Path, names: list[str]) -> Dataset:
    clips = tuple(Clip(id=name, video=f"{name}.mp4") for name in names)
    return Dataset(name="d", version="1", tasks=(), protocols={}, clips=clips, video_root=folder)


def test_clips_that_were_ready_are_kept_when_the_limit_stops_a_run(tmp_path: Path) -> None:
    for name in "ab":
        make_video(tmp_path / f"{name}.mp4", num_frames=6)
    dataset = dataset_of(tmp_path, ["a", "b", "c-gone", "d-gone"])
    config = ExtractConfig(streams=("frames",), num_frames=2, shard_size=10)
    with pytest.raises(TooManyFailures, match="2 of 4 clips failed"):
        extract(dataset, tmp_path / "cache", config, max_failures=FailureLimit(1))
    reader = FeatureStore.open(tmp_path / "cache").frames
    assert set(reader.clip_ids) == {"a", "b"}
    assert set(reader.failures) == {"c-gone"}
    summary = extract(dataset, tmp_path / "cache", config)
    assert (summary.num_clips_decoded, summary.streams["frames"].failed) == (1, {"missing": 2})


def test_a_wrong_root_leaves_no_failures_behind(tmp_path: Path) -> None:
    make_video(tmp_path / "x.mp4", num_frames=6)
    dataset = dataset_of(tmp_path, ["x", *(f"z{number:02d}" for number in range(30))])
    config = ExtractConfig(streams=("frames",), num_frames=2)
    with pytest.raises(TooManyFailures, match=r"is .* the right folder"):
        extract(dataset, tmp_path / "cache", config)
    assert len(FeatureStore.open(tmp_path / "cache").frames.failures) == 0
    assert extract(dataset, tmp_path / "cache", config, max_failures=FailureLimit.parse("100%")).num_failed == 30
