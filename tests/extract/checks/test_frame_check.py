import json
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import fingerprint
from cache.comparison import compare
from cache.errors import CacheError
from cache.manifest import Clip, Dataset
from cache.rows import ClipRows
from cache.shard import write_shard
from cache.sidecar import sidecars
from cache.store import FeatureStore
from extract.checks import frame_check
from extract.checks.frame_check import ClipCheck, FrameReport, check_frames
from extract.checks.frame_comparison import unpack_jpeg
from extract.checks.referees import Referee, find_ffmpeg
from extract.config import DecodingConfig, ExtractConfig, FramesConfig
from extract.decoding.clip_pixels import encode_jpeg
from extract.extractor import extract
from extract.shards.committed import clip_rows
from extract.video.probe import probe
from tests.extract.video.test_decode import ODD_VIDEOS, real_videos
from tests.extract.videos import all_frames, copy_from, make_video

FRAMES = FramesConfig()
NOT_PLAIN = {"ten_bit.mp4"}
needs_ffmpeg = pytest.mark.skipif(find_ffmpeg() is None, reason="no ffmpeg program on PATH, no imageio-ffmpeg")


def make_odd_dataset(videos: Path) -> Dataset:
    """A clip of every odd video, one cut by an edit list, and spans of two of them."""
    videos.mkdir(parents=True)
    for name, settings in ODD_VIDEOS.items():
        make_video(videos / name, **settings)
    copy_from(make_video(videos / "long_gop.mp4", gop=60), videos / "cut.mp4", 0.5)
    clips = [Clip(id=name, video=name) for name in (*ODD_VIDEOS, "cut.mp4")]
    clips += [
        Clip(id=f"span-{name}", video=name, start_seconds=0.4, end_seconds=1.3)
        for name in ("plain.mp4", "bframes.avi", "variable.mp4")
    ]
    return Dataset(name="odd", version="1", tasks=(), protocols={}, clips=tuple(clips), video_root=videos)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_odd_dataset(tmp_path_factory.mktemp("odd") / "videos")


@pytest.fixture(scope="module")
def cache(dataset: Dataset) -> Path:
    folder = dataset.video_root.parent / "cache"
    extract(dataset, folder, ExtractConfig(streams=("frames",), num_frames=6, shard_size=100))
    return folder


@pytest.fixture(scope="module")
def report(cache: Path, dataset: Dataset) -> FrameReport:
    return check_frames(cache, dataset, num_clips=100)


def changed(cache: Path, target: Path, changes: dict[str, Callable[[ClipRows], ClipRows]]) -> Path:
    """A cache of some clips of `cache`, with other rows and valid checksums."""
    (sidecar,) = sidecars(cache / "frames")
    rows = {rows.clip_id: rows for rows in clip_rows(cache / "frames", sidecar)}
    mark = fingerprint.load(cache / "frames")
    fingerprint.ensure(target / "frames", mark)
    made = [change(rows[clip_id]) for clip_id, change in changes.items()]
    write_shard(target / "frames", 0, "frames", made, fingerprint=mark)
    (target / "plan.json").write_bytes((cache / "plan.json").read_bytes())
    return target


def check_one(target: Path, dataset: Dataset) -> ClipCheck:
    (check,) = check_frames(target, dataset, num_clips=1).clips
    return check


def with_frame(rows: ClipRows, dataset: Dataset, number: int, step: int) -> ClipRows:
    """Row `number` shows the frame `step` later, as a decoder would that is off by so many."""
    path = dataset.video_path(dataset.clip(rows.clip_id))
    picture = all_frames(path, probe(path).rotation)[int(rows.frame_index[number]) + step]
    jpegs = [bytes(jpeg) for jpeg in rows.fields["jpeg"]]
    jpegs[number] = encode_jpeg(np.ascontiguousarray(picture), FRAMES)
    return replace(rows, fields={"jpeg": jpegs})


def shifted(rows: ClipRows, *, seconds: float = 0.0, frames: int = 0) -> ClipRows:
    return replace(rows, pts_seconds=rows.pts_seconds + seconds, frame_index=rows.frame_index + frames)


