import numpy as np
import pytest

from cache.skeletons import COCO_17, SKELETONS, TOYOTA_13, Skeleton


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS.keys())
def test_mirroring_swaps_left_and_right_and_nothing_else(skeleton: Skeleton) -> None:
    for joint, mirrored in enumerate(skeleton.flip_order):
        name, other = skeleton.joint_names[joint], skeleton.joint_names[mirrored]
        swapped = name.replace("left", "X").replace("right", "left").replace("X", "right")
        assert other == swapped
    assert (skeleton.flip_order[skeleton.flip_order] == np.arange(skeleton.num_joints)).all()


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS.keys())
def test_limbs_connect_every_joint_to_every_other(skeleton: Skeleton) -> None:
    reached = {0}
    for _ in range(skeleton.num_joints):
        reached |= {end for limb in skeleton.limbs if reached & set(limb) for end in limb}
    assert reached == set(range(skeleton.num_joints))


def test_coco_order_is_that_of_the_keypoint_annotations() -> None:
    assert COCO_17.num_joints == 17
    names = COCO_17.joint_names
    assert (names[0], names[5], names[10], names[15], names[16]) == (
        "nose",
        "left_shoulder",
        "right_wrist",
        "left_ankle",
        "right_ankle",
    )


def test_toyota_order_is_that_of_its_skeleton_files() -> None:
    assert TOYOTA_13.num_joints == 13
    names = TOYOTA_13.joint_names
    assert (names[0], names[5], names[6], names[11], names[12]) == (
        "right_ankle",
        "left_hip",
        "right_wrist",
        "left_shoulder",
        "head",
    )


def test_limbs_and_pairs_must_be_joints() -> None:
    with pytest.raises(ValueError, match="limbs"):
        Skeleton(name="x", joint_names=("a", "b"), flip_pairs=(), limbs=((0, 2),))
    with pytest.raises(ValueError, match="two flip pairs"):
        Skeleton(name="x", joint_names=("a", "b", "c"), flip_pairs=((0, 1), (1, 2)), limbs=())
