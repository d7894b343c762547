"""Toyota-Smarthome's and OpenPose's files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cache.errors import ConfigError, FailureCode, VideoError
from cache.skeletons import COCO_17
from extract.skeletons import json_files
from extract.skeletons.openpose import OpenposeFolder
from extract.skeletons.toyota import ToyotaFiles
from tests.extract.skeletons.files import toyota_person, walk, write_openpose, write_toyota

BODY_25 = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("middle", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear", *["foot"] * 6),
)
COCO_18 = (*BODY_25[:8], *BODY_25[9:19])


def named_joints(names: tuple[str, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(V, 3) with the place of each name among COCO's in its numbers: 100 + place, 200 + place, 0.1; others far off."""
    places = [COCO_17.joint_names.index(name) if name in COCO_17.joint_names else 999 for name in names]
    return np.array([(100 + place, 200 + place, 0.1) for place in places], np.float32)


@pytest.mark.parametrize("names", [BODY_25, COCO_18], ids=["BODY_25", "COCO"])
def test_joints_of_openpose_get_their_place_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_openpose(tmp_path, "clip", [[named_joints(names)], []])
    people = OpenposeFolder(tmp_path).read("clip")
    assert (people.num_frames, people.size) == (2, None)
    np.testing.assert_array_equal(people.frame, [0])
    np.testing.assert_array_equal(people.xy[0], [(100 + place, 200 + place) for place in range(17)])
    np.testing.assert_allclose(people.score, 0.1)


def test_a_joint_that_openpose_did_not_find_is_missing(tmp_path: Path) -> None:
    joints = named_joints(COCO_18)
    joints[0] = 0
    write_openpose(tmp_path, "clip", [[joints]])
    people = OpenposeFolder(tmp_path).read("clip")
    assert np.isnan(people.xy[0, 0]).all()
    assert people.score[0, 0] == 0
    assert np.isfinite(people.xy[0, 1:]).all()


def test_clips_lie_in_folders_or_side_by_side(tmp_path: Path) -> None:
    for folder, clip in (("a", "video"), ("b/deep", "video"), ("many", "first"), ("many", "second_3")):
        write_openpose(tmp_path / folder, clip, [[]])
    skeletons = OpenposeFolder(tmp_path)
    assert set(skeletons.names) == {"a", "deep", "b/deep", "video", "first", "second_3"}
    assert skeletons.read("a").num_frames == skeletons.read("second_3").num_frames == 1
    with pytest.raises(VideoError, match="several clips called 'video'"):
        skeletons.read("video")


def test_images_of_a_folder_may_be_counted_from_one_but_not_with_gaps(tmp_path: Path) -> None:
    def write(folder: str, *names: str) -> None:
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}_keypoints.json").write_text('{"people": []}')

    write("one", "img_00001", "img_00002")
    write("plain", "0", "1", "2")
    write("gap", "img_00000", "img_00002")
    write("late", "img_00002")
    write("video", "v_000000000001")
    skeletons = OpenposeFolder(tmp_path)
    assert (skeletons.read("one").num_frames, skeletons.read("plain").num_frames) == (2, 3)
    for name, found in (("gap", "no file for frame 1"), ("late", "before it are missing"), ("v", "before it are")):
        with pytest.raises(VideoError, match=found):
            skeletons.read(name)


def test_normalised_coordinates_are_refused(tmp_path: Path) -> None:
    joints = named_joints(COCO_18) * np.array([1e-3, -1e-3, 1], np.float32)
    write_openpose(tmp_path, "clip", [[], [joints]])
    with pytest.raises(ConfigError, match=r"normalised.*--keypoint_scale 0"):
        OpenposeFolder(tmp_path).read("clip")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "3 numbers"),
        ('{"people": [{}]}', "0 numbers"),
        ('{"people": [5]}', "no list `people`"),
        ('{"persons": []}', "no list `people`"),
        ("[]", "holds a list"),
        ("{", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ('{"people": [{"pose_keypoints_2d": ' + str(["x"] * 54).replace("'", '"') + "}]}", "54 numbers"),
        ('{"people": [{"pose_keypoints_2d": [' + "1" * 400 + ", 1" * 53 + "]}]}", "hundreds of digits"),
    ],
)
def test_a_file_of_openpose_that_is_something_else_is_refused(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "clip_000000000000_keypoints.json").write_text(content)
    with pytest.raises(VideoError, match=found) as caught:
        OpenposeFolder(tmp_path).read("clip")
    assert caught.value.code is FailureCode.NO_SKELETON


def test_version_0_1_of_openpose_named_the_list_otherwise(tmp_path: Path) -> None:
    body = {"people": [{"pose_keypoints": named_joints(COCO_18).reshape(-1).tolist()}]}
    (tmp_path / "clip_000000000000_keypoints.json").write_text(json.dumps(body))
    assert OpenposeFolder(tmp_path).read("clip").xy[0, 16, 0] == 116


