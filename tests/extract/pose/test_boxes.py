import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cache.errors import ConfigError, FailureCode, VideoError
from cache.manifest import Clip
from extract.config import PoseConfig
from extract.pose.boxes import Boxes, Sightings
from extract.pose.people import boxes_of

CLIP = Clip(id="one", video="one.mp4")


def frames(count: int) -> npt.NDArray[np.uint8]:
    return np.zeros((count, 100, 200, 3), np.uint8)


def from_file(path: Path, entries: list[Any], frame_index: list[int], clip: Clip = CLIP) -> Boxes:
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries) + "\n")
    config = PoseConfig(boxes="file", boxes_file=str(path))
    return boxes_of(config, clip, frames(len(frame_index)), np.array(frame_index, np.int64))


def test_the_whole_frame_is_one_box_per_frame() -> None:
    boxes = boxes_of(PoseConfig(boxes="whole_frame"), CLIP, frames(3), np.arange(3))
    assert boxes.xyxy.tolist() == [[0, 0, 200, 100]] * 3
    assert boxes.source.tolist() == [2, 2, 2]
    assert boxes.valid.tolist() == [1, 1, 1]


def test_no_source_is_an_error_and_not_the_whole_frame() -> None:
    with pytest.raises(ConfigError, match="whole_frame"):
        boxes_of(PoseConfig(), CLIP, frames(1), np.arange(1))


def test_frames_with_nobody_stay_in_their_places(tmp_path: Path) -> None:
    entry = {"clip": "one", "boxes": [[1, 2, 30, 40, 0.9], None, [5, 6, 70, 80, 0.5]]}
    boxes = from_file(tmp_path / "boxes.jsonl", [entry], [0, 1, 1, 2])
    assert boxes.source.tolist() == [1, 0, 0, 1]
    assert boxes.valid.tolist() == [1, 0, 0, 1]
    assert boxes.track_id.tolist() == [0, -1, -1, 0]
    assert boxes.score.tolist() == pytest.approx([0.9, 0, 0, 0.5])
    assert boxes.xyxy[[0, 3]].tolist() == [[1, 2, 30, 40], [5, 6, 70, 80]]
    assert np.isnan(boxes.xyxy[1:3]).all()


def test_a_sparse_file_is_interpolated_over_short_gaps_only(tmp_path: Path) -> None:
    entry = {
        "clip": "one",
        "frame_index": [10, 20, 40, 44],
        "boxes": [[0, 0, 10, 10, 1.0], [10, 20, 30, 40, 0.5], [0, 0, 9, 9, 1.0], None],
    }
    boxes = from_file(tmp_path / "boxes.jsonl", [entry], [9, 10, 15, 20, 30, 40, 42, 44, 50])
    assert boxes.source.tolist() == [0, 1, 4, 1, 0, 1, 0, 0, 0]
    assert boxes.valid.tolist() == [0, 1, 2, 1, 0, 1, 0, 0, 0]
    assert boxes.xyxy[2].tolist() == [5, 10, 20, 25]
    assert boxes.score[2] == pytest.approx(0.75)


def test_a_clip_that_the_file_does_not_know_fails(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no line for the clip 'one'") as caught:
        from_file(tmp_path / "boxes.jsonl", [{"clip": "two", "boxes": []}], [0])
    assert caught.value.code is FailureCode.NO_BOXES


def test_a_dense_file_that_ends_before_the_clip_fails(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="lists 1 frames"):
        from_file(tmp_path / "boxes.jsonl", [{"clip": "one", "boxes": [None]}], [0, 1])


def test_boxes_of_another_resolution_fail(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="outside of its 200 x 100 frame"):
        from_file(tmp_path / "boxes.jsonl", [{"clip": "one", "boxes": [[900, 10, 950, 60, 1.0]]}], [0])


def test_a_clip_with_nobody_at_all_is_no_error(tmp_path: Path) -> None:
    for entry in ({"clip": "one", "boxes": [None, None]}, {"clip": "one", "frame_index": [], "boxes": []}):
        boxes = from_file(tmp_path / f"{len(entry)}.jsonl", [entry], [0, 1])
        assert boxes.source.tolist() == [0, 0]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"boxes": []}',
        '{"clip": "one", "boxes": [[1, 2, 3]]}',
        '{"clip": "one", "boxes": [[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]]}',
        '{"clip": "one", "boxes": [[1, 2, 30, 40, 1.0, 7]]}',
        '{"clip": "one", "boxes": [[1, 2, 30, 40, "1.0"]]}',
        '{"clip": "one", "boxes": [[1, 2, 30, 40, true]]}',
        '{"clip": "one", "boxes": [7]}',
        '{"clip": "one", "boxes": [[30, 2, 3, 40, 1.0]]}',
        '{"clip": "one", "boxes": [[[1, 2, 30, 40]]]}',
        '{"clip": "one", "boxes": [[[1, 2, 30, 40, 1.0], null]]}',
        '{"clip": "one", "boxes": [[[1, 2, 30, 40, 1.0], [1, 2, 30, 40, -1.0]]]}',
        '{"clip": "one", "boxes": [[[[1, 2, 30, 40, 1.0]]]]}',
        '{"clip": "one", "boxes": [[1, 2, 30, 40, 0.0]]}',
        '{"clip": "one", "boxes": [[1, 2, 30, NaN, 1.0]]}',
        '{"clip": "one", "frame_index": [5, 4], "boxes": [null, null]}',
        '{"clip": "one", "frame_index": [4], "boxes": [null, null]}',
        "[]",
    ],
)
def test_a_malformed_line_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2"):
        from_file(tmp_path / "boxes.jsonl", [{"clip": "zero", "boxes": []}, line], [0])


