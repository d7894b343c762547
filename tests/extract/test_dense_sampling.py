"""Dense sampling end to end: rows of varying length in every stream, each traced to the video's own table of frames."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.store import FeatureStore, stream_settings
from extract.config import ExtractConfig, Stream
from extract.extractor import extract
from extract.video.decode import instants_of_span
from extract.video.probe import VideoInfo, probe
from extract.video.sampling import frames_on_screen
from tests.extract.kitchen import FAILURES, contents, make_config, make_dataset
from train.clip_set import check_instants, select_clips

POLICIES: dict[str, dict[str, Any]] = {
    "fps": {"sampling": "fps", "fps": 4.0},
    "every_nth": {"sampling": "every_nth", "every_nth": 7},
}
STREAMS: tuple[Stream, ...] = ("frames", "visual_prompts", "joints")
NUM_ROWS = {
    "fps": {"00-plain": 3, "01-plain": 3, "04-long-0": 6, "04-long-1": 6, "04-long-2": 4, "05-short": 1},
    "every_nth": {"00-plain": 3, "01-plain": 3, "04-long-0": 7, "04-long-1": 7, "04-long-2": 5, "05-short": 1},
}


def dense_config(folder: Path, policy: str, *, shard_size: int = 3) -> ExtractConfig:
    config = make_config(folder, *STREAMS, shard_size=shard_size)
    return replace(config, pose=replace(config.pose, model="hrnet_w8_tiny"), **POLICIES[policy])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("dense"), num_plain=2)


@pytest.fixture(scope="module", params=POLICIES)
def cache(request: pytest.FixtureRequest, dataset: Dataset) -> Path:
    folder = dataset.video_root.parent
    target = folder / request.param
    summary = extract(dataset, target, dense_config(folder, request.param), workers=2)
    assert summary.streams["frames"].ok == 6
    return target


def table_of(dataset: Dataset, clip_id: str) -> tuple[VideoInfo, float | None, float | None]:
    clip = dataset.clip(clip_id)
    return probe(dataset.video_path(clip)), clip.start_seconds, clip.end_seconds


def test_every_row_is_traced_to_its_instant_in_every_stream(cache: Path, dataset: Dataset) -> None:
    store, policy = FeatureStore.open(cache), cache.name
    config = dense_config(dataset.video_root.parent, policy)
    for stream in STREAMS:
        reader = store.stream(stream)
        assert {clip_id: failure.code for clip_id, failure in reader.failures.items()} == FAILURES
        assert {clip_id: reader.num_rows(clip_id) for clip_id in reader.clip_ids} == NUM_ROWS[policy]
        for clip_id in reader.clip_ids:
            info, start, end = table_of(dataset, clip_id)
            index = frames_on_screen(info.frame_seconds, instants_of_span(info, start, end, config.instants))
            np.testing.assert_array_equal(reader.frame_index(clip_id), index)
            np.testing.assert_allclose(reader.pts_seconds(clip_id), info.frame_seconds[index], atol=1e-9)


def test_the_frames_are_those_counted_by_hand(cache: Path) -> None:
    reader = FeatureStore.open(cache).visual_prompts
    plain, part = {  # 20 frames, and 1 s to 2.5 s, at 30 frames a second
        "fps": ([3, 11, 18], [33, 41, 48, 56, 63, 71]),
        "every_nth": ([0, 7, 14], [30, 37, 44, 51, 58, 65, 72]),
    }[cache.name]
    assert reader.frame_index("00-plain").tolist() == plain
    assert reader.frame_index("04-long-1").tolist() == part


def test_rows_of_every_length_are_whole(cache: Path) -> None:
    store = FeatureStore.open(cache)
    for clip_id, num_rows in NUM_ROWS[cache.name].items():
        assert store.visual_prompts[clip_id].shape == (num_rows, 16)
        assert store.joints[clip_id].xy.shape == (num_rows, 17, 2)
        assert len(store.frames[clip_id]) == num_rows
    assert len({bytes(jpeg) for jpeg in store.frames["04-long-0"]}) == NUM_ROWS[cache.name]["04-long-0"]


def test_the_cache_tells_how_it_was_made(cache: Path, dataset: Dataset) -> None:
    config = dense_config(dataset.video_root.parent, cache.name)
    assert FeatureStore.open(cache).fingerprint("frames").sampling == config.instants.to_json()
    for settings in stream_settings(cache).values():
        assert settings.items() >= POLICIES[cache.name].items()
        assert "num_frames" not in settings
    assert extract(dataset, cache, config).already_done


def test_training_that_wants_more_rows_is_told_which_key_gives_them(cache: Path, dataset: Dataset) -> None:
    store = FeatureStore.open(cache)
    everything = replace(dataset, protocols={"default": ("all",)}, clips=tuple(in_split(dataset)))
    chosen = select_clips(everything, dataset.tasks[0], "default", "all", (store.visual_prompts,))
    message = {"fps": r"higher extract\.fps than 4,", "every_nth": r"lower extract\.every_nth than 7,"}[cache.name]
    check_instants(chosen, 3, store.visual_prompts, store.frames)
    with pytest.raises(ConfigError, match=rf"holds 3 instants of clip .*{message}"):
        check_instants(chosen, 4, store.visual_prompts, store.frames)


def in_split(dataset: Dataset) -> list[Any]:
    return [replace(clip, splits={"default": "all"}) for clip in dataset.clips]


@pytest.mark.slow
def test_content_does_not_depend_on_how_the_work_was_cut(cache: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = dense_config(dataset.video_root.parent, cache.name, shard_size=5)
    extract(dataset, tmp_path / "other", config, workers=1)
    assert contents(tmp_path / "other") == contents(cache)
