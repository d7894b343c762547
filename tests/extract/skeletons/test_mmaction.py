"""The forms in which mmaction2 and PySKL pass skeletons on."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import ConfigError, FailureCode, VideoError
from extract.skeletons.mmaction import MmactionFile
from tests.extract.skeletons.files import annotation, compressed, walk, write_pickle

PERSON = walk(5)
ANNOTATION = annotation("dive", [PERSON])


def test_axes_of_nothing_are_not_believed(tmp_path: Path) -> None:
    """An array without people takes no bytes of a file, however many frames it states."""
    for frames in (2**31 - 1, 2**26):
        entry = ANNOTATION | {"keypoint": np.zeros((0, frames, 17, 2), np.float16), "total_frames": frames}
        assert f"of shape (0, {frames}, 17, 2), more than can belong to one clip" in refusal(tmp_path, entry)
    entry = compressed("dive", [0], PERSON[:1], 10**12)
    assert "total_frames is 1000000000000, more than can belong to one clip" in refusal(tmp_path, entry)


def opened(folder: Path, content: object) -> MmactionFile:
    return MmactionFile(write_pickle(folder / "skeletons.pkl", content))


def refusal(folder: Path, entry: object, name: str = "dive") -> str:
    with pytest.raises(VideoError) as caught:
        opened(folder, [entry]).read(name)
    assert caught.value.code is FailureCode.NO_SKELETON
    return caught.value.message


@pytest.mark.parametrize(
    "content",
    [{"split": {"train": ["dive"]}, "annotations": [ANNOTATION]}, [ANNOTATION, None], ANNOTATION],
    ids=["dict", "list", "one annotation"],
)
def test_every_form_of_the_file_gives_the_same_people(tmp_path: Path, content: object) -> None:
    skeletons = opened(tmp_path, content)
    assert list(skeletons.names) == ["dive"]
    people = skeletons.read("dive")
    assert (people.num_frames, people.size) == (5, (96, 128))
    np.testing.assert_array_equal(people.frame, range(5))
    np.testing.assert_array_equal(people.xy, PERSON)
    np.testing.assert_array_equal(people.score, np.full((5, 17), 0.5))


def test_zeros_with_score_zero_are_nobody_and_missing_joints(tmp_path: Path) -> None:
    xy, score = np.zeros((2, 5, 17, 2), np.float16), np.zeros((2, 5, 17), np.float16)
    xy[1, 3, :4], score[1, 3, :4] = 7, 0.25
    people = opened(tmp_path, ANNOTATION | {"keypoint": xy, "keypoint_score": score}).read("dive")
    np.testing.assert_array_equal(people.frame, [3])
    np.testing.assert_array_equal(people.score, [[0.25] * 4 + [0] * 13])
    np.testing.assert_array_equal(np.isnan(people.xy[0]).all(axis=1), [False] * 4 + [True] * 13)
    np.testing.assert_array_equal(people.boxes, [[7, 7, 7, 7]])


def test_scores_are_as_the_tool_gave_them_and_one_where_it_gave_none(tmp_path: Path) -> None:
    score = np.linspace(-0.2, 1.5, 85).reshape(1, 5, 17)
    people = opened(tmp_path, ANNOTATION | {"keypoint_score": score}).read("dive")
    np.testing.assert_array_equal(people.score, np.maximum(score[0], 0).astype(np.float32))
    without = {key: value for key, value in ANNOTATION.items() if key != "keypoint_score"}
    xy = ANNOTATION["keypoint"].copy()
    xy[0, 2, 5] = 0
    people = opened(tmp_path, without | {"keypoint": xy}).read("dive")
    assert people.score[2, 5] == 0
    assert people.score.sum() == 5 * 17 - 1


def test_the_compressed_form_gives_the_same_people_as_the_plain_one(tmp_path: Path) -> None:
    entry = compressed("dive", [0, 1, 2, 3, 4], PERSON, 5)
    plain, people = opened(tmp_path, ANNOTATION).read("dive"), opened(tmp_path, entry).read("dive")
    for name in ("frame", "xy", "score", "confidence"):
        np.testing.assert_array_equal(getattr(people, name), getattr(plain, name))


def test_frames_of_the_kinetics_form_are_counted_from_one(tmp_path: Path) -> None:
    entry = compressed("dive", [1, 3, 5], PERSON[:3], 5, box_score=np.array([0.9, 0.8, 0.7], np.float16))
    people = opened(tmp_path, entry).read("dive")
    np.testing.assert_array_equal(people.frame, [0, 2, 4])
    np.testing.assert_allclose(people.confidence, [0.9, 0.8, 0.7], atol=1e-3)
    assert "frame -1" in refusal(tmp_path, entry | {"frame_inds": np.array([0, 1, 2])})


def test_anno_inds_choose_people_of_the_compressed_form(tmp_path: Path) -> None:
    entry = compressed("dive", [0, 2, 4], PERSON[:3], 5, anno_inds=np.array([0, 2]))
    people = opened(tmp_path, entry).read("dive")
    np.testing.assert_array_equal(people.frame, [0, 4])
    np.testing.assert_array_equal(people.xy, PERSON[[0, 2]])
    assert "anno_inds" in refusal(tmp_path, entry | {"anno_inds": np.array([3])})


def test_clips_are_named_by_filename_if_the_first_one_has_it(tmp_path: Path) -> None:
    first, second = ANNOTATION | {"filename": "a.mp4"}, ANNOTATION | {"filename": "b.mp4", "frame_dir": "other"}
    assert list(opened(tmp_path, [first, second]).names) == ["a.mp4", "b.mp4"]
    with pytest.raises(ConfigError, match="annotation 1 has no text `filename`"):
        opened(tmp_path, [first, ANNOTATION]).names  # noqa: B018


def test_two_annotations_of_one_name_are_neither(tmp_path: Path) -> None:
    skeletons = opened(tmp_path, [ANNOTATION, ANNOTATION, annotation("other", [PERSON])])
    with pytest.raises(VideoError, match="2 annotations named 'dive'"):
        skeletons.read("dive")
    assert skeletons.read("other").num_frames == 5


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"keypoint": np.zeros((1, 5, 25, 2))}, "(1, 5, 25, 2)"),
        ({"keypoint": np.zeros((1, 5, 17, 3))}, "(1, 5, 17, 3)"),
        ({"keypoint": [[1, 2]]}, "no array `keypoint`"),
        ({"keypoint_score": np.zeros((1, 4, 17))}, "keypoint_score` is of shape (1, 4, 17), expected (1, 5, 17)"),
        ({"total_frames": 6}, "keypoint has 5 frames, total_frames is 6"),
        ({"total_frames": "5"}, "total_frames is '5'"),
        ({"img_shape": (0, 128)}, "img_shape is (0, 128)"),
        ({"frame_inds": np.zeros(5, int)}, "(1, 5, 17, 2), expected (N, 17, 3)"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    assert found in refusal(tmp_path, ANNOTATION | changes)


def test_a_joint_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        xy = ANNOTATION["keypoint"].copy()
        xy[0, 0, 0, 0] = value
        with pytest.raises(VideoError) as caught:
            opened(tmp_path, ANNOTATION | {"keypoint": xy}).read("dive")
        assert caught.value.code is FailureCode.NON_FINITE


def test_a_small_file_cannot_state_people_without_end(tmp_path: Path) -> None:
    flat = np.broadcast_to(np.zeros(1, np.int8), (3000, 6000, 17, 2))
    skeletons = opened(tmp_path, ANNOTATION)
    skeletons.__dict__["_annotations"] = {"dive": [ANNOTATION | {"keypoint": flat, "total_frames": 6000}]}
    with pytest.raises(VideoError, match="more than can belong to one clip"):
        skeletons.read("dive")


@pytest.mark.parametrize("content", [[], [1], {"annotations": "x"}, {"annotations": []}, 5, None, [None]])
def test_what_holds_no_annotations_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ConfigError, match="holds no annotations"):
        opened(tmp_path, content).names  # noqa: B018


def test_a_folder_is_no_pickle(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        MmactionFile(tmp_path)


def real() -> Path:
    folder = Path(os.environ.get("DECONFOUND_TEST_DATA", "")) / "annotations"
    if not folder.is_dir():
        pytest.skip("DECONFOUND_TEST_DATA names no folder with annotations/")
    return folder / "skeleton" / "mmaction2_sample.pkl"


def test_a_real_file_says_that_its_joints_are_elsewhere() -> None:
    skeletons = MmactionFile(real())
    assert len(skeletons.names) == 100
    for name in skeletons.names:
        with pytest.raises(VideoError, match="has no array `keypoint`; the published files of Kinetics"):
            skeletons.read(name)


def test_a_real_file_with_joints_put_into_it_is_read_whole(tmp_path: Path) -> None:
    found = MmactionFile(real())._annotations
    generator = np.random.default_rng(0)
    for name, (entry,) in found.items():
        joints = generator.uniform(1, 300, (len(entry["frame_inds"]), 17, 3)).astype(np.float16)
        people = opened(tmp_path, [dict(entry) | {"keypoint": joints}]).read(name)
        assert len(people.frame) == len(joints)
        assert (people.num_frames, people.size) == (entry["total_frames"], entry["img_shape"])
        np.testing.assert_array_equal(people.frame + 1, np.sort(entry["frame_inds"]))
        assert people.confidence.max() == entry["box_score"].max()