LEFT, RIGHT = [10, 10, 50, 90, 0.9], [100, 10, 150, 90, 0.8]


def test_several_people_of_one_frame_are_not_given_to_the_next_frames(tmp_path: Path) -> None:
    boxes = from_file(tmp_path / "boxes.jsonl", [{"clip": "one", "boxes": [[LEFT, RIGHT]] * 4}], [0, 1, 2, 3])
    assert boxes.source.tolist() == [1] * 4
    assert boxes.xyxy.tolist() == [RIGHT[:4]] * 4  # nearer to the centre
    assert boxes.track_id.tolist() == [1] * 4


def test_people_are_followed_through_the_frames_between_the_kept_ones(tmp_path: Path) -> None:
    """Kept frames are 20 apart and the person walks 60 pixels; only the frames between tell who it is."""
    walk = [[10 + 3 * frame, 10, 40 + 3 * frame, 90, 0.9] for frame in range(41)]
    still = [160, 20, 180, 60, 0.6]
    entry = {"clip": "one", "boxes": [[box, still] for box in walk]}
    boxes = from_file(tmp_path / "boxes.jsonl", [entry], [0, 20, 40])
    assert boxes.xyxy.tolist() == [walk[0][:4], walk[20][:4], walk[40][:4]]


def test_people_outside_of_the_clip_have_no_say(tmp_path: Path) -> None:
    """The line is about the whole video; the clip is its middle, in which somebody else is the main person."""
    others = [[LEFT]] * 30
    between = tmp_path / "between.jsonl"
    boxes = from_file(between, [{"clip": "one", "boxes": [*others, *[[RIGHT]] * 3, *others]}], [30, 31, 32])
    assert boxes.source.tolist() == [1] * 3
    assert boxes.xyxy.tolist() == [RIGHT[:4]] * 3
    empty = tmp_path / "empty.jsonl"
    boxes = from_file(empty, [{"clip": "one", "boxes": [*others, *[[]] * 3, *others]}], [30, 31, 32])
    assert boxes.source.tolist() == [4] * 3  # she is somewhere between where she was and will be


def test_a_sparse_file_of_people_is_carried_over_short_gaps(tmp_path: Path) -> None:
    moved = [20, 10, 60, 90, 0.9]
    entry = {"clip": "one", "frame_index": [10, 20, 31], "boxes": [[LEFT], moved, [moved]]}
    boxes = from_file(tmp_path / "boxes.jsonl", [entry], [9, 10, 15, 20, 25, 31])
    assert boxes.source.tolist() == [0, 1, 4, 1, 0, 1]
    assert boxes.xyxy[2].tolist() == [15, 10, 55, 90]


def test_one_box_per_frame_is_taken_at_any_score_and_a_list_is_not(tmp_path: Path) -> None:
    faint = [10, 10, 50, 90, 0.1]
    assert from_file(tmp_path / "one.jsonl", [{"clip": "one", "boxes": [faint]}], [0]).source.tolist() == [1]
    assert from_file(tmp_path / "all.jsonl", [{"clip": "one", "boxes": [[faint]]}], [0]).source.tolist() == [0]


def test_people_of_another_resolution_fail(tmp_path: Path) -> None:
    entry = {"clip": "one", "boxes": [[LEFT, [900, 10, 950, 60, 1.0]]]}
    with pytest.raises(VideoError, match="1 boxes of 'one' lie outside of its 200 x 100 frame"):
        from_file(tmp_path / "boxes.jsonl", [entry], [0])


def test_a_clip_listed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="earlier line"):
        from_file(tmp_path / "boxes.jsonl", [{"clip": "one", "boxes": [None]}] * 2, [0])


def test_an_absent_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no-such-file\.jsonl"):
        boxes_of(PoseConfig(boxes="file", boxes_file="no-such-file.jsonl"), CLIP, frames(1), np.arange(1))


def test_sightings_need_a_box_for_every_frame_in_order_of_time() -> None:
    rows = np.zeros((2, 5), np.float32)
    for wrong in ([0], [1, 1], [2, 1], [-1, 0]):
        with pytest.raises(ValueError, match="ascending"):
            Sightings(frames=np.array(wrong), boxes=rows)
