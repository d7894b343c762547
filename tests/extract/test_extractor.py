import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cache.errors import ConfigError, FingerprintMismatch
from cache.manifest import Clip, Dataset
from cache.plan import Plan
from cache.store import FeatureStore
from extract.config import ExtractConfig, ImageEncoderConfig, PoseConfig
from extract.decoding.resizing import preprocess
from extract.estimate import plan
from extract.extractor import extract
from extract.image_encoder import ImageEncoder
from extract.pose.estimator import PoseEstimator
from extract.video.decode import decode, instants_of_span
from extract.video.probe import probe
from tests.extract.kitchen import FAILURES, NUM_FRAMES, TASK, contents, make_config, make_dataset
from tests.extract.videos import make_video

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kitchen")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    dataset = make_dataset(folder)
    dataset.write(folder / "dataset")
    return dataset


@pytest.fixture(scope="module")
def cache(folder: Path, dataset: Dataset) -> Path:
    """All four streams, extracted in one go."""
    config = make_config(folder, "frames", "visual_prompts", "joints", "text")
    summary = extract(dataset, folder / "cache", config, workers=2)
    assert not summary.already_done
    assert summary.num_clips_decoded == len(dataset.clips)
    return folder / "cache"


def run_in_process(folder: Path, target: Path, workers: int) -> "subprocess.Popen[bytes]":
    arguments = [sys.executable, "-m", "tests.extract.kitchen", str(folder), str(target), str(workers)]
    return subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_every_clip_has_rows_or_a_reason_in_every_stream(cache: Path, dataset: Dataset) -> None:
    store = FeatureStore.open(cache)
    for reader in (store.frames, store.visual_prompts, store.joints):
        assert {clip_id: failure.code for clip_id, failure in reader.failures.items()} == FAILURES
        assert set(reader.clip_ids) == {clip.id for clip in dataset.clips} - set(FAILURES)
        assert all(len(reader.pts_seconds(clip_id)) == NUM_FRAMES for clip_id in reader.clip_ids)


def test_visual_prompts_equal_the_encoder_run_alone_on_each_clip(cache: Path, folder: Path, dataset: Dataset) -> None:
    encoder = ImageEncoder.load(make_config(folder).image_encoder, torch.device("cpu"))
    store = FeatureStore.open(cache)
    for clip_id in store.visual_prompts.clip_ids:
        clip = dataset.clip(clip_id)
        info = probe(dataset.video_path(clip))
        instants = instants_of_span(info, clip.start_seconds, clip.end_seconds, NUM_FRAMES)
        frames = decode(dataset.video_path(clip), info, instants).frames
        expected = encoder.encode(preprocess(frames, encoder.spec)).numpy().astype(np.float16)
        np.testing.assert_allclose(store.visual_prompts[clip_id], expected, atol=2e-3)


def test_frames_are_jpegs_of_the_decoded_frames_on_the_same_time_grid(cache: Path, dataset: Dataset) -> None:
    store = FeatureStore.open(cache)
    clip = dataset.clip("04-long-1")
    info = probe(dataset.video_path(clip))
    decoded = decode(dataset.video_path(clip), info, instants_of_span(info, 1.0, 2.5, NUM_FRAMES))
    np.testing.assert_array_equal(store.frames.pts_seconds(clip.id), decoded.pts_seconds)
    for stream in (store.visual_prompts, store.joints):
        np.testing.assert_array_equal(stream.frame_index(clip.id), store.frames.frame_index(clip.id))
    for jpeg, frame in zip(store.frames[clip.id], decoded.frames, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(jpeg)))
        assert picture.shape == frame.shape  # smaller than 256: not enlarged
        assert np.abs(picture.astype(int) - frame).mean() < 12


def test_a_short_video_repeats_rows_and_says_so(cache: Path) -> None:
    reader = FeatureStore.open(cache).visual_prompts
    assert reader.provenance("05-short").num_distinct_frames == 3
    assert reader.frame_index("05-short").tolist() == [0, 0, 1, 1, 2, 2]
    rows = reader["05-short"]
    np.testing.assert_array_equal(rows[::2], rows[1::2])
    assert not np.array_equal(rows[0], rows[2])


