"""Joints of the demo world's rendered people against the joints they were drawn from, from video files to the cache.

PCK@0.1 is the share of joints within a tenth of the longer side of the person's box.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import pipeline.demo
from cache.manifest import Clip, Dataset, Task
from cache.rows import Joints
from cache.store import FeatureStore
from extract.config import BoxSource, ExtractConfig, PoseConfig
from extract.extractor import extract
from extract.pose.boxes import DETECTOR, INTERPOLATED, Boxes
from extract.pose.estimator import PoseEstimator
from extract.pose.tracking import follow
from pipeline.demo.renderer import SIZE, pose_of, render, render_frame
from pipeline.demo.scripts import NUM_FRAMES, Recording, WorldConfig, draw_recording
from pipeline.demo.world import write_video

Floats = npt.NDArray[np.float32]

WEIGHTS = Path(pipeline.demo.__file__).parent / "weights" / "hrnet_w8_tiny.safetensors"
PADDING = 8.0  # pixels around the joints: hands, feet and the skull lie outside of them
TASK = Task(name="activity", kind="single", class_names=("a", "b"), prompts=("a", "b"))
ABSENT = (*range(20, 31), 50, *range(70, 75))  # frames in which the boxes file says: nobody


def tiny(boxes: BoxSource = "whole_frame", boxes_file: str = "", **values: object) -> PoseConfig:
    settings = {"model": "hrnet_w8_tiny", "weights": str(WEIGHTS), "input_height": 64, "input_width": 64}
    return PoseConfig(boxes=boxes, boxes_file=boxes_file, **{**settings, "batch_size": 20, **values})  # type: ignore[arg-type]


def recordings() -> dict[str, Recording]:
    return {f"clip-{number}": draw_recording(WorldConfig(), "test_recombined", number) for number in range(3)}


def true_joints(recording: Recording) -> Floats:
    """(80, 17, 2) in pixels."""
    return np.stack([pose_of(recording, frame).joints for frame in range(NUM_FRAMES)])


def boxes_around(joints: Floats, padding: float = PADDING) -> Floats:
    """(F, 4) x1 y1 x2 y2."""
    return np.concatenate([joints.min(axis=1) - padding, joints.max(axis=1) + padding], axis=1)


def box_line(name: str, recording: Recording) -> str:
    boxes: list[list[float] | None] = [[*map(float, box), 0.9] for box in boxes_around(true_joints(recording))]
    for frame in ABSENT if name == "clip-0" else ():
        boxes[frame] = None
    return json.dumps({"clip": name, "boxes": boxes})


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FeatureStore]:
    """Joints of every frame, once in the whole frame and once in the boxes of a file."""
    folder = tmp_path_factory.mktemp("people")
    for name, recording in recordings().items():
        write_video(folder / f"{name}.mp4", render(recording))
    clips = tuple(Clip(id=name, video=f"{name}.mp4", labels={"activity": ("a",)}) for name in recordings())
    dataset = Dataset(name="people", version="1", tasks=(TASK,), protocols={}, clips=clips, video_root=folder)
    listed = folder / "boxes.jsonl"
    listed.write_text("\n".join(box_line(name, recording) for name, recording in recordings().items()))
    for name, pose in (("whole_frame", tiny()), ("file", tiny("file", str(listed)))):
        config = ExtractConfig(streams=("joints",), num_frames=NUM_FRAMES, pose=pose)
        extract(dataset, folder / name, config, workers=1, device="cpu")
    return {name: FeatureStore.open(folder / name) for name in ("whole_frame", "file")}


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How far joints lie from where they were drawn."""

    distance: Floats
    """(F, J) pixels, NaN where missing."""
    side: Floats
    """(F,) the longer side of the box."""

    @property
    def mean(self) -> float:
        """Pixels, over the joints that were found."""
        return float(np.nanmean(self.distance))

    @property
    def pck(self) -> float:
        """PCK@0.1; a missing joint is a wrong one."""
        return float((self.distance <= 0.1 * self.side[:, None]).mean())

    def __str__(self) -> str:
        return f"PCK@0.1 {self.pck:.3f}, mean error {self.mean:.2f} px in frames of {SIZE} px"


