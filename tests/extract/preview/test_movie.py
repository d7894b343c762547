from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from extract.preview.clip_view import ClipView, read_clip
from extract.preview.movie import FASTEST, SLOWEST, movie_width, rows_per_second, write_movie
from extract.preview.panel import panel_size, strip_height
from tests.extract.preview.people import BACKGROUND, frame_rows, joint_rows, write_cache


@pytest.fixture
def view(tmp_path: Path) -> ClipView:
    return read_clip(write_cache(tmp_path, [joint_rows("a", valid=(1, 0, 2, 1))], [frame_rows("a")]), "a")


def timed(view: ClipView, *seconds: float) -> ClipView:
    return replace(view, figures=[replace(view.figures[0], seconds=second) for second in seconds])


def test_a_film_has_a_picture_for_every_row(view: ClipView, tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.mp4"
    write_movie(view, path, min_score=0.3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 8
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(pictures) == 4
    width, height = panel_size(view, movie_width(view))
    assert pictures[0].shape == (height + height % 2, width + width % 2, 3)
    levels = [picture[strip_height(width) + 40 :, :40].mean(axis=(0, 1)) for picture in pictures]
    np.testing.assert_allclose(levels[0], BACKGROUND, atol=8)
    np.testing.assert_allclose(levels[1], 0.45 * np.array(BACKGROUND), atol=8)  # nobody, in its place


def test_odd_sizes_are_padded_to_what_h264_takes(view: ClipView, tmp_path: Path) -> None:
    odd = replace(view, height=101, width=333)
    write_movie(odd, tmp_path / "odd.mp4", min_score=0.3)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        assert container.streams.video[0].width % 2 == container.streams.video[0].height % 2 == 0


def test_a_film_runs_at_the_pace_of_the_video_within_what_can_be_watched(view: ClipView) -> None:
    assert rows_per_second(timed(view, 0, 0.2, 0.4, 0.4, 0.6)) == 5  # a repeated row has no duration
    assert rows_per_second(timed(view, 0, 20, 40)) == SLOWEST
    assert rows_per_second(timed(view, 0, 1 / 240, 2 / 240)) == FASTEST
    assert rows_per_second(timed(view, 3)) == rows_per_second(timed(view, 3, 3)) == SLOWEST


def test_small_frames_are_enlarged_and_large_ones_reduced(view: ClipView) -> None:
    sizes = {(64, 64): 480, (1080, 1920): 853, (1920, 1080): 480, (100, 1000): 1280}
    assert {size: movie_width(replace(view, height=size[0], width=size[1])) for size in sizes} == sizes