def test_joints_of_the_whole_frame_equal_the_estimator_run_alone(cache: Path, folder: Path, dataset: Dataset) -> None:
    store = FeatureStore.open(cache)
    joints = store.joints["01-plain"]
    provenance = store.joints.provenance("01-plain")
    assert (provenance.height, provenance.width) == (128, 96)
    box = np.tile(np.array([0, 0, 96, 128], np.float32), (NUM_FRAMES, 1))
    np.testing.assert_array_equal(joints.box, box)
    path = dataset.video_path(dataset.clip("01-plain"))
    info = probe(path)
    frames = decode(path, info, instants_of_span(info, None, None, NUM_FRAMES)).frames
    xy, score = PoseEstimator.load(make_config(folder).pose, torch.device("cpu")).estimate(frames, box)
    np.testing.assert_allclose(joints.xy, xy, atol=0.1)
    np.testing.assert_allclose(joints.score, score, atol=1e-4)
    found = joints.xy[joints.score > 0]
    assert (np.abs(found - [48, 64]) <= 80).all()  # the crop: the frame made square, and a quarter more
    assert np.ptp(found, axis=0).min() > 16  # random weights: spread, not all in one place


def test_the_text_of_every_task_is_there(cache: Path) -> None:
    assert FeatureStore.open(cache).text(TASK).sentence.shape == (2, 16)


