import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cache.errors import FailureCode, VideoError
from extract.video import decode as decoding
from extract.video import decord_reader
from extract.video.decode import DecodedClip, decode, decode_clips, instants_of_span
from extract.video.probe import probe
from extract.video.sampling import Sampling, frames_on_screen
from tests.extract.videos import all_frames, copy_from, make_video

NUM_FRAMES = 16
ODD_VIDEOS: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "plain.mkv": {},
    "bframes.avi": {"codec": "mpeg4"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "ten_bit.mp4": {"pixel_format": "yuv420p10le"},
    "variable.mp4": {"times_ms": [33 * i if i < 40 else 1320 + 200 * (i - 40) for i in range(60)]},
    "turned.mp4": {"rotation": 90},
    "upside_down.mp4": {"rotation": 180},
    "short.mp4": {"num_frames": 5},
    "single.mp4": {"num_frames": 1},
}


def real_videos() -> list[Path]:
    folder = Path(os.environ.get("DECONFOUND_TEST_DATA", "")) / "videos"
    kinds = {".mp4", ".mkv", ".avi", ".mov"}
    return sorted(path for path in folder.glob("*") if path.suffix in kinds) if folder.is_dir() else []


def assert_equal_to_sequential(path: Path, clip: DecodedClip) -> None:
    info = probe(path)
    every = all_frames(path, info.rotation)
    assert len(every) == info.num_frames
    for position, index in enumerate(clip.frame_index):
        np.testing.assert_array_equal(clip.frames[position], every[index])
    np.testing.assert_allclose(clip.pts_seconds, info.frame_seconds[clip.frame_index], atol=1e-6)


def decode_whole(path: Path, num_frames: int = NUM_FRAMES) -> DecodedClip:
    info = probe(path)
    return decode(path, info, instants_of_span(info, None, None, num_frames))


@pytest.mark.parametrize("name", ODD_VIDEOS)
def test_frames_of_odd_videos_equal_sequential_decoding(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, **ODD_VIDEOS[name])
    assert_equal_to_sequential(path, decode_whole(path))


@pytest.mark.parametrize("path", real_videos() or [None], ids=lambda path: path.name if path else "none")
def test_frames_of_real_videos_equal_sequential_decoding(path: Path | None) -> None:
    if path is None:
        pytest.skip("DECONFOUND_TEST_DATA names no folder with videos/")
    if path.name == "decord_corrupted.mp4":
        with pytest.raises(VideoError, match="damaged") as caught:
            decode_whole(path)
        assert caught.value.code == FailureCode.CORRUPT
    else:
        assert_equal_to_sequential(path, decode_whole(path))


@pytest.mark.parametrize("name", ["plain.mp4", "bframes.avi", "turned.mp4"])
def test_the_frame_at_an_instant_is_the_one_on_screen(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, **ODD_VIDEOS[name])
    clip = decode(path, probe(path), np.array([0.0, 0.5, 0.999, 1.0]))
    assert clip.frame_index.tolist() == [0, 15, 29, 30]


def test_a_cut_copy_shows_what_the_edit_list_says(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", num_frames=60, gop=60)
    cut = copy_from(source, tmp_path / "cut.mp4", 0.5)
    clip = decode(cut, probe(cut), np.array([0.0, 1.0]))
    original = all_frames(source)
    np.testing.assert_array_equal(clip.frames[0], original[15])
    np.testing.assert_array_equal(clip.frames[1], original[45])


def test_a_short_clip_repeats_instants_and_counts_distinct_frames(tmp_path: Path) -> None:
    clip = decode_whole(make_video(tmp_path / "short.mp4", num_frames=5), 16)
    assert clip.frames.shape[0] == 16
    assert clip.num_distinct_frames == 5
    assert set(clip.frame_index.tolist()) == set(range(5))
    assert set(np.round(clip.pts_seconds * 30).tolist()) == set(range(5))


@pytest.mark.parametrize("name", ["plain.mp4", "hevc.mp4", "bframes.avi"])
def test_overlapping_clips_of_one_video_equal_clips_read_alone(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, **ODD_VIDEOS[name])
    info = probe(path)
    spans = [(1.2, 1.9), (0.1, 1.5), (None, None), (0.8, 0.9)]
    requests = [instants_of_span(info, start, end, 4) for start, end in spans]
    together = dict(decode_clips(path, info, requests))
    assert set(together) == {0, 1, 2, 3}
    for position, instants in enumerate(requests):
        found = together[position]
        assert isinstance(found, DecodedClip)
        assert_equal_to_sequential(path, found)
        np.testing.assert_array_equal(found.frames, decode(path, info, instants).frames)
        assert (found.pts_seconds <= instants).all()


def test_a_clip_after_the_end_is_too_short_and_a_late_end_is_cut(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "plain.mp4"))
    with pytest.raises(VideoError) as caught:
        instants_of_span(info, 5.0, 9.0, 4)
    assert caught.value.code == FailureCode.TOO_SHORT
    np.testing.assert_allclose(instants_of_span(info, 1.0, 99.0, 1), [1.5])