def test_right_frames_of_every_kind_of_video_pass(report: FrameReport, dataset: Dataset) -> None:
    assert report.problems == []
    assert {clip.clip_id for clip in report.clips} == {clip.id for clip in dataset.clips}
    assert {clip.clip_id: clip.outcome for clip in report.clips if clip.clip_id not in NOT_PLAIN} == {
        clip.id: "equal" for clip in dataset.clips if clip.id not in NOT_PLAIN
    }
    assert all(clip.num_rows == clip.num_equal == 6 for clip in report.clips if clip.outcome == "equal")
    assert max(clip.worst_seconds for clip in report.clips) < 1e-6


@needs_ffmpeg
def test_the_referee_is_never_the_decoder_that_made_the_row(report: FrameReport) -> None:
    pairs = {(clip.decoder.split()[0], clip.referee.split()[0]) for clip in report.clips}
    assert pairs <= {("decord", "PyAV"), ("PyAV", "ffmpeg")}
    assert ("PyAV", "ffmpeg") in pairs


def test_without_the_program_the_same_library_decodes_and_the_report_says_so(
    cache: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_check, "find_ffmpeg", lambda: None)
    found = check_frames(cache, dataset, num_clips=100)
    assert found.outcomes == {"equal": len(dataset.clips), "close": 0, "wrong": 0, "unreadable": 0, "not checked": 0}
    assert "the same library, but sequential" in found.to_text()
    hevc = next(clip for clip in found.clips if clip.clip_id == "hevc.mp4")
    assert hevc.referee.startswith("PyAV")


def test_a_row_with_the_frame_of_another_moment_is_found(cache: Path, dataset: Dataset, tmp_path: Path) -> None:
    names = ("plain.mp4", "bframes.avi", "hevc.mp4", "ten_bit.mp4", "turned.mp4", "cut.mp4", "variable.mp4")

    def spoil(rows: ClipRows) -> ClipRows:
        for number, step in ((1, 5), (3, -1), (4, 1)):
            rows = with_frame(rows, dataset, number, step)
        return rows

    target = changed(cache, tmp_path, dict.fromkeys(names, spoil))
    for check in check_frames(target, dataset, num_clips=100).clips:
        assert (check.outcome, check.num_wrong) == ("wrong", 3), check
        assert check.message.startswith("row 1 differs by ")
        assert check.message.endswith("from the frame 5 later (and 2 more of 6 rows)")