def accuracy(xy: Floats, truth: Floats, boxes: Floats) -> Accuracy:
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    return Accuracy(distance=np.linalg.norm(xy - truth, axis=-1), side=side)


def all_frames(store: FeatureStore) -> tuple[Floats, Floats, Floats]:
    """Found and true joints, and boxes, of all frames with somebody; checks that every frame is there."""
    found, truth, boxes = [], [], []
    for name, recording in recordings().items():
        joints: Joints = store.joints[name]
        assert store.joints.frame_index(name).tolist() == list(range(NUM_FRAMES))
        somebody = joints.valid > 0
        found.append(joints.xy[somebody])
        truth.append(true_joints(recording)[somebody])
        boxes.append(joints.box[somebody])
    return np.concatenate(found), np.concatenate(truth), np.concatenate(boxes)


@pytest.mark.parametrize(("boxes", "least_pck", "most_pixels"), [("whole_frame", 0.98, 1.6), ("file", 0.97, 2.0)])
def test_joints_are_where_people_were_drawn(
    caches: dict[str, FeatureStore], boxes: str, least_pck: float, most_pixels: float
) -> None:
    result = accuracy(*all_frames(caches[boxes]))
    assert result.pck >= least_pck, result
    assert result.mean <= most_pixels, result
    bias = np.nanmean(np.subtract(*all_frames(caches[boxes])[:2]), axis=(0, 1))
    assert np.abs(bias).max() < 0.5  # pixels: crop and decoding agree on where a pixel is


def test_left_and_right_are_the_persons_own(caches: dict[str, FeatureStore]) -> None:
    found, truth, _ = all_frames(caches["whole_frame"])
    for left, right in ((5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)):
        apart = np.abs(truth[:, left, 0] - truth[:, right, 0]) > 5
        assert (found[apart, left, 0] > found[apart, right, 0]).mean() > 0.98  # people face the camera


def test_frames_with_nobody_stay_in_their_place_in_time(caches: dict[str, FeatureStore]) -> None:
    joints = caches["file"].joints["clip-0"]
    assert np.flatnonzero(joints.valid == 0).tolist() == list(ABSENT)
    assert np.isnan(joints.xy[[*ABSENT]]).all()
    assert (joints.score[[*ABSENT]] == 0).all()
    truth = true_joints(recordings()["clip-0"])
    rows = np.flatnonzero(joints.valid)
    rows = rows[(rows >= 3) & (rows < NUM_FRAMES - 3)]
    errors = {lag: float(np.linalg.norm(joints.xy[rows] - truth[rows + lag], axis=-1).mean()) for lag in range(-3, 4)}
    assert min(errors, key=errors.__getitem__) == 0  # else the rows belong to earlier or later frames
    assert errors[0] < 2.0


def test_heatmaps_decoded_by_another_codec_move_every_joint() -> None:
    recording = recordings()["clip-1"]
    frames = render(recording)[::8]
    whole = np.tile(np.array([0, 0, SIZE, SIZE], np.float32), (len(frames), 1))
    errors = {}
    for codec in ("msra", "dark", "udp"):
        xy, _ = PoseEstimator.load(tiny(codec=codec), torch.device("cpu")).estimate(frames, whole)
        errors[codec] = accuracy(xy, true_joints(recording)[::8], whole).mean
    assert errors["udp"] > 1.5 * max(errors["msra"], errors["dark"])  # the weights were trained for msra