def test_toyota_keeps_its_13_joints_with_a_score_of_one(tmp_path: Path) -> None:
    track = walk(3, num_joints=13)
    write_toyota(tmp_path / "Walk_p03.json", [[toyota_person(track[0], cumscore=2.5)], [], [toyota_person(track[2])]])
    people = ToyotaFiles(tmp_path).read("Walk_p03")
    assert (people.num_frames, people.size) == (3, (480, 640))
    np.testing.assert_array_equal(people.frame, [0, 2])
    np.testing.assert_array_equal(people.xy, track[[0, 2]])
    np.testing.assert_array_equal(people.score, np.ones((2, 13)))
    np.testing.assert_array_equal(people.confidence, [2.5, 1])


def test_toyota_files_are_named_by_their_clips_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    for path in ("Walk_p03.json", "json/Eat.Snack_p04_pose3d.json"):
        write_toyota(tmp_path / path, [[]])
    skeletons = ToyotaFiles(tmp_path)
    assert set(skeletons.names) == {"Walk_p03", "Eat.Snack_p04"}
    assert list(ToyotaFiles(tmp_path / "Walk_p03.json").names) == ["Walk_p03"]
    write_toyota(tmp_path / "json" / "Walk_p03.json", [[]])
    with pytest.raises(VideoError, match="are both files of 'Walk_p03'"):
        ToyotaFiles(tmp_path).read("Walk_p03")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"njts": 17, "frames": [[]]}, "`njts` = 13"),
        ({"njts": 13, "frames": []}, "`njts` = 13"),
        ({"njts": 13, "frames": [{}]}, "frame 0 is no list of people"),
        ({"njts": 13, "frames": [[], [{"pose2d": [1, 2]}]]}, "pose2d in frame 1 has 2 entries, expected 26 numbers"),
        ({"njts": 13, "frames": [[{"pose2d": [1] * 26, "cumscore": None}]]}, "cumscore is None"),
        ({"njts": 13, "frames": [[{"pose2d": [1] * 26, "cumscore": 10**400}]]}, "cumscore is 1000"),
        ({"njts": 13, "frames": [[{"pose2d": [float("nan")] * 26}]]}, "NaN or infinity"),
        ({"njts": 13, "frames": [[{"pose2d": [1e300] * 26}]]}, "NaN or infinity"),
    ],
)
def test_a_file_of_toyota_that_is_something_else_is_refused(tmp_path: Path, content: object, found: str) -> None:
    (tmp_path / "clip.json").write_text(json.dumps(content))
    with pytest.raises(VideoError, match=found):
        ToyotaFiles(tmp_path).read("clip")


def test_a_folder_without_files_of_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the format toyota has one per clip"):
        ToyotaFiles(tmp_path)
    with pytest.raises(ConfigError, match=r"_keypoints\.json"):
        OpenposeFolder(tmp_path)


def test_json_larger_than_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MAX_FILE_BYTES", 10)
    path = write_toyota(tmp_path / "clip.json", [[]])
    with pytest.raises(VideoError, match="more than 10 bytes"):
        ToyotaFiles(path).read("clip")


def test_the_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_openpose(tmp_path / folder, "clip", [[named_joints(COCO_18)], []])
    first, second = (OpenposeFolder(tmp_path / folder).sha256 for folder in ("one", "two"))
    assert first == second
    write_openpose(tmp_path / "two", "clip", [[], []])
    assert OpenposeFolder(tmp_path / "two").sha256 != first
    write_openpose(tmp_path / "one", "clip", [[named_joints(COCO_18)], [], []])
    assert OpenposeFolder(tmp_path / "one").sha256 != first


def test_the_real_13_joint_file_has_the_joints_of_the_track_it_was_made_of() -> None:
    folder = Path(os.environ.get("DECONFOUND_TEST_DATA", "")) / "annotations" / "toyota_smarthome"
    if not folder.is_dir():
        pytest.skip("DECONFOUND_TEST_DATA names no folder with annotations/")
    path = folder / "P11T13C03_frames210_460.reconstructed13.json"
    people = ToyotaFiles(path).read("P11T13C03_frames210_460.reconstructed13")
    assert people.num_frames == 250
    with np.load(folder / "P11T13C03_LCRNet2d.npz") as file:
        track = file["kpts"][210:460]
    at_coco = (16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 0)
    np.testing.assert_array_equal(people.frame, np.flatnonzero((track != 0).any(axis=(1, 2))))
    np.testing.assert_allclose(people.xy, track[people.frame][:, at_coco], atol=1e-3)
