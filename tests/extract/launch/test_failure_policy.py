from pathlib import Path

import pytest

from cache.errors import ConfigError, FailureCode, StorageError, TooManyFailures
from cache.manifest import Clip, Dataset
from cache.rows import Failure
from cache.store import FeatureStore
from extract.config import ExtractConfig
from extract.extractor import extract
from extract.launch.failure_policy import NUM_FIRST, FailureLimit, FailureWatch
from tests.extract.videos import make_video

BROKEN = Failure(code=FailureCode.TRUNCATED, message="cut")


@pytest.mark.parametrize(
    ("text", "num_clips", "allowed"), [("0", 50, 0), ("12", 50, 12), ("5%", 50, 2), ("0.5%", 1000, 5), ("100%", 7, 7)]
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
        watch.done()
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
            watch.done()
        for number in range(100, 140):
            watch.failed(str(number), BROKEN)
            watch.done()

    if stops:
        with pytest.raises(TooManyFailures, match="11 of the first 20 clips failed") as caught:
            run()
        assert caught.value.drop
    else:
        run()


def test_a_limit_or_a_retry_takes_the_place_of_the_breaker() -> None:
    for watch in (FailureWatch(100, limit=FailureLimit(1.0, is_share=True)), FailureWatch(100, breaker=False)):
        for number in range(NUM_FIRST):
            watch.failed(str(number), BROKEN)
            watch.done()


def test_a_root_that_disappears_is_no_missing_video(tmp_path: Path) -> None:
    missing = Failure(code=FailureCode.MISSING, message="no such file")
    root = tmp_path / "mount"
    watch = FailureWatch(100, root=root)
    with pytest.raises(StorageError, match="has disappeared or is empty"):
        watch.failed("a", missing)
    root.mkdir()  # an empty mount point
    with pytest.raises(StorageError):
        watch.failed("a", missing)
    (root / "b.mp4").touch()
    watch.failed("a", missing)
    assert watch.num_failed == 1


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