def test_damage_in_the_middle_is_corrupt_unless_tolerated(tmp_path: Path) -> None:
    path = make_video(tmp_path / "plain.mp4", num_frames=120, gop=120)
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(content)
    info = probe(path)
    instants = instants_of_span(info, None, None, NUM_FRAMES)
    with pytest.raises(VideoError) as caught:
        decode(path, info, instants)
    assert caught.value.code == FailureCode.CORRUPT
    assert len(decode(path, info, instants, min_decodable=0.0).frames) == NUM_FRAMES


def test_a_change_of_size_inside_a_video_is_refused(tmp_path: Path) -> None:
    for size, name in (((96, 128), "small.ts"), ((192, 256), "large.ts")):
        make_video(tmp_path / name, size=size)
    joined = tmp_path / "joined.ts"
    joined.write_bytes((tmp_path / "small.ts").read_bytes() + (tmp_path / "large.ts").read_bytes())
    info = probe(joined, min_decodable=0.0)
    with pytest.raises(VideoError) as caught:
        decode(joined, info, instants_of_span(info, None, None, NUM_FRAMES), min_decodable=0.0)
    assert caught.value.code == FailureCode.RESOLUTION_CHANGE


@pytest.mark.skipif(not decord_reader.is_installed(), reason="decord has no wheel for this platform")
@pytest.mark.parametrize(
    ("name", "fast"), [("plain.mp4", True), ("plain.mkv", True), ("vp9.webm", True), ("bframes.avi", False)]
    + [(name, False) for name in ("hevc.mp4", "ten_bit.mp4", "variable.mp4", "turned.mp4")],
)  # fmt: skip
def test_decord_is_used_only_where_it_is_right(tmp_path: Path, name: str, fast: bool) -> None:
    clip = decode_whole(make_video(tmp_path / name, **ODD_VIDEOS[name]))
    assert clip.decoder.split()[0] == ("decord" if fast else "PyAV")


def test_without_decord_every_frame_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "plain.mp4")
    before = decode_whole(path)
    monkeypatch.setattr(decord_reader, "is_installed", lambda: False)
    after = decode_whole(path)
    assert after.decoder.startswith("PyAV")
    np.testing.assert_array_equal(before.frames, after.frames)
    np.testing.assert_array_equal(before.frame_index, after.frame_index)
    np.testing.assert_allclose(before.pts_seconds, after.pts_seconds, atol=1e-9)


@pytest.mark.parametrize("name", ODD_VIDEOS)
def test_every_nth_frame_is_exactly_that_frame(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, **ODD_VIDEOS[name])
    info = probe(path)
    for step in (1, 3):
        clip = decode(path, info, instants_of_span(info, None, None, Sampling(every_nth=step)))
        assert clip.frame_index.tolist() == list(range(0, info.num_frames, step))
        assert clip.image_of_instant.tolist() == list(range(len(clip.frame_index)))
        assert_equal_to_sequential(path, clip)


@pytest.mark.parametrize("name", ["plain.mkv", "bframes.avi", "variable.mp4", "hevc.mp4"])
def test_every_nth_frame_of_a_span_starts_with_the_frame_on_screen(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, **ODD_VIDEOS[name])
    info = probe(path)
    start, end = (info.frame_seconds[7] + info.frame_seconds[8]) / 2, info.frame_seconds[31]
    clip = decode(path, info, instants_of_span(info, start, end, Sampling(every_nth=2)))
    assert clip.frame_index.tolist() == list(range(7, 31, 2))