# Two people who walk past each other.
WIDE = 160
PACE = 1.4  # pixels per frame


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Frames (80, 64, 160, 3) and, for the one in front and the one behind, joints (2, 80, 17, 2)."""

    frames: npt.NDArray[np.uint8]
    joints: Floats


def crossing() -> Crossing:
    """The one in front walks to the right, the one behind to the left, before a plain wall."""
    people = [draw_recording(WorldConfig(), "test_recombined", number) for number in (0, 4)]
    frames = np.full((NUM_FRAMES, SIZE, WIDE, 3), 112, np.uint8)
    joints = np.stack([true_joints(person) for person in people])
    for frame in range(NUM_FRAMES):
        lefts = round(-8 + PACE * frame), round(WIDE - SIZE + 8 - PACE * frame)
        for number in (1, 0):  # the one in front is drawn last
            joints[number, frame, :, 0] += lefts[number]
            _paste(frames[frame], people[number], frame, lefts[number])
    return Crossing(frames=frames, joints=joints)


def _paste(canvas: npt.NDArray[np.uint8], person: Recording, frame: int, left: int) -> None:
    figure = (render_frame(person, frame, "neutral") != 112).any(axis=-1)
    picture = render_frame(person, frame)
    first, last = max(0, left), min(WIDE, left + SIZE)
    inside = slice(first - left, last - left)
    region = canvas[:, first:last]
    region[figure[:, inside]] = picture[:, inside][figure[:, inside]]


def sightings(joints: Floats, scores: Sequence[float], rng: np.random.Generator) -> list[Floats]:
    """What a detector might see: jittered boxes in any order, some missed, the one behind unseen while hidden."""
    boxes = np.stack([boxes_around(person, 4.0) for person in joints])  # (2, F, 4)
    seen = []
    for frame in range(NUM_FRAMES):
        hidden = abs(boxes[0, frame, [0, 2]].mean() - boxes[1, frame, [0, 2]].mean()) < 6
        rows = [
            [*(boxes[person, frame] + rng.normal(0, 1.0, 4)), scores[person] + rng.uniform(-0.05, 0.05)]
            for person in rng.permutation(2)
            if rng.random() > 0.15 and not (person == 1 and hidden)
        ]
        seen.append(np.array(rows, np.float32).reshape(-1, 5))
    return seen


def followed(scene: Crossing, main: int, seed: int) -> Boxes:
    scores = [0.9 if person == main else 0.65 for person in range(2)]
    seen = sightings(scene.joints, scores, np.random.default_rng(seed))
    every = np.arange(NUM_FRAMES)
    return follow(seen, every, every, SIZE, WIDE, tiny(), source=DETECTOR)


def centres(boxes: Floats) -> Floats:
    return np.asarray((boxes[..., :2] + boxes[..., 2:]) / 2, np.float32)


@pytest.mark.parametrize("main", [0, 1], ids=["the one in front", "the one behind"])
@pytest.mark.parametrize("seed", range(5))
def test_who_is_followed_stays_the_same_when_two_people_cross(main: int, seed: int) -> None:
    scene = crossing()
    boxes = followed(scene, main, seed)
    somebody = boxes.present
    true_centres = np.stack([centres(boxes_around(person)) for person in scene.joints])
    distances = np.abs(centres(boxes.xyxy)[None, :, 0] - true_centres[:, :, 0])  # (2, F), from each of the two
    apart = somebody & (np.abs(true_centres[0, :, 0] - true_centres[1, :, 0]) > 12)
    assert (distances[main, apart] < distances[1 - main, apart]).all()
    assert somebody.mean() > 0.9  # misses are filled
    assert (boxes.source == INTERPOLATED).any()
    assert len(set(boxes.track_id[somebody].tolist())) == 1


def test_joints_follow_the_same_person_through_the_crossing() -> None:
    scene = crossing()
    boxes = followed(scene, 0, seed=0)
    xy, _ = PoseEstimator.load(tiny(), torch.device("cpu")).estimate(scene.frames, boxes.xyxy)
    assert np.isnan(xy[~boxes.present]).all()
    rows = boxes.present
    own, other = (accuracy(xy[rows], person[rows], boxes_around(person)[rows]) for person in scene.joints)
    assert own.pck >= 0.9, own
    assert own.mean < 4.0, own
    assert other.pck < 0.5, other
