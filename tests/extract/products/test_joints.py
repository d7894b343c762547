"""Joints of many clips in shared batches: the same rows as each clip alone, whatever happens to the others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from cache.errors import FailureCode
from cache.manifest import Clip
from cache.rows import ClipRows
from extract.config import PoseConfig
from extract.decoding.decode_process import Prepared
from extract.frozen_models import FrozenModels
from extract.pose import estimator
from extract.pose.estimator import PoseEstimator
from extract.products import shared_batches
from extract.products.joints import Joints
from tests.extract.kitchen import make_config
from tests.extract.pose.test_estimator import CPU, TINY, changed
from tests.extract.pose.test_hrnet import random_network
from tests.extract.products.prepared_clips import prepared

PRESENT = {"a": [1, 1, 1], "b": [1, 0, 1, 1, 0, 0, 1], "nobody": [0, 0], "c": [0, 1], "d": [1, 1, 1, 1, 1]}
"""Whether somebody is in each frame: 14 people in batches of 4."""
BLACK, WHITE = 0, 255


class Counting(nn.Module):
    """The tiny network; it counts its passes, and gives NaN for white crops."""

    def __init__(self) -> None:
        super().__init__()
        self.network = random_network()
        self.sizes: list[int] = []

    def forward(self, crops: Tensor) -> Tensor:
        self.sizes.append(len(crops))
        heatmaps: Tensor = self.network(crops)
        return heatmaps + torch.where(crops.amax(dim=(1, 2, 3)) > 2.6, torch.nan, 0.0).view(-1, 1, 1, 1)


class FindsPeople:
    """Stands in for a detector: whoever is in a frame that is not black."""

    reduced_batch = 0

    def detect(self, images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        found = np.array([[10, 5, 60, 45, 0.9]], np.float32)
        return [found if image.any() else found[:0] for image in images]


def frames_of(name: str) -> npt.NDArray[np.uint8]:
    present = np.array(PRESENT[name], bool)
    frames = np.random.default_rng(len(name) + ord(name[0])).integers(1, 200, (len(present), 48, 80, 3), dtype=np.uint8)
    frames[~present] = BLACK
    return frames


def clip(name: str, instants: list[int] | None = None) -> Prepared:
    images = frames_of(name)
    return prepared(name, instants if instants is not None else list(range(len(images))), images=images)


def make(**values: Any) -> tuple[Joints, Counting]:  # noqa: ANN401
    """Of clips of any length, with people in some of their frames; no gap is filled."""
    num_frames = values.pop("num_frames", None)
    settings = {"boxes": "detector", "max_gap": 1, **values}
    network = Counting()
    pose = PoseEstimator(changed(TINY, **settings), network, CPU)  # type: ignore[arg-type]
    joints = Joints(pose, num_frames, FindsPeople())
    network.sizes.clear()
    return joints, network


def run(joints: Joints, clips: list[Prepared]) -> dict[str, ClipRows]:
    """Rows of all clips, whose frames are overwritten as soon as they are taken: the next clip comes there."""
    rows = []
    for one in clips:
        rows += list(joints.add(one, Clip(id=one.clip_id, video="v.mp4")))
        one.pixels["images"].fill(WHITE)
    rows += list(joints.flush())
    assert [row.clip_id for row in rows] == [one.clip_id for one in clips]
    return {row.clip_id: row for row in rows}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full batches save time, so that clips share them where that changes no bit."""
    monkeypatch.setattr(shared_batches, "is_as_fast_with_few", lambda _: False)


@pytest.mark.parametrize("codec", ["msra", "dark", "udp"])
@pytest.mark.parametrize("flip_test", [True, False])
def test_people_of_all_clips_fill_full_batches_and_their_rows_are_those_of_each_clip_alone(
    codec: str, flip_test: bool
) -> None:
    joints, network = make(codec=codec, flip_test=flip_test)
    rows = run(joints, [clip(name) for name in PRESENT])
    assert joints.shares_batches
    assert network.sizes == [4, 4, 4, 4] * (1 + flip_test)  # 14 people
    for name, present in PRESENT.items():
        where = np.tile(np.array([10, 5, 60, 45], np.float32), (len(present), 1))
        where[~np.array(present, bool)] = np.nan
        xy, score = joints.estimator.estimate(frames_of(name), where)
        fields: Any = rows[name].fields
        np.testing.assert_array_equal(fields["xy"], xy)
        np.testing.assert_array_equal(fields["score"], score)
        np.testing.assert_array_equal(fields["box"], where)
        assert fields["valid"].tolist() == fields["box_score"].round().tolist() == present
        assert fields["track_id"].tolist() == [value - 1 for value in present]
        assert fields["box_source"].tolist() == [3 * value for value in present]


def test_where_places_differ_a_batch_holds_one_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = run(make()[0], [clip(name) for name in PRESENT])
    monkeypatch.setattr(shared_batches, "is_place_independent", lambda *_: False)
    joints, network = make()
    alone = run(joints, [clip(name) for name in PRESENT])
    assert network.sizes == [4, 4, 4, 4, 4]  # 3, 4, 0, 1 and 5 people
    for name, row in shared.items():
        assert all(
            np.array_equal(row.fields[key], values, equal_nan=True) for key, values in alone[name].fields.items()
        )


