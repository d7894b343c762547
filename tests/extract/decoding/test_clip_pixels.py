"""What is kept of a clip while it is decoded, and that the rest is let go."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.encoder_spec import ImageEncoderSpec
from cache.errors import FailureCode
from extract.config import DecodingConfig, FramesConfig
from extract.decoding import clip_pixels, decode_process
from extract.decoding.decode_process import ClipSpan, Prepared, PrepareSettings, VideoJob, prepare_video
from extract.decoding.resizing import preprocess
from extract.video import decord_reader, pieces
from extract.video.decode import decode, decode_pieces, instants_of_span
from extract.video.pieces import Piece
from extract.video.probe import VideoInfo, probe
from extract.video.sampling import Sampling, Seconds
from tests.extract.videos import make_video

ROOT = Path(__file__).parents[3]
SPEC = ImageEncoderSpec(
    model="any", quick_gelu=True, embed_dim=4, image_size=32, mean=(0, 0, 0), std=(1, 1, 1), weights_sha256="none"
)
ALL = frozenset({"frames", "visual_prompts", "joints"})
SETTINGS = PrepareSettings(
    sampling=Sampling(every_nth=2), decoding=DecodingConfig(), frames=FramesConfig(quality=90), encoder=SPEC
)
HEIGHT, WIDTH = 96, 128


def prepare(path: Path, settings: PrepareSettings = SETTINGS, streams: frozenset[str] = ALL) -> list[Prepared]:
    spans = (ClipSpan(clip_id="whole"), ClipSpan(clip_id="part", start_seconds=0.5, end_seconds=1.0))
    found = prepare_video(VideoJob(path=path, spans=spans, streams=streams), settings, lambda: None)
    return sorted(found, key=lambda clip: clip.clip_id)


def limited(max_clip_bytes: int) -> PrepareSettings:
    return replace(SETTINGS, decoding=DecodingConfig(max_clip_bytes=max_clip_bytes))


@pytest.mark.parametrize("name", ["plain.mp4", "bframes.avi"])
@pytest.mark.parametrize("frames_per_piece", [1, 4, 1000])
def test_every_stream_is_what_whole_frames_would_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, frames_per_piece: int
) -> None:
    path = make_video(tmp_path / name, codec="mpeg4" if name.endswith("avi") else "libx264")
    info = probe(path)
    frames = decode(path, info, instants_of_span(info, None, None, Sampling(every_nth=2))).images
    monkeypatch.setattr(pieces, "PIECE_BYTES", frames_per_piece * HEIGHT * WIDTH * 3)
    part, whole = prepare(path)
    np.testing.assert_array_equal(whole.pixels["images"], frames)
    np.testing.assert_array_equal(whole.pixels["inputs"], preprocess(frames, SPEC).numpy())
    assert list(whole.jpegs) == [clip_pixels.encode_jpeg(frame, SETTINGS.frames) for frame in frames]
    assert whole.frame_index.tolist() == list(range(0, 60, 2))
    assert part.frame_index.tolist() == list(range(15, 30, 2))
    assert len(part.pixels["inputs"]) == len(part.jpegs) == 8


@pytest.mark.parametrize(
    ("stream", "expected"), [("frames", set()), ("visual_prompts", {"inputs"}), ("joints", {"images"})]
)
def test_only_what_a_stream_needs_is_kept(tmp_path: Path, stream: str, expected: set[str]) -> None:
    _, whole = prepare(make_video(tmp_path / "plain.mp4"), streams=frozenset({stream}))
    assert set(whole.pixels) == expected
    assert len(whole.jpegs) == (30 if stream == "frames" else 0)


def test_a_clip_that_will_be_too_large_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "plain.mp4")
    decoded: list[int] = []

    def counting(path: Path, info: VideoInfo, requests: Sequence[Seconds], **limits: Any) -> Any:  # noqa: ANN401
        decoded.append(len(requests))
        return decode_pieces(path, info, requests, **limits)

    monkeypatch.setattr(decode_process, "decode_pieces", counting)
    one_frame = HEIGHT * WIDTH * 3 + 3 * SPEC.image_size**2
    part, whole = prepare(path, limited(29 * one_frame))
    assert part.failure is None
    assert whole.failure is not None
    assert whole.failure.code == FailureCode.TOO_LARGE
    for key in ("max_clip_bytes = ", "extract.num_frames", "extract.fps", "extract.every_nth"):
        assert key in whole.failure.message
    assert decoded == [1]


def test_jpegs_count_as_they_come_and_fail_only_their_own_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "plain.mp4")
    part, whole = prepare(path, streams=frozenset({"frames"}))
    monkeypatch.setattr(pieces, "PIECE_BYTES", 4 * HEIGHT * WIDTH * 3)
    limit = sum(map(len, whole.jpegs)) - 1
    again, failed = prepare(path, limited(limit), streams=frozenset({"frames"}))
    assert again.jpegs == part.jpegs
    assert failed.failure is not None
    assert failed.failure.code == FailureCode.TOO_LARGE
    assert not failed.jpegs


def test_a_verdict_that_comes_at_the_end_fails_the_whole_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "plain.mp4", num_frames=120, gop=120)
    content = bytearray(path.read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(content)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 4 * HEIGHT * WIDTH * 3)
    part, whole = prepare(path)
    assert part.failure is None
    assert whole.failure is not None
    assert whole.failure.code == FailureCode.CORRUPT
    assert not whole.pixels
    assert not whole.jpegs


def test_what_was_kept_before_a_decoder_started_over_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "plain.mp4")
    _, expected = prepare(path)

    def doubtful(_path: Path, info: VideoInfo, *_: object) -> Iterator[Piece]:
        yield Piece(first=0, images=np.zeros((5, info.height, info.width, 3), np.uint8))
        raise decord_reader.Doubt("on second thoughts")

    monkeypatch.setattr(decord_reader, "is_right_for", lambda _: True)
    monkeypatch.setattr(decord_reader, "read", doubtful)
    _, whole = prepare(path)
    assert whole.jpegs == expected.jpegs
    for name, pixels in expected.pixels.items():
        np.testing.assert_array_equal(whole.pixels[name], pixels)


MEMORY = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from extract.decoding.decode_process import ClipSpan, VideoJob, prepare_video
from extract.video.sampling import Sampling
from tests.extract.decoding.test_clip_pixels import SETTINGS

def prepared(num_frames):
    job = VideoJob(
        path=Path(sys.argv[1]), spans=(ClipSpan(clip_id="a"),), streams=frozenset({"frames", "visual_prompts"})
    )
    (clip,) = prepare_video(job, replace(SETTINGS, sampling=Sampling(num_frames=num_frames)), lambda: None)
    assert len(clip.jpegs) == num_frames, clip
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = prepared(1)
print(prepared(200) - before)
"""


@pytest.mark.slow
def test_two_hundred_large_frames_are_never_held_together(tmp_path: Path) -> None:
    options = {"preset": "ultrafast"}
    path = make_video(tmp_path / "large.mp4", num_frames=200, size=(720, 1280), options=options)
    command = [sys.executable, "-c", MEMORY, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 200 * 720 * 1280 * 3 / 2
