from pathlib import Path

import numpy as np
import pytest

from cache.errors import CacheError, FailedClip, MissingClip
from cache.skeletons import TOYOTA_13
from extract.preview.clip_view import read_clip
from tests.extract.preview.people import HEIGHT, WIDTH, failed_rows, frame_rows, joint_rows, standing, write_cache


def test_joints_are_paired_with_the_frames_of_their_index(tmp_path: Path) -> None:
    frames = frame_rows("a", frame_index=(1, 3, 5, 7))
    frames.fields["jpeg"][:] = [b"frame 1", b"frame 3", b"frame 5", b"frame 7"]  # type: ignore[index]
    joints = joint_rows("a", valid=(1, 0, 1), frame_index=(3, 5, 6))
    view = read_clip(write_cache(tmp_path, [joints], [frames]), "a")
    assert [(figure.frame_index, bytes(figure.jpeg or b"")) for figure in view.figures] == [
        (3, b"frame 3"),
        (5, b"frame 5"),
    ]
    assert [figure.valid for figure in view.figures] == [1, 0]
    assert view.notes == ("1 of 3 rows have no cached frame and are left out",)


def test_joints_of_another_sampling_are_drawn_on_grey(tmp_path: Path) -> None:
    store = write_cache(tmp_path, [joint_rows("a", frame_index=(10, 20, 30, 40))], [frame_rows("a")])
    view = read_clip(store, "a")
    assert [figure.jpeg for figure in view.figures] == [None] * 4
    assert view.notes == ("none of the joints belongs to a cached frame: drawn on grey",)


def test_a_cache_without_frames_says_so(tmp_path: Path) -> None:
    view = read_clip(write_cache(tmp_path, [joint_rows("a")]), "a")
    assert [figure.jpeg for figure in view.figures] == [None] * 4
    assert view.notes == ("the cache has no stream `frames`: drawn on grey",)
    assert (view.height, view.width) == (HEIGHT, WIDTH)


def test_a_clip_whose_frames_failed_says_so(tmp_path: Path) -> None:
    store = write_cache(tmp_path, [joint_rows("a"), joint_rows("b")], [failed_rows("a"), frame_rows("b")])
    assert read_clip(store, "a").notes == ("the clip has no cached frames: drawn on grey",)
    assert read_clip(store, "b").notes == ()


def test_a_skeleton_of_thirteen_joints_stays_one(tmp_path: Path) -> None:
    joints = joint_rows("a", skeleton=TOYOTA_13)
    view = read_clip(write_cache(tmp_path, [joints], [frame_rows("a")], skeleton="toyota_13"), "a")
    assert view.skeleton is TOYOTA_13
    np.testing.assert_array_equal(view.figures[0].xy, standing(TOYOTA_13, 1)[0])


def test_the_size_of_the_source_may_be_known_to_the_frames_alone(tmp_path: Path) -> None:
    view = read_clip(write_cache(tmp_path, [joint_rows("a", size=(0, 0))], [frame_rows("a")]), "a")
    assert (view.height, view.width) == (HEIGHT, WIDTH)
    assert view.figures[0].jpeg is not None


def test_without_any_size_joints_are_drawn_on_grey_and_not_at_a_guessed_scale(tmp_path: Path) -> None:
    view = read_clip(write_cache(tmp_path, [joint_rows("a", size=(0, 0))]), "a")
    farthest = standing(view.skeleton, 1)[0].max(axis=0)
    assert view.width > farthest[0]
    assert view.height > farthest[1]
    assert "size of the video is not known" in view.notes[-1]


def test_clips_without_rows_and_unknown_skeletons_are_refused(tmp_path: Path) -> None:
    store = write_cache(tmp_path / "first", [joint_rows("a"), failed_rows("b")])
    with pytest.raises(FailedClip, match="no boxes"):
        read_clip(store, "b")
    with pytest.raises(MissingClip, match="'c'"):
        read_clip(store, "c")
    with pytest.raises(CacheError, match=r"'octopus'; known are coco_17, toyota_13"):
        read_clip(write_cache(tmp_path / "second", [joint_rows("a")], skeleton="octopus"), "a")


def test_joints_of_random_weights_are_called_so(tmp_path: Path) -> None:
    view = read_clip(write_cache(tmp_path, [joint_rows("a")], [frame_rows("a")], weights="none"), "a")
    assert ["random weights" in note for note in view.notes] == [True]