@pytest.mark.parametrize("name", ["plain.mkv", "bframes.avi", "variable.mp4", "single.mp4"])
@pytest.mark.parametrize("fps", [0.2, 4.0, 70.0])
def test_a_rate_shows_what_the_table_of_frames_says(tmp_path: Path, name: str, fps: float) -> None:
    path = make_video(tmp_path / name, **ODD_VIDEOS[name])
    info = probe(path)
    instants = instants_of_span(info, None, None, Sampling(fps=fps))
    clip = decode(path, info, instants)
    assert len(instants) == max(1, round(info.duration_seconds * fps))
    np.testing.assert_array_equal(clip.frame_index, frames_on_screen(info.frame_seconds, instants))
    assert_equal_to_sequential(path, clip)


def test_a_clock_that_claims_years_is_no_request_for_billions_of_rows(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "slow.mkv", times_ms=[0, 1_000_000_000], num_frames=2))
    assert len(instants_of_span(info, None, None, Sampling(num_frames=4))) == 4
    assert len(instants_of_span(info, None, None, Sampling(every_nth=1))) == 2
    with pytest.raises(VideoError, match=r"extract\.fps = 30") as caught:
        instants_of_span(info, None, None, Sampling(fps=30.0))
    assert caught.value.code == FailureCode.TOO_LARGE


NOTHING = bytes([0, 0, 1, 0xB6, 0x50, 0])
"""An MPEG-4 frame that says "not coded": FFmpeg takes it without an error and gives no frame."""


def hollow(path: Path, is_hollow: Callable[[int], bool]) -> Path:
    """A video some of whose packets decode to nothing."""
    source = make_video(path.with_name(f"source-{path.name}"), codec="mpeg4", b_frames=0, gop=100)
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream: Any = given.streams.video[0]
        copy = container.add_stream_from_template(stream)
        packet: Any
        for number, packet in enumerate(packet for packet in given.demux(stream) if packet.size):
            written = av.Packet(NOTHING) if is_hollow(number) else packet
            written.pts, written.dts, written.time_base = packet.pts, packet.dts, packet.time_base
            written.stream = copy
            container.mux(written)
    return path


@pytest.mark.parametrize("name", ["hollow.mp4", "hollow.avi"])
def test_frames_that_are_promised_and_never_come_fail_the_clip(tmp_path: Path, name: str) -> None:
    path = hollow(tmp_path / name, lambda number: number >= 30)
    info = probe(path, min_decodable=1.0)
    assert info.num_frames == 60
    with pytest.raises(VideoError, match=r"promises 58 frames .* (29|3[01]) can be decoded") as caught:
        decode(path, info, instants_of_span(info, None, None, NUM_FRAMES))
    assert caught.value.code == FailureCode.FRAME_COUNT
    with pytest.raises(VideoError, match=r"promises 1 frames .* 0 can be decoded"):  # not the one before it
        decode(path, info, instants_of_span(info, 1.5, 1.6, 1))
    assert len(decode(path, info, instants_of_span(info, 0.0, 0.9, NUM_FRAMES)).frames) == NUM_FRAMES
    tolerant = decode(path, info, instants_of_span(info, None, None, NUM_FRAMES), min_decodable=0.0)
    assert tolerant.frame_index.max() <= 30


@pytest.mark.parametrize("name", ["gaps.mp4", "gaps.avi"])
def test_gaps_count_for_the_clips_that_they_are_in(tmp_path: Path, name: str) -> None:
    path = hollow(tmp_path / name, lambda number: 20 <= number < 28)
    info = probe(path)
    requests = [instants_of_span(info, start, end, 8) for start, end in ((0.0, 0.6), (0.5, 1.1), (1.0, 2.0))]
    results = dict(decode_clips(path, info, requests))
    assert isinstance(results[0], DecodedClip)
    assert isinstance(results[1], VideoError)
    assert isinstance(results[2], DecodedClip)


def test_the_real_numbers_decide_how_many_frames_are_too_few() -> None:
    fewest = decoding._fewest_frames
    assert [fewest(60, 0.9), fewest(9, 0.9), fewest(1, 0.9), fewest(60, 0.0), fewest(10, 1.0)] == [54, 8, 1, 0, 10]
