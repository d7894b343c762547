"""Clips whose frames only their video tells: spans, and caches without another stream."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import FailureCode, FingerprintMismatch, ManifestError
from cache.manifest import Clip, Dataset
from cache.store import FeatureStore
from cache.verify import verify
from extract.config import ExtractConfig
from extract.extractor import extract
from extract.skeletons.filling import ImportOptions
from extract.skeletons.importing import import_skeletons
from extract.skeletons.mmaction import MmactionFile
from extract.skeletons.people import FoundPeople
from tests.extract.kitchen import make_dataset
from tests.extract.skeletons.files import annotation, walk, write_pickle

CONFIG = ExtractConfig(streams=("frames",), num_frames=6, shard_size=4)
WHOLE = walk(90, start=(2, 2))
"""Somebody in all 90 frames of long.avi, of 30 a second."""
PARTS = {f"04-long-{part}": slice(30 * part, min(30 * part + 45, 90)) for part in range(3)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("kitchen"))


@pytest.fixture(scope="module")
def with_frames(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A cache with the frames of all clips."""
    cache = tmp_path_factory.mktemp("frames") / "cache"
    extract(dataset, cache, CONFIG)
    return cache


def skeletons(folder: Path, *, trimmed: bool) -> MmactionFile:
    """Of every clip: the parts of the long video are trimmed, or one skeleton of the whole of it."""
    videos = {f"{number}": walk(20, seed=number, start=(2, 2)) for number in range(4)} | {"short": walk(3)}
    videos |= {name: WHOLE[part] for name, part in PARTS.items()} if trimmed else {"long": WHOLE}
    entries = [annotation(name, [joints], img_shape=None) for name, joints in videos.items()]
    entries += [annotation(name, [walk(9)]) for name in ("gone", "text", "05-late")]
    return MmactionFile(write_pickle(folder / "skeletons.pkl", entries))


def long_clips(cache: Path) -> None:
    """Every part has the joints of its frames."""
    reader = FeatureStore.open(cache).joints
    for name in PARTS:
        index = reader.frame_index(name)
        assert PARTS[name].start <= index.min() < index.max() < PARTS[name].stop
        np.testing.assert_array_equal(reader[name].xy, WHOLE[index])


@pytest.mark.parametrize("trimmed", [True, False], ids=["trimmed", "whole"])
def test_a_skeleton_of_a_span_may_be_of_the_whole_video_or_of_the_clip(
    tmp_path: Path, dataset: Dataset, with_frames: Path, trimmed: bool
) -> None:
    cache = shutil.copytree(with_frames, tmp_path / "cache")
    summary = import_skeletons(dataset, cache, skeletons(tmp_path, trimmed=trimmed))
    assert summary.ok == 8
    assert summary.failed == {"missing": 1, "not_a_video": 1, "too_short": 1}
    long_clips(cache)


def test_the_main_person_of_a_span_is_that_of_its_own_frames(
    tmp_path: Path, dataset: Dataset, with_frames: Path
) -> None:
    """Who is longest in the video is not in its last part, where two others are."""
    cache = shutil.copytree(with_frames, tmp_path / "cache")
    begin = PARTS["04-long-2"].start
    large, small = walk(90, seed=1, start=(300, 200)), walk(90, seed=2, start=(20, 20)) / 2
    main = 2 * walk(90, seed=3, start=(150, 100))
    xy = np.stack([np.where(np.arange(90)[:, None, None] < begin, main, large), small]).astype(np.float16)
    score = np.full(xy.shape[:3], 0.5, np.float16)
    score[1, :begin] = 0
    entries = [annotation("long", list(xy), img_shape=None, keypoint_score=score)]
    import_skeletons(dataset, cache, MmactionFile(write_pickle(tmp_path / "skeletons.pkl", entries)))
    reader = FeatureStore.open(cache).joints
    last = reader["04-long-2"]
    assert (last.valid == 3).all()
    seen = xy[:, reader.frame_index("04-long-2")]
    assert any((last.xy == person).all() for person in seen)
    first = reader["04-long-0"]
    np.testing.assert_array_equal(first.xy, xy[0, reader.frame_index("04-long-0")])


