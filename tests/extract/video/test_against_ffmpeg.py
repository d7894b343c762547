"""Sampled frames against the ffmpeg program, which decodes the whole file and tells the time of every frame itself.

Its build converts colours with other rounding, so frames are compared with a tolerance, and a frame counts as right
only if neither neighbour of it fits better. Other tests compare with PyAV exactly; this one does not share its library.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.video.decode import decode, instants_of_span
from extract.video.probe import probe
from tests.extract import ffmpeg_program
from tests.extract.video.test_decode import real_videos
from tests.extract.videos import copy_from, make_video

NUM_FRAMES = 16
LARGEST_MEAN_DIFFERENCE = {"yuv420p": 0.5, "yuv420p10le": 6.0}
"""Grey levels, by pixel format: ten bits are brought to eight by other roads."""
VFR = [33 * index if index < 40 else 1320 + 200 * (index - 40) for index in range(60)]
KINDS: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "bframes.avi": {"codec": "mpeg4"},
    "h264.avi": {},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "hevc_open_gop.mkv": {"codec": "libx265", "options": {"x265-params": "log-level=none:open-gop=1:keyint=12"}},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=12:scenecut=0"}},
    "open_gop.ts": {"options": {"x264-params": "open-gop=1:keyint=12:scenecut=0"}},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "plain.ts": {},
    "variable.mp4": {"times_ms": VFR},
    "variable.mkv": {"times_ms": VFR},
    "turned_90.mp4": {"rotation": 90},
    "turned_180.mp4": {"rotation": 180},
    "turned_270.mov": {"rotation": 270},
    "ten_bit.mp4": {"pixel_format": "yuv420p10le"},
}
UNDAMAGED = [path for path in real_videos() if path.name != "decord_corrupted.mp4"]


def wrong_frames(path: Path, start: float | None = None, end: float | None = None) -> list[str]:
    """One line for each of the sampled frames that is not what the ffmpeg program shows at its instant."""
    info = probe(path)
    tolerance = LARGEST_MEAN_DIFFERENCE[info.pixel_format]
    instants = instants_of_span(info, start, end, NUM_FRAMES)
    clip = decode(path, info, instants)
    told = ffmpeg_program.account(path)
    assert (clip.height, clip.width) == told.size
    shown = told.index_at(instants)
    around = {index + step for index in shown for step in (-1, 0, 1)} & set(range(len(told.seconds)))
    images = ffmpeg_program.frames(path, around, told.size)
    lines = []
    for position, index in enumerate(shown):
        ours = clip.frames[position].astype(np.int16)
        differences = {
            other: float(np.abs(images[other] - ours).mean())
            for other in (index - 1, index, index + 1)
            if other in images
        }
        best = min(differences, key=lambda other: (differences[other], abs(other - index)))
        if best != index or differences[index] > tolerance:
            lines.append(f"{instants[position]:.3f} s: frame {index} is asked for, differences {differences}")
        if abs(clip.pts_seconds[position] - told.seconds[index]) > 2e-3:
            lines.append(
                f"{instants[position]:.3f} s: {clip.pts_seconds[position]} s instead of {told.seconds[index]} s"
            )
    return lines


@pytest.mark.parametrize("name", KINDS)
def test_frames_at_the_asked_times_are_those_of_the_ffmpeg_program(tmp_path: Path, name: str) -> None:
    assert wrong_frames(make_video(tmp_path / name, **KINDS[name])) == []


@pytest.mark.parametrize(
    "name", ["open_gop.mp4", "open_gop.ts", "hevc_open_gop.mkv", "bframes.avi", "vp9.webm", "variable.mkv"]
)
def test_frames_of_a_piece_are_those_of_the_ffmpeg_program(tmp_path: Path, name: str) -> None:
    """Decoding begins in the middle, before or after a key frame whose neighbours lean on the group before it."""
    path = make_video(tmp_path / name, **KINDS[name])
    for first in range(2, 50, 5):
        assert wrong_frames(path, first / 30 + 0.01, first / 30 + 0.31) == []


@pytest.mark.parametrize("start_seconds", [0.5, 1.03])
def test_frames_behind_an_edit_list_are_those_of_the_ffmpeg_program(tmp_path: Path, start_seconds: float) -> None:
    source = make_video(tmp_path / "source.mp4", num_frames=60, gop=60)
    cut = copy_from(source, tmp_path / "cut.mp4", start_seconds)
    assert probe(cut).has_edit_list
    assert wrong_frames(cut) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", UNDAMAGED or [None], ids=lambda path: path.name if path else "none")
def test_frames_of_real_videos_are_those_of_the_ffmpeg_program(path: Path | None) -> None:
    if path is None:
        pytest.skip("DECONFOUND_TEST_DATA names no folder with videos/")
    assert wrong_frames(path) == []


def test_a_wrong_frame_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "plain.mp4")
    told = ffmpeg_program.account(path)
    later = replace(told, seconds=told.seconds + 1 / 30)
    monkeypatch.setattr(ffmpeg_program, "account", lambda _: later)
    assert len(wrong_frames(path, 0.1, 2.0)) >= NUM_FRAMES
