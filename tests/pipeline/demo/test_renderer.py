import numpy as np
import pytest

from cache.skeletons import COCO_17
from pipeline.demo.figure import MOTIONS, pose_at
from pipeline.demo.renderer import SIZE, pose_of, render, render_frame
from pipeline.demo.scripts import ACTIONS, NUM_FRAMES, Recording, Segment, WorldConfig, draw_recording

WORLD = WorldConfig()


def _recording(number: int = 0) -> Recording:
    return draw_recording(WORLD, "test_iid", number)


def _with_action(recording: Recording, action: str) -> Recording:
    return Recording(
        activity=None,
        segments=(Segment(action=action, start=0, stop=NUM_FRAMES),),
        background=recording.background,
        shirt=recording.shirt,
        distractor=recording.distractor,
        co_occurring=None,
        look=recording.look,
    )


def test_joints_stay_inside_the_frame_or_near_it() -> None:
    for number in range(48):
        recording = _with_action(_recording(number), ACTIONS[number % len(ACTIONS)])
        joints = np.stack([pose_of(recording, frame).joints for frame in range(0, NUM_FRAMES, 3)])
        assert joints.shape[1:] == (COCO_17.num_joints, 2)
        assert joints.min() > -5
        assert joints.max() < SIZE + 5


def test_joints_lie_on_the_drawn_figure() -> None:
    recording = _recording(3)
    for frame in range(0, NUM_FRAMES, 7):
        person = render_frame(recording, frame, "neutral").astype(int)
        wall = np.abs(person - person[0, 0]).max(axis=-1) > 12
        for x, y in pose_of(recording, frame).joints:
            row, column = round(float(y)), round(float(x))
            near = wall[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4]
            assert near.any()


def test_left_joints_are_on_the_right_of_the_image_and_limbs_keep_their_length() -> None:
    look = _recording().look
    for action in ACTIONS:
        joints = pose_at(action, 1.3, look).joints
        for left, right in ((5, 6), (11, 12)):
            assert joints[left, 0] > joints[right, 0]
        for upper, lower in ((7, 9), (8, 10)):
            length = float(np.linalg.norm(joints[upper] - joints[lower]))
            assert length == pytest.approx(8.5 * look.scale, rel=0.12)  # leaning shears a little
        assert joints[15, 1] == pytest.approx(look.feet_y, abs=1e-3)


def test_every_action_has_its_own_motion() -> None:
    look = _recording().look
    arms = {action: np.stack([pose_at(action, t / 8, look).joints[5:11] for t in range(16)]) for action in ACTIONS}
    for i, one in enumerate(ACTIONS):
        for other in ACTIONS[:i]:
            assert np.abs(arms[one].mean(axis=0) - arms[other].mean(axis=0)).max() > 1.5
    assert all(arms[action].std(axis=0).max() > 0.3 for action in ACTIONS)
    assert tuple(MOTIONS) == ACTIONS


def test_frames_are_a_function_of_the_recording() -> None:
    first, again = render(_recording(1)), render(_recording(1))
    assert first.shape == (NUM_FRAMES, SIZE, SIZE, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, render(_recording(2)))


def test_covering_the_cause_hides_what_differs_between_actions_and_keeps_the_scene() -> None:
    recording = _recording(4)
    for frame in (5, 35, 65):
        filmed, covered = (render_frame(recording, frame, mode).astype(int) for mode in ("plain", "masked"))
        changed = np.abs(filmed - covered).max(axis=-1) > 0
        joints = pose_of(recording, frame).joints
        inside = joints[(joints > 0).all(axis=1) & (joints < SIZE - 1).all(axis=1)].round().astype(int)
        grey = covered[inside[:, 1], inside[:, 0]]
        corner = np.abs(grey - 112).max(axis=-1) > 0  # the corner object stands in front of the cover
        assert (~corner).mean() > 0.8
        assert 0.2 < changed.mean() < 0.95
        assert np.array_equal(filmed[:, :2], covered[:, :2]) or np.array_equal(filmed[:, -2:], covered[:, -2:])


def test_neutral_frames_do_not_depend_on_any_confounder() -> None:
    recording = _recording(5)
    others = {"background": 1, "shirt": 2, "distractor": 3}
    changed = Recording(**{**vars(recording), **{key: (getattr(recording, key) + k) % 8 for key, k in others.items()}})
    assert np.array_equal(render_frame(recording, 20, "neutral"), render_frame(changed, 20, "neutral"))
    assert not np.array_equal(render_frame(recording, 20), render_frame(changed, 20))