@pytest.mark.parametrize(
    ("boxes", "num_frames", "passes"), [("whole_frame", 3, [3]), ("detector", 3, [3]), ("detector", None, [8])]
)
def test_on_a_cpu_a_clip_of_three_people_is_not_padded_to_the_configured_size(
    monkeypatch: pytest.MonkeyPatch, boxes: str, num_frames: int | None, passes: list[int]
) -> None:
    monkeypatch.setattr(shared_batches, "is_as_fast_with_few", lambda _: True)
    network = Counting()
    pose = PoseEstimator(changed(TINY, boxes=boxes, batch_size=64), network, CPU)  # type: ignore[arg-type]
    joints = Joints(pose, num_frames, FindsPeople())
    assert network.sizes == []  # nothing is measured before the first clip
    run(joints, [clip("a")])
    assert (network.sizes, joints.batch.full, joints.shares_batches) == (passes, passes[0], False)


def test_a_detector_that_ran_out_of_memory_is_told_in_the_rows_made_since(monkeypatch: pytest.MonkeyPatch) -> None:
    joints, _ = make()
    detect = FindsPeople.detect

    def reduce(self: FindsPeople, images: Any) -> Any:  # noqa: ANN401
        self.reduced_batch = 2 if len(images) == len(PRESENT["b"]) else self.reduced_batch
        return detect(self, images)

    monkeypatch.setattr(FindsPeople, "detect", reduce)
    rows = run(joints, [clip(name) for name in PRESENT])
    reduced = {name: row.provenance.reduced_batch if row.provenance else 0 for name, row in rows.items()}
    assert reduced == {"a": 0, "b": 2, "nobody": 2, "c": 2, "d": 2}
    joints.batch.current = 1  # the network ran out too, with less
    (row,) = run(joints, [clip("a")]).values()
    assert row.provenance is not None
    assert row.provenance.reduced_batch == 1


def test_a_frame_that_is_shown_twice_is_measured_once() -> None:
    joints, network = make(batch_size=3)
    (row,) = run(joints, [clip("a", [0, 0, 1, 2, 2])]).values()
    (once,) = run(joints, [clip("a")]).values()
    assert network.sizes == [3, 3]
    for key, values in once.fields.items():
        np.testing.assert_array_equal(row.fields[key], np.asarray(values)[[0, 0, 1, 2, 2]])


def test_nan_fails_the_clip_it_came_from_and_not_its_neighbours() -> None:
    clips = [clip(name) for name in PRESENT]
    clips[1].pixels["images"][3] = WHITE
    rows = run(make()[0], clips)
    assert {name: row.failure.code for name, row in rows.items() if row.failure} == {"b": FailureCode.NON_FINITE}
    expected = run(make()[0], [clip(name) for name in PRESENT])
    for name in ("a", "nobody", "c", "d"):
        np.testing.assert_array_equal(rows[name].fields["xy"], expected[name].fields["xy"])


def test_a_clip_without_boxes_fails_in_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "boxes.jsonl"
    listed = [{"clip": name, "boxes": [[10, 5, 60, 45, 0.9]] * 9} for name in PRESENT if name != "b"]
    path.write_text("".join(json.dumps(line) + "\n" for line in listed))
    joints, network = make(boxes="file", boxes_file=str(path))
    rows = run(joints, [clip(name) for name in PRESENT])
    assert {name: row.failure.code for name, row in rows.items() if row.failure} == {"b": FailureCode.NO_BOXES}
    assert network.sizes == [4, 4, 4]


def test_memory_that_runs_out_while_people_are_cut_out_makes_batches_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    joints, _ = make()
    crop, given = PoseEstimator._crop, []

    def small(self: PoseEstimator, frames: Any, boxes: Any) -> Tensor:  # noqa: ANN401
        given.append(len(frames))
        if len(frames) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return crop(self, frames, boxes)

    monkeypatch.setattr(PoseEstimator, "_crop", small)
    rows = run(joints, [clip(name) for name in PRESENT])
    assert given[:3] == [3, 2, 1]
    assert max(given[1:]) == 2
    assert {row.provenance.reduced_batch for row in rows.values() if row.provenance} == {2}
    assert not any(row.failure for row in rows.values())


def test_frames_of_a_long_clip_are_cut_out_a_few_at_a_time_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    pose, frames = make()[0].estimator, frames_of("b")
    where = np.tile(np.array([10, 5, 60, 45], np.float32), (len(frames), 1))
    where[[0, 5]] = np.nan
    at_once = pose.crops(frames, where)
    crop, given = PoseEstimator._crop, []

    def tell(self: PoseEstimator, some: Any, boxes: Any) -> Tensor:  # noqa: ANN401
        given.append(len(some))
        return crop(self, some, boxes)

    monkeypatch.setattr(PoseEstimator, "_crop", tell)
    monkeypatch.setattr(estimator, "_MAX_BYTES", 3 * frames[0].nbytes)
    assert torch.equal(pose.crops(frames, where), at_once)
    assert torch.equal(pose.crops(frames, where, at_once=2), at_once)
    assert given == [3, 3, 1, 2, 2, 2, 1]
    assert pose.crops(frames[:0], where[:0]).shape == (0, 3, 64, 64)


def test_the_detector_is_built_where_boxes_come_from_it_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from extract.pose import detector

    built: list[PoseConfig] = []

    def load(config: PoseConfig, _: torch.device) -> FindsPeople:
        built.append(config)
        return FindsPeople()

    monkeypatch.setattr(detector.Detector, "load", load)
    config = make_config(tmp_path, "joints")
    for boxes in ("whole_frame", "detector"):
        pose = replace(config.pose, model="hrnet_w8_tiny", boxes=boxes)
        models = FrozenModels(replace(config, pose=pose), "cpu")
        models.load(frozenset({"joints"}))
        assert (models.joints.detector is not None) == (boxes == "detector")
    assert [pose.boxes for pose in built] == ["detector"]