def test_a_skeleton_of_a_video_is_read_once_for_all_its_clips(
    tmp_path: Path, dataset: Dataset, with_frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, names, read = shutil.copytree(with_frames, tmp_path / "cache"), [], MmactionFile.read

    def counted(self: MmactionFile, name: str) -> FoundPeople:
        names.append(name)
        return read(self, name)

    monkeypatch.setattr(MmactionFile, "read", counted)
    import_skeletons(dataset, cache, skeletons(tmp_path, trimmed=False))
    assert names.count("long") == 1


def test_without_its_video_a_span_is_not_placed(tmp_path: Path, dataset: Dataset, with_frames: Path) -> None:
    cache = shutil.copytree(with_frames, tmp_path / "cache")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "another.mp4").touch()
    away = replace(dataset, video_root=tmp_path / "videos")
    summary = import_skeletons(away, cache, skeletons(tmp_path, trimmed=True))
    assert summary.ok == 5
    assert [summary.failures[name].code for name in PARTS] == [FailureCode.MISSING] * 3
    back = import_skeletons(dataset, cache, skeletons(tmp_path, trimmed=True), options=ImportOptions(retry_failed=True))
    assert back.ok == 8
    long_clips(cache)


def test_a_cache_without_frames_gets_the_instants_that_extraction_takes(
    tmp_path: Path, dataset: Dataset, with_frames: Path
) -> None:
    cache = tmp_path / "cache"
    found = skeletons(tmp_path, trimmed=True)
    summary = import_skeletons(dataset, cache, found, config=CONFIG, options=ImportOptions(workers=2))
    assert summary.ok == 8
    assert summary.failed == {"missing": 1, "not_a_video": 1, "too_short": 1}
    long_clips(cache)
    frames, joints = FeatureStore.open(with_frames).frames, FeatureStore.open(cache).joints
    assert set(joints.clip_ids) == set(frames.clip_ids)
    for clip_id in joints.clip_ids:
        np.testing.assert_array_equal(joints.frame_index(clip_id), frames.frame_index(clip_id))
        np.testing.assert_array_equal(joints.pts_seconds(clip_id), frames.pts_seconds(clip_id))
        assert joints.provenance(clip_id) == frames.provenance(clip_id)
    extract(dataset, cache, CONFIG)  # into the same plan, and then the import has nothing to do
    again = import_skeletons(dataset, cache, found)
    assert again.already_done
    assert not any(report.problems for report in verify(cache, deep=True).values())


def test_a_sampling_that_contradicts_the_cache_is_refused(tmp_path: Path, dataset: Dataset, with_frames: Path) -> None:
    cache = shutil.copytree(with_frames, tmp_path / "cache")
    with pytest.raises(FingerprintMismatch, match="Leave the sampling out"):
        import_skeletons(dataset, cache, skeletons(tmp_path, trimmed=True), config=replace(CONFIG, num_frames=7))
    assert not (cache / "joints").exists()


def test_without_frames_and_without_videos_nothing_can_be_imported(tmp_path: Path, dataset: Dataset) -> None:
    away = replace(dataset, video_root=tmp_path / "nowhere")
    with pytest.raises(ManifestError, match="--videos"):
        import_skeletons(away, tmp_path / "cache", skeletons(tmp_path, trimmed=True))
    assert not (tmp_path / "cache").exists()


def test_a_video_outside_of_the_root_is_not_read(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "0.mp4").symlink_to(dataset.video_root / "0.mp4")
    (tmp_path / "videos" / "1.mp4").write_bytes((dataset.video_root / "1.mp4").read_bytes())
    clips = tuple(Clip(id=f"c{number}", video=f"{number}.mp4") for number in range(2))
    linked = replace(dataset, clips=clips, video_root=tmp_path / "videos")
    found = skeletons(tmp_path, trimmed=True)
    summary = import_skeletons(linked, tmp_path / "cache", found, config=CONFIG)
    assert summary.failed == {"outside_root": 1}
    summary = import_skeletons(
        linked, tmp_path / "cache", found, config=CONFIG, options=ImportOptions(allow_outside=True)
    )
    assert summary.ok == 2
