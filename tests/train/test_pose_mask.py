"""PeVL's pose mask: which pose frame, joints and patches count, against loops over joints."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from train.refinement import pose_frame_of, pose_mask

IMAGE, PATCH = 64, 16
GRID = IMAGE // PATCH
CLIPS, FRAMES, JOINTS, PATCHES = 2, 3, 5, GRID * GRID
EMPTY = (1, 2)
"""Clip and frame without visible joints."""


@pytest.fixture
def joints() -> Tensor:
    """Joints on distinct places, one missing per frame, one frame with none."""
    places = torch.rand(CLIPS, FRAMES, JOINTS, 2, generator=torch.Generator().manual_seed(0)) * IMAGE
    joints = torch.cat([places, torch.ones(CLIPS, FRAMES, JOINTS, 1)], dim=-1)
    joints[:, :, 3, 2] = 0
    joints[EMPTY] = 0
    return joints


@pytest.fixture
def weights() -> Tensor:
    return torch.randn(CLIPS, FRAMES, JOINTS, generator=torch.Generator().manual_seed(1)).softmax(dim=-1)


def mask_of(weights: Tensor, joints: Tensor, dilate: int = 0) -> Tensor:
    return pose_mask(weights, joints, image_size=IMAGE, patch_size=PATCH, dilate=dilate)


def one_joint(x: float, y: float, dilate: int = 0) -> Tensor:
    return mask_of(torch.ones(1, 1, 1), torch.tensor([[[[x, y, 1.0]]]]), dilate)[0, 0]


def test_sixteen_of_forty_eight_pose_frames_are_every_third() -> None:
    assert pose_frame_of(16, 48).tolist() == [3 * i + 1 for i in range(16)]


def test_equal_frame_counts_are_the_identity() -> None:
    assert pose_frame_of(7, 7).tolist() == list(range(7))


@pytest.mark.parametrize(("video", "pose"), [(4, 8), (5, 12), (3, 16), (1, 9), (7, 8)])
def test_the_pose_frame_is_the_nearest_in_time_and_none_comes_twice(video: int, pose: int) -> None:
    index = pose_frame_of(video, pose)
    centres = [(frame + 0.5) / video for frame in range(video)]
    for frame, centre in zip(index.tolist(), centres, strict=True):
        distances = [abs((other + 0.5) / pose - centre) for other in range(pose)]
        assert distances[frame] == pytest.approx(min(distances))
    assert (index.diff() > 0).all()
    assert index.dtype == torch.int64


def test_fewer_pose_than_video_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="16 video frames of 8 pose frames"):
        pose_frame_of(16, 8)


def test_missing_joints_do_not_count_and_the_others_keep_their_proportions(weights: Tensor, joints: Tensor) -> None:
    mask = mask_of(weights, joints)
    changed = weights.clone()
    changed[:, :, 3] = 9
    assert torch.equal(mask_of(changed, joints), mask)
    torch.testing.assert_close(mask_of(weights * 7, joints), mask)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (15.99, 16.0), (40.5, 3.2), (63.9, 63.9)])
def test_a_joint_hits_the_patch_it_lies_in(x: float, y: float) -> None:
    expected = F.one_hot(torch.tensor(int(y // PATCH) * GRID + int(x // PATCH)), PATCHES).float()
    assert torch.equal(one_joint(x, y), expected)


@pytest.mark.parametrize(("x", "y"), [(64.0, 5.0), (5.0, 64.0), (-0.1, 5.0), (5.0, -3.0), (float("nan"), 5.0)])
def test_a_joint_outside_the_image_hits_nothing_nor_spreads_into_it(x: float, y: float) -> None:
    assert torch.equal(one_joint(x, y), torch.zeros(PATCHES))
    assert torch.equal(one_joint(x, y, dilate=1), torch.zeros(PATCHES))


def test_the_last_pixel_of_a_real_frame_is_inside_and_the_next_is_not() -> None:
    joints = torch.tensor([[[[223.9, 223.9, 1.0]], [[224.0, 223.9, 1.0]]]])
    mask = pose_mask(torch.ones(1, 2, 1), joints, image_size=224, patch_size=16, dilate=0)
    assert mask[0].nonzero().tolist() == [[0, 195]]


def test_the_mask_equals_weights_added_patch_by_patch(weights: Tensor, joints: Tensor) -> None:
    joints[0, 0, 1] = joints[0, 0, 0]
    expected = torch.zeros(CLIPS, FRAMES, PATCHES)
    for clip, frame, joint in torch.cartesian_prod(torch.arange(CLIPS), torch.arange(FRAMES), torch.arange(JOINTS)):
        x, y, score = joints[clip, frame, joint].tolist()
        if score > 0:
            expected[clip, frame, int(y // PATCH) * GRID + int(x // PATCH)] += weights[clip, frame, joint]
    expected /= expected.sum(dim=-1, keepdim=True).clamp_min(1e-9)
    torch.testing.assert_close(mask_of(weights, joints), expected)
    assert (mask_of(weights, joints)[EMPTY] == 0).all()


def test_mirroring_joints_mirrors_the_mask(weights: Tensor, joints: Tensor) -> None:
    mirrored = joints.clone()
    mirrored[..., 0] = IMAGE - mirrored[..., 0]
    expected = mask_of(weights, joints).unflatten(-1, (GRID, GRID)).flip(-1).flatten(-2)
    torch.testing.assert_close(mask_of(weights, mirrored), expected)


def test_a_crop_by_one_patch_shifts_the_mask_by_one_patch() -> None:
    assert torch.equal(one_joint(40.5 - PATCH, 20.1), one_joint(40.5, 20.1).roll(-1))
    assert torch.equal(one_joint(40.5, 20.1 - PATCH), one_joint(40.5, 20.1).roll(-GRID))


def test_dilation_spreads_a_weight_evenly_over_the_patches_around_it() -> None:
    joints = torch.tensor([[[[0.0, 0.0, 1.0], [40.0, 24.0, 1.0]]]])
    mask = mask_of(torch.tensor([[[0.4, 0.6]]]), joints, dilate=1)[0, 0].view(GRID, GRID)
    corner, middle = torch.zeros(GRID, GRID), torch.zeros(GRID, GRID)
    corner[:2, :2], middle[:3, 1:] = 0.4 / 4, 0.6 / 9
    torch.testing.assert_close(mask, corner + middle)


def test_the_masks_gradient_is_that_of_the_normalised_weights(weights: Tensor, joints: Tensor) -> None:
    weights.requires_grad_()
    joints[0, 0, :, 0] = torch.tensor([1.0, 17.0, 33.0, 0.0, 49.0])
    joints[0, 0, [0, 1, 2, 4], 1] = 1.0
    mask = mask_of(weights, joints)
    mask[0, 0, 0].backward(retain_graph=True)
    total = weights[0, 0, [0, 1, 2, 4]].sum().item()
    expected = torch.full((JOINTS,), -weights[0, 0, 0].item() / total**2)
    expected[0] += 1 / total
    expected[3] = 0
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad[0, 0], expected)
    mask[EMPTY].sum().backward()
    assert torch.isfinite(weights.grad).all()


def test_the_mask_stays_in_full_precision_under_autocast(weights: Tensor, joints: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mask = mask_of(weights, joints)
    assert torch.equal(mask, mask_of(weights, joints))


def test_patches_that_do_not_tile_the_image_are_refused(weights: Tensor, joints: Tensor) -> None:
    with pytest.raises(ValueError, match="patches of 15 pixels do not tile an image of 64"):
        pose_mask(weights, joints, image_size=64, patch_size=15, dilate=0)
