"""However a clip is cut into pieces, and by whichever decoder, it is the same to the last bit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from extract.video import decord_reader, pieces
from extract.video.decode import DecodedClip, DecodedTimes, decode, decode_clips, decode_pieces, instants_of_span
from extract.video.pieces import Piece
from extract.video.probe import VideoInfo, probe
from extract.video.sampling import Sampling
from tests.extract.video.test_decode import ODD_VIDEOS, decode_whole, real_videos
from tests.extract.videos import make_video


def small_pieces(monkeypatch: pytest.MonkeyPatch, num_frames: int, size: tuple[int, int] = (96, 128)) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", num_frames * size[0] * size[1] * 3)


def assert_same(first: DecodedClip, second: DecodedClip) -> None:
    np.testing.assert_array_equal(first.images, second.images)
    for name in ("image_of_instant", "pts_seconds", "frame_index"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("name", ["plain.mp4", "vp9.webm", "bframes.avi", "turned.mp4", "variable.mp4"])
@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_clip_is_the_same_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_sparse: bool
) -> None:
    path = make_video(tmp_path / name, **ODD_VIDEOS[name])
    whole = decode_whole(path, 25)
    small_pieces(monkeypatch, 3)
    monkeypatch.setattr(decord_reader, "_FRAMES_PER_SEEK", 0 if is_sparse else 1000)
    info = probe(path)
    requests = [instants_of_span(info, None, None, 25), instants_of_span(info, 0.3, 1.1, 7)]
    sizes = [len(event.images) for position, event in decode_pieces(path, info, requests) if isinstance(event, Piece)]
    assert max(sizes) <= 3
    again = dict(decode_clips(path, info, requests))[0]
    assert isinstance(again, DecodedClip)
    assert_same(whole, again)
    if decord_reader.is_right_for(info):
        assert again.decoder.split()[0] == ("decord" if is_sparse else "PyAV")


@pytest.mark.skipif(not decord_reader.is_installed(), reason="decord has no wheel for this platform")
@pytest.mark.parametrize("path", real_videos() or [None], ids=lambda path: path.name if path else "none")
def test_pieces_of_real_videos_are_the_same_from_either_decoder(
    path: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path is None:
        pytest.skip("DECONFOUND_TEST_DATA names no folder with videos/")
    info = probe(path)
    if not decord_reader.is_right_for(info) or path.name == "decord_corrupted.mp4":
        pytest.skip("decord is not used")
    instants = instants_of_span(info, None, min(info.duration_seconds, 12.0), 10)
    whole = decode(path, info, instants)
    small_pieces(monkeypatch, 2, (info.height, info.width))
    for frames_per_seek, decoder in ((0, "decord"), (1000, "PyAV")):
        monkeypatch.setattr(decord_reader, "_FRAMES_PER_SEEK", frames_per_seek)
        clip = decode(path, info, instants)
        assert clip.decoder.startswith(decoder)
        assert_same(whole, clip)


def test_frames_that_fall_on_an_instant_are_the_same_from_either_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "plain.mp4")
    info = probe(path)
    instants = info.frame_seconds[1:]  # to the last bit: any other rounding of a clock shows the frame before
    fast = decode(path, info, instants)
    small_pieces(monkeypatch, 8)
    slow = decode(path, info, instants)
    assert slow.frame_index.tolist() == list(range(1, 60))
    assert_same(fast, slow)


def test_what_decord_gave_before_a_doubt_is_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "plain.mp4")
    truth = decode_whole(path)

    def doubtful(_path: Path, info: VideoInfo, *_: object) -> Iterator[Piece]:
        yield Piece(first=0, images=np.zeros((2, info.height, info.width, 3), np.uint8))
        raise decord_reader.Doubt("on second thoughts")

    monkeypatch.setattr(decord_reader, "is_right_for", lambda _: True)
    monkeypatch.setattr(decord_reader, "read", doubtful)
    again = decode_whole(path)
    assert again.decoder.startswith("PyAV")
    np.testing.assert_array_equal(again.images, truth.images)


def test_clips_that_are_read_together_share_the_room_for_waiting_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "bframes.avi", codec="mpeg4")
    info = probe(path)
    small_pieces(monkeypatch, 4)
    requests = [instants_of_span(info, None, None, Sampling(every_nth=1))] * 3
    waiting = dict.fromkeys(range(3), 0)
    for position, event in decode_pieces(path, info, requests):
        if isinstance(event, Piece):
            assert event.first == waiting[position]
            assert len(event.images) <= 2  # of 4 frames over 3 clips
            waiting[position] += len(event.images)
        else:
            assert isinstance(event, DecodedTimes)
    assert waiting == dict.fromkeys(range(3), 60)