def test_content_does_not_depend_on_how_the_work_was_cut(
    cache: Path, folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config(folder, "frames", "visual_prompts", shard_size=5)  # the fixture: shards of 4, two workers
    extract(dataset, tmp_path / "other", config, workers=1)
    expected = contents(cache)
    assert contents(tmp_path / "other") == {name: expected[name] for name in ("frames", "visual_prompts")}


def test_finished_work_is_a_comparison_that_loads_no_torch(cache: Path, folder: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from cache.manifest import Dataset\n"
        "from extract.extractor import extract\n"
        "from tests.extract.kitchen import make_config\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "config = make_config(folder, 'frames', 'visual_prompts', 'joints', 'text')\n"
        "dataset = Dataset.read(folder / 'dataset', videos=folder / 'videos')\n"
        f"summary = extract(dataset, pathlib.Path({str(cache)!r}), config)\n"
        "assert summary.already_done and summary.streams['frames'].ok == 8, summary\n"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules\n"
    )
    before = sorted((path, path.stat().st_mtime_ns) for path in cache.rglob("*"))
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert sorted((path, path.stat().st_mtime_ns) for path in cache.rglob("*")) == before


@pytest.mark.slow
def test_a_killed_run_that_is_continued_has_the_same_content(
    cache: Path, folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    target = tmp_path / "killed"
    process = run_in_process(folder, target, workers=2)
    deadline = time.monotonic() + 60
    while not list(target.glob("frames/shard-*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    committed = {path: path.read_bytes() for path in target.glob("*/shard-*.json")}
    assert committed
    assert not extract(dataset, target, make_config(folder), workers=1).already_done
    assert all(path.read_bytes() == content for path, content in committed.items())
    expected = contents(cache)
    found = contents(target)
    assert all(found[name] == expected[name] for name in ("frames", "visual_prompts"))
    assert not list(target.rglob("*.tmp"))


def test_a_lost_stream_and_a_lost_shard_are_made_again_and_nothing_else_is_touched(
    cache: Path, folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    target = tmp_path / "damaged"
    shutil.copytree(cache, target)
    shutil.rmtree(target / "visual_prompts")
    (target / "frames" / "shard-00001.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in target.rglob("*.h5") if not path.name.startswith("shard-00001")}
    summary = extract(dataset, target, make_config(folder, "frames", "visual_prompts"))
    assert summary.num_clips_decoded == len(dataset.clips)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(target) == contents(cache)


def test_part_of_the_shards_is_enough_for_one_process(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = make_config(folder, "frames")
    first = extract(dataset, tmp_path / "parts", config, shards="0/2")
    assert (first.num_shards, first.num_clips_decoded) == (2, 7)
    second = extract(dataset, tmp_path / "parts", config, shards="1/2")
    assert first.num_clips_decoded + second.num_clips_decoded == len(dataset.clips)
    assert extract(dataset, tmp_path / "parts", config).already_done


def test_other_settings_are_refused_before_anything_is_decoded(cache: Path, folder: Path, dataset: Dataset) -> None:
    config = make_config(folder)
    changed = ExtractConfig(streams=config.streams, num_frames=16, image_encoder=config.image_encoder)
    with pytest.raises(FingerprintMismatch, match=r"sampling.num_frames: the cache has 6, asked for 16"):
        extract(dataset, cache, changed)


def test_failed_clips_are_retried_only_when_asked(folder: Path, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "repaired")
    config = make_config(folder, "frames")
    extract(dataset, tmp_path / "cache", config)
    before = [bytes(jpeg) for jpeg in FeatureStore.open(tmp_path / "cache").frames["04-long-0"]]
    make_video(dataset.video_root / "gone.mp4", num_frames=20)
    assert extract(dataset, tmp_path / "cache", config).already_done
    summary = extract(dataset, tmp_path / "cache", config, retry_failed=True)
    assert summary.num_clips_decoded == 3
    assert summary.streams["frames"].failed == {"not_a_video": 1, "too_short": 1}
    store = FeatureStore.open(tmp_path / "cache")
    assert len(store.frames["01-gone"]) == NUM_FRAMES
    assert [bytes(jpeg) for jpeg in store.frames["04-long-0"]] == before


def test_a_grown_dataset_adds_shards_and_leaves_the_old_ones(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    target = tmp_path / "grown"
    config = make_config(folder, "frames")
    extract(dataset, target, config)
    more = Dataset(
        name="more",
        version="1",
        tasks=dataset.tasks,
        protocols={},
        clips=(*dataset.clips, Clip(id="00-again", video="0.mp4")),
        video_root=dataset.video_root,
    )
    assert extract(more, target, config).num_clips_decoded == 1
    assert len(Plan.load(target).shards) == 4
    assert "00-again" in FeatureStore.open(target).frames


def test_joints_without_boxes_are_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="'whole_frame' or 'file'"):
        ExtractConfig(streams=("joints",))


def test_progress_is_told_after_every_clip(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    extract(dataset, tmp_path / "c", make_config(folder, "frames"), progress=lambda *counts: told.append(counts))
    assert [done for done, _, _ in told] == list(range(1, len(dataset.clips) + 1))
    assert told[-1][1:] == (len(FAILURES), len(dataset.clips))


def test_the_dry_run_counts_what_is_missing_and_writes_nothing(
    cache: Path, folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    fresh = plan(dataset, tmp_path / "none", make_config(folder))
    assert not (tmp_path / "none").exists()
    assert fresh.streams["frames"].num_left == len(dataset.clips)
    assert [path.name for path in fresh.missing_videos] == ["gone.mp4"]
    assert any("text.mp4" in line for line in fresh.unreadable_videos)
    assert fresh.hours > 0
    assert fresh.gigabytes_left > 0
    automatic = plan(dataset, tmp_path / "none", make_config(folder), device="auto")
    assert automatic.hours == fresh.hours
    assert "'auto' counts as cpu" in " ".join(automatic.assumptions)
    gpu = plan(dataset, cache, make_config(folder), device="cuda:1")
    assert "'cuda:1' counts as cuda" in " ".join(gpu.assumptions)
    finished = plan(dataset, cache, make_config(folder))
    assert (finished.shards_left, finished.hours, finished.gigabytes_left) == ((), 0.0, 0.0)
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    shutil.copytree(cache, tmp_path / "copy")
    (tmp_path / "copy" / "frames" / "shard-00000.json").unlink()
    partly = plan(dataset, tmp_path / "copy", make_config(folder))
    assert (partly.shards_left, partly.streams["frames"].num_left) == ((0,), 4)
    assert partly.streams["visual_prompts"].num_left == 0


@pytest.mark.slow
def test_real_videos_go_through_real_architectures(tmp_path: Path) -> None:
    data = os.environ.get("DECONFOUND_TEST_DATA", "")
    if not (Path(data) / "videos").is_dir():
        pytest.skip("DECONFOUND_TEST_DATA names no folder with videos/")
    names = sorted(path.name for path in (Path(data) / "videos").iterdir() if path.suffix != ".md")
    dataset = Dataset(
        name="real",
        version="1",
        tasks=(TASK,),
        protocols={},
        clips=tuple(Clip(id=name, video=name) for name in names),
        video_root=Path(data) / "videos",
    )
    config = ExtractConfig(
        streams=("frames", "visual_prompts", "joints", "text"),
        num_frames=4,
        image_encoder=ImageEncoderConfig(model="ViT-B-32", pretrained="none", batch_size=16),
        pose=PoseConfig(weights="none", boxes="whole_frame", batch_size=4),
    )
    summary = extract(dataset, tmp_path / "cache", config)
    for stream in ("frames", "visual_prompts", "joints"):
        assert summary.streams[stream].ok == len(names) - 1
        assert summary.streams[stream].failed == {"corrupt": 1}
    store = FeatureStore.open(tmp_path / "cache")
    assert store.visual_prompts["mmaction2_demo.mp4"].shape == (4, 512)
    assert len(store.notices) == 3
