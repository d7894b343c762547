from pathlib import Path

import av
import numpy as np
import pytest

from cache.errors import ConfigError
from cache.manifest import Dataset
from pipeline.demo.renderer import render
from pipeline.demo.scripts import NUM_FRAMES, SPLITS, WorldConfig, draw_recording
from pipeline.demo.world import ACTIVITY, ATOMIC, make_world, video_name

SMALL = WorldConfig(num_train=3, num_validation=1, num_test=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder, SMALL, workers=1)
    return folder


def test_videos_decode_to_the_rendered_frames_at_eight_a_second(world: Path) -> None:
    with av.open(str(world / "videos" / video_name("train", 1))) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([number / 8 for number in range(NUM_FRAMES)])
    decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).astype(int)
    truth = render(draw_recording(SMALL, "train", 1)).astype(int)
    assert decoded.shape == truth.shape
    assert np.abs(decoded - truth).mean() < 6  # compression, colours at half resolution
    assert np.abs(decoded[::-1] - truth).mean() > 8  # the order of frames matters to this test


def test_the_manifest_is_a_dataset_like_any_other(world: Path) -> None:
    dataset = Dataset.read(world / "dataset")
    assert {split: len(dataset.select("default", split)) for split in SPLITS} == {
        split: SMALL.num_videos(split) for split in SPLITS
    }
    assert all(dataset.video_path(clip).is_file() for clip in dataset.clips)
    for clip in dataset.select("default", "train"):
        recording = draw_recording(SMALL, "train", int(clip.id.rpartition("-")[2]))
        assert clip.labels[ACTIVITY.name] == (recording.activity,)
        assert clip.labels[ATOMIC.name] == recording.actions
        assert set(clip.groups) == {"background", "shirt", "distractor", "co_occurring"}
    assert all(ACTIVITY.name not in clip.labels for clip in dataset.select("default", "test_recombined"))


def test_a_second_call_touches_no_video_and_makes_missing_ones_again(tmp_path: Path) -> None:
    make_world(tmp_path, SMALL, workers=1)
    videos = sorted((tmp_path / "videos").rglob("*.mp4"))
    content = videos[0].read_bytes()
    times = {path: path.stat().st_mtime_ns for path in videos}
    videos[0].unlink()
    make_world(tmp_path, SMALL, workers=1)
    assert videos[0].read_bytes() == content
    assert all(path.stat().st_mtime_ns == times[path] for path in videos[1:])


def test_a_small_world_is_the_beginning_of_a_larger_one(world: Path) -> None:
    larger = WorldConfig(num_train=4, num_validation=1, num_test=2)
    dataset = make_world(world, larger, name="dataset-larger", workers=1)
    assert {clip.id for clip in Dataset.read(world / "dataset").clips} < {clip.id for clip in dataset.clips}


def test_a_folder_with_a_world_of_other_settings_is_refused(world: Path) -> None:
    with pytest.raises(ConfigError, match=r"rho_distractor: there 0\.7, asked for 0\.1"):
        make_world(world, WorldConfig(num_train=3, num_validation=1, num_test=2, rho_distractor=0.1))