def test_a_neighbour_is_found_where_hardly_anything_moves(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    path = tmp_path / "videos" / "still.mp4"
    make_still_video(path)
    every = all_frames(path)
    assert np.abs(every[30].astype(int) - every[31]).mean() < 0.2
    clip = Clip(id="still", video="still.mp4")
    dataset = Dataset(name="s", version="1", tasks=(), protocols={}, clips=(clip,), video_root=path.parent)
    extract(dataset, tmp_path / "cache", ExtractConfig(streams=("frames",), num_frames=6))
    good = check_one(tmp_path / "cache", dataset)
    target = changed(tmp_path / "cache", tmp_path / "bad", {"still": lambda rows: with_frame(rows, dataset, 3, 1)})
    bad = check_one(target, dataset)
    assert (good.outcome, bad.outcome, bad.num_wrong) == ("equal", "wrong", 1)


def make_still_video(path: Path) -> None:
    """Noise that rests, and a small square that creeps."""
    import av

    base = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 192, 256, "yuv420p"
        for index in range(60):
            picture = base.copy()
            picture[90:98, 2 * index : 2 * index + 8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("seconds", [0.01, -0.01, 100.0])
def test_times_of_no_frame_are_found(cache: Path, dataset: Dataset, tmp_path: Path, seconds: float) -> None:
    names = ("plain.mp4", "bframes.avi", "cut.mp4", "variable.mp4")
    target = changed(cache, tmp_path, dict.fromkeys(names, lambda rows: shifted(rows, seconds=seconds)))
    for check in check_frames(target, dataset, num_clips=100).clips:
        assert (check.outcome, check.num_wrong) == ("wrong", 6), check
        assert check.worst_seconds > 95 if seconds == 100 else check.worst_seconds == pytest.approx(0.01, abs=1e-6)


def test_times_of_the_next_frame_are_found(cache: Path, dataset: Dataset, tmp_path: Path) -> None:
    names = ("plain.mp4", "bframes.avi", "cut.mp4")
    target = changed(cache, tmp_path, dict.fromkeys(names, lambda rows: shifted(rows, seconds=1 / 30, frames=1)))
    for check in check_frames(target, dataset, num_clips=100).clips:
        assert (check.outcome, check.num_wrong) == ("wrong", 6), check
        assert "from the frame 1 earlier" in check.message


def test_a_wrong_number_of_the_frame_is_found(cache: Path, dataset: Dataset, tmp_path: Path) -> None:
    check = check_one(changed(cache, tmp_path, {"plain.mp4": lambda rows: shifted(rows, frames=1)}), dataset)
    assert (check.outcome, check.num_wrong) == ("wrong", 6)
    assert "row 0 says that it is frame 6, its time is that of frame 5 at 0.167 s" in check.message


def test_what_is_no_picture_of_the_video_is_found(cache: Path, dataset: Dataset, tmp_path: Path) -> None:
    def spoil(rows: ClipRows) -> ClipRows:
        jpegs = [bytes(jpeg) for jpeg in rows.fields["jpeg"]]
        jpegs[1] = b"not a JPEG"
        jpegs[2] = encode_jpeg(np.zeros((32, 32, 3), np.uint8), FRAMES)
        jpegs[3] = encode_jpeg(np.full((96, 128, 3), 128, np.uint8), FRAMES)
        return replace(rows, fields={"jpeg": jpegs})

    check = check_one(changed(cache, tmp_path, {"plain.mp4": spoil}), dataset)
    assert (check.outcome, check.num_wrong, check.num_equal) == ("wrong", 3, 3)


def test_jpegs_of_another_library_are_close_and_pass(cache: Path, dataset: Dataset, tmp_path: Path) -> None:
    every = all_frames(dataset.video_path(dataset.clip("plain.mp4")))
    rounding = np.random.default_rng(0).integers(-1, 2, every[0].shape)

    def encode_otherwise(rows: ClipRows) -> ClipRows:
        pictures = [np.clip(every[index] + rounding, 0, 255).astype(np.uint8) for index in rows.frame_index]
        return replace(rows, fields={"jpeg": [encode_jpeg(picture, FRAMES) for picture in pictures]})

    target = changed(cache, tmp_path, {"plain.mp4": encode_otherwise})
    check = check_one(target, dataset)
    assert (check.outcome, check.num_wrong, check.num_equal) == ("close", 0, 0)
    assert 0.5 < check.worst_difference < 2
    comparison = compare(cache, target, atol=20, unpack_jpeg=unpack_jpeg).streams["frames"]
    assert comparison.problems == [line for line in comparison.problems if "only here" in line]
    assert 1 <= comparison.differences["jpeg"].value <= 20


def test_rows_of_any_number_are_checked_by_their_own_times(cache: Path, dataset: Dataset, tmp_path: Path) -> None:
    def half(rows: ClipRows) -> ClipRows:
        jpegs = [bytes(jpeg) for jpeg in rows.fields["jpeg"]][::2]
        return replace(
            rows, fields={"jpeg": jpegs}, pts_seconds=rows.pts_seconds[::2], frame_index=rows.frame_index[::2]
        )

    check = check_one(changed(cache, tmp_path, {"hevc.mp4": half}), dataset)
    assert (check.outcome, check.num_rows) == ("equal", 3)


def test_densely_sampled_frames_pass(dataset: Dataset, tmp_path: Path) -> None:
    clips = tuple(clip for clip in dataset.clips if clip.video in ("plain.mp4", "bframes.avi", "variable.mp4"))
    some = replace(dataset, clips=clips)
    extract(some, tmp_path, ExtractConfig(streams=("frames",), sampling="every_nth", every_nth=4))
    report = check_frames(tmp_path, some, num_clips=100)
    assert report.outcomes["equal"] == len(clips) == 6
    assert {clip.num_rows for clip in report.clips} >= {15, 7}


def test_another_file_or_none_is_not_checked_and_that_alone_is_no_success(
    cache: Path, dataset: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(dataset.video_root, tmp_path / "videos")
    make_video(tmp_path / "videos" / "plain.mp4", seed=9)
    (tmp_path / "videos" / "hevc.mp4").unlink()
    dataset = replace(dataset, video_root=tmp_path / "videos")
    some = check_frames(cache, dataset, num_clips=100)
    skipped = {clip.clip_id: clip.message for clip in some.clips if clip.outcome == "not checked"}
    assert set(skipped) == {"plain.mp4", "span-plain.mp4", "hevc.mp4"}
    assert "another file" in skipped["plain.mp4"]
    assert "no such file" in skipped["hevc.mp4"]
    assert some.problems == []
    nowhere = replace(dataset, video_root=tmp_path / "nowhere")
    none = check_frames(cache, nowhere, num_clips=2)
    assert none.outcomes["not checked"] == 2
    assert "--videos" in none.problems[0]


def test_clips_are_chosen_by_the_seed(cache: Path, dataset: Dataset) -> None:
    first, again, other = (check_frames(cache, dataset, num_clips=3, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert [clip.clip_id for clip in first.clips] != [clip.clip_id for clip in other.clips]
    assert len(first.clips) == 3


def test_a_program_that_hangs_is_stopped(
    cache: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(frame_check, "find_ffmpeg", lambda: Referee(name="stuck", program=str(program)))
    target = changed(cache, tmp_path / "one", {"hevc.mp4": lambda rows: rows})
    (check,) = check_frames(target, dataset, num_clips=1, decoding=DecodingConfig(timeout_seconds=2)).clips
    assert check.outcome == "unreadable"
    assert "gave no frame for 1.6 s and was stopped" in check.message


def never_ends(*_: object) -> Iterator[Any]:
    import time

    time.sleep(600)
    yield None


def test_a_decoder_that_hangs_is_killed(cache: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_check, "recheck_video", never_ends)
    report = check_frames(cache, dataset, num_clips=1, decoding=DecodingConfig(timeout_seconds=0.5))
    assert report.outcomes["unreadable"] == 1
    assert "no sign of life" in report.problems[0]


def test_the_report_is_one_json_object_and_a_few_lines(report: FrameReport, dataset: Dataset) -> None:
    body = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert body["outcomes"]["wrong"] == 0
    assert body["num_rows"] == 6 * len(dataset.clips)
    assert {"clip_id", "outcome", "worst_difference", "referee"} <= set(body["clips"][0])
    assert f"{len(dataset.clips)} random clips (seed 0)" in report.to_text()


def test_a_dataset_of_other_clips_is_refused(cache: Path, dataset: Dataset) -> None:
    with pytest.raises(CacheError, match="none is of dataset 'odd'"):
        check_frames(cache, replace(dataset, clips=(Clip(id="else", video="plain.mp4"),)), num_clips=1)


@pytest.mark.slow
def test_real_videos_pass(tmp_path: Path) -> None:
    paths = [path for path in real_videos() if path.name != "decord_corrupted.mp4"]
    if not paths:
        pytest.skip("DECONFOUND_TEST_DATA names no folder with videos/")
    clips = tuple(Clip(id=path.name, video=path.name) for path in paths)
    dataset = Dataset(name="real", version="1", tasks=(), protocols={}, clips=clips, video_root=paths[0].parent)
    extract(dataset, tmp_path / "cache", ExtractConfig(streams=("frames",), num_frames=8))
    report = check_frames(tmp_path / "cache", dataset, num_clips=100)
    assert report.problems == []
    assert report.outcomes["equal"] >= len(clips) - 1  # all but the one of 10 bits
    assert FeatureStore.open(tmp_path / "cache").frames.num_rows(clips[0].id) == 8
