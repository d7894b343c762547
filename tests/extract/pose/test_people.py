import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cache.errors import ConfigError
from cache.manifest import Clip
from extract.config import PoseConfig
from extract.pose.boxes import MAX_GAP_FRAMES, Boxes
from extract.pose.people import box_settings, boxes_of, looked_at

CLIP = Clip(id="one", video="one.mp4")
HEIGHT, WIDTH = 100, 200
Images = npt.NDArray[np.uint8]


class Scripted:
    """A detector whose images say in their first pixel which frame they are; remembers whom it was shown."""

    def __init__(self, *people: list[list[float]]) -> None:
        self.people = people
        self.shown: list[int] = []

    reduced_batch = 0

    def detect(self, images: Images) -> list[npt.NDArray[np.float32]]:
        numbers = images[:, 0, 0, 0].tolist()
        self.shown += numbers
        return [np.array(self.people[number], np.float32).reshape(-1, 5) for number in numbers]


def numbered(num_frames: int) -> Images:
    images = np.zeros((num_frames, HEIGHT, WIDTH, 3), np.uint8)
    images[:, 0, 0, 0] = range(num_frames)
    return images


def detected(detector: Scripted, num_frames: int, **values: Any) -> Boxes:  # noqa: ANN401 (any setting)
    config = PoseConfig(boxes="detector", **values)
    return boxes_of(config, CLIP, numbered(num_frames), 7 * np.arange(num_frames), detector)


def walking(frame: int) -> list[float]:
    return [20.0 + 2 * frame, 10, 50.0 + 2 * frame, 90, 0.9]


def test_a_detector_sees_every_frame_and_its_boxes_say_so() -> None:
    detector = Scripted([walking(0)], [walking(1), [150, 5, 180, 60, 0.8]], [], [walking(3)])
    boxes = detected(detector, 4)
    assert detector.shown == [0, 1, 2, 3]
    assert boxes.source.tolist() == [3, 3, 4, 3]
    assert boxes.valid.tolist() == [1, 1, 2, 1]
    np.testing.assert_array_equal(boxes.xyxy, [walking(frame)[:4] for frame in range(4)])
    assert boxes.track_id.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("num_frames", "every", "expected"),
    [(7, 3, [0, 3, 6]), (8, 3, [0, 3, 6, 7]), (3, 1, [0, 1, 2]), (1, 5, [0]), (0, 2, [])],
)
def test_a_detector_that_sees_some_frames_sees_the_last_too(num_frames: int, every: int, expected: list[int]) -> None:
    assert looked_at(num_frames, every).tolist() == expected
    detector = Scripted(*([walking(frame)] for frame in range(num_frames)))
    boxes = detected(detector, num_frames, detect_every=every)
    assert detector.shown == expected
    assert [index for index, source in enumerate(boxes.source) if source == 3] == expected
    assert (boxes.valid > 0).all()  # between looks the box is carried along
    np.testing.assert_allclose(boxes.xyxy[:, 0], [walking(frame)[0] for frame in range(num_frames)], rtol=1e-6)


def test_a_clip_in_which_nobody_is_detected_has_nobody_and_not_the_whole_frame() -> None:
    boxes = detected(Scripted([], []), 2)
    assert boxes.source.tolist() == [0, 0]
    assert np.isnan(boxes.xyxy).all()


def test_a_detector_has_to_be_given() -> None:
    with pytest.raises(ValueError, match="needs the detector"):
        boxes_of(PoseConfig(boxes="detector"), CLIP, numbered(1), np.arange(1))
    with pytest.raises(ValueError, match="as many frame indices"):
        boxes_of(PoseConfig(boxes="whole_frame"), CLIP, numbered(2), np.arange(1))


def write(path: Path, *frames: Any, **keys: Any) -> PoseConfig:  # noqa: ANN401 (any JSON value)
    path.write_text(json.dumps({"clip": "one", "boxes": frames, **keys}) + "\n")
    return PoseConfig(boxes="file", boxes_file=str(path))


def test_a_file_that_lists_everybody_gives_what_the_same_detections_give(tmp_path: Path) -> None:
    passer_by = [150, 5, 180, 60, 0.8]
    everybody: list[list[list[float]]] = [
        [passer_by, walking(0)],
        [walking(1)],
        [],
        [passer_by, walking(3)],
    ]
    config = write(tmp_path / "boxes.jsonl", *everybody)
    listed = boxes_of(config, CLIP, numbered(4), np.arange(4))
    found = detected(Scripted(*everybody), 4)
    np.testing.assert_array_equal(listed.xyxy, found.xyxy)
    assert listed.source.tolist() == [1, 1, 4, 1]
    assert found.source.tolist() == [3, 3, 4, 3]
    assert listed.track_id.tolist() == found.track_id.tolist()


def test_an_empty_list_is_nobody_as_null_is(tmp_path: Path) -> None:
    unsure = [10, 10, 60, 90, 0.3]  # a decision is taken as it stands, at any score
    found = []
    for name, nobody in (("null", None), ("list", [])):
        config = write(tmp_path / f"{name}.jsonl", unsure, nobody, unsure)
        assert "tracking" not in box_settings(config)
        found.append(boxes_of(config, CLIP, numbered(3), np.arange(3)))
    assert found[0].source.tolist() == found[1].source.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(found[0].xyxy, found[1].xyxy)
    nowhere = boxes_of(write(tmp_path / "none.jsonl", [], []), CLIP, numbered(2), np.arange(2))
    assert nowhere.source.tolist() == [0, 0]


def test_settings_that_change_nothing_are_not_in_the_fingerprint(tmp_path: Path) -> None:
    assert box_settings(PoseConfig(boxes="whole_frame", max_gap=3, detector_weights="none")) == {"boxes": "whole_frame"}
    config = write(tmp_path / "one.jsonl", walking(0), None)
    assert set(box_settings(config)) == {"boxes", "boxes_sha256", "max_gap_frames"}
    assert box_settings(config)["max_gap_frames"] == MAX_GAP_FRAMES == 10


@pytest.mark.parametrize("change", [{"min_box_score": 0.4}, {"min_box_area": 0.1}, {"max_gap": 5}])
def test_settings_of_the_choice_are_in_the_fingerprint_where_somebody_chooses(
    change: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "boxes.jsonl"
    write(path, [walking(0), walking(1)], None)
    for values in ({"boxes": "file", "boxes_file": str(path)}, {"boxes": "detector", "detector_weights": "none"}):
        base: dict[str, Any] = values
        assert box_settings(PoseConfig(**base)) != box_settings(PoseConfig(**base, **change))


def test_the_detector_is_in_the_fingerprint() -> None:
    base: dict[str, Any] = {"boxes": "detector", "detector_weights": "none"}
    seen = [json.dumps(box_settings(PoseConfig(**base)))]
    for change in ({"detector": "ssdlite320_mobilenet_v3_large"}, {"seed": 1}, {"detect_every": 2}):
        seen.append(json.dumps(box_settings(PoseConfig(**base, **change))))
    assert len(set(seen)) == 4


def test_an_absent_file_is_named_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match=r"no-such-file\.jsonl"):
        box_settings(PoseConfig(boxes="file", boxes_file="no-such-file.jsonl"))
