"""PeVL's UCMR: attentions and loss against hand loops, torch's own attention and the printed equations."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from train.refinement import (
    CrossModalRefinement,
    Grouping,
    MaskReading,
    PoseToVideo,
    VideoToPose,
    nearest_patches,
    nt_xent,
    pose_mask,
)

IMAGE, PATCH = 64, 16
GRID = IMAGE // PATCH
WIDTH, HEADS = 12, 3
CLIPS, FRAMES, JOINTS, PATCHES = 2, 3, 5, GRID * GRID
EMPTY = (1, 2)
"""Clip and frame without visible joints."""


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def joints() -> Tensor:
    """Joints on distinct places, one missing per frame, one frame with none."""
    places = torch.rand(CLIPS, FRAMES, JOINTS, 2, generator=torch.Generator().manual_seed(0)) * IMAGE
    joints = torch.cat([places, torch.ones(CLIPS, FRAMES, JOINTS, 1)], dim=-1)
    joints[:, :, 3] = 0
    joints[EMPTY] = 0
    return joints


@pytest.fixture
def weights() -> Tensor:
    return random(CLIPS, FRAMES, JOINTS, seed=1).softmax(dim=-1)


def mask_of(weights: Tensor, joints: Tensor) -> Tensor:
    return pose_mask(weights, joints, image_size=IMAGE, patch_size=PATCH, dilate=0)


def refinement(
    p2v: MaskReading = "key", *, v2p: bool = True, group: Grouping = "none", radius: float = 1.0, zero: bool = False
) -> CrossModalRefinement:
    torch.manual_seed(2)
    module = CrossModalRefinement(WIDTH, HEADS, p2v=p2v, v2p=v2p, v2p_group=group, v2p_radius=radius, patch_size=PATCH)
    if not zero:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return module


@pytest.fixture
def inputs(weights: Tensor, joints: Tensor) -> dict[str, Tensor]:
    return {
        "video": random(CLIPS, FRAMES, 1 + PATCHES, WIDTH, seed=3),
        "pose": random(CLIPS, FRAMES, 1 + JOINTS, WIDTH, seed=4),
        "mask": mask_of(weights, joints),
        "joints": joints,
    }


def by_hand(
    queries: Tensor,
    patches: Tensor,
    module: CrossModalRefinement,
    part: PoseToVideo | VideoToPose | None,
    weights: Tensor,
) -> Tensor:
    """Updates of one frame: queries (q, d), patches (P, d), weights broadcast to (q, P) -> (q, d)."""
    assert part is not None
    assert module.patch_key is not None
    assert module.patch_value is not None
    mixed = []
    for head in range(HEADS):
        rows = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        keys, values = patches @ module.patch_key.weight[rows].T, patches @ module.patch_value.weight[rows].T
        raised = weights * (queries @ part.query.weight[rows].T @ keys.T / (WIDTH / HEADS) ** 0.5).exp()
        mixed.append(raised @ values / (raised.sum(dim=-1, keepdim=True) + (weights == 0).all(dim=-1, keepdim=True)))
    return torch.cat(mixed, dim=-1) @ part.proj.weight.T


# --- pose to video


def test_video_is_refined_as_in_a_hand_loop(inputs: dict[str, Tensor]) -> None:
    module = refinement()
    refined, _ = module(**inputs)
    for clip, frame in torch.cartesian_prod(torch.arange(CLIPS), torch.arange(FRAMES)).tolist():
        tokens = inputs["video"][clip, frame]
        expected = tokens + by_hand(tokens, tokens[1:], module, module.pose_to_video, inputs["mask"][clip, frame])
        torch.testing.assert_close(refined[clip, frame], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reading", ["key", "outer"])
def test_a_frame_without_joints_keeps_its_video_tokens(reading: MaskReading, inputs: dict[str, Tensor]) -> None:
    refined, _ = refinement(reading)(**inputs)
    assert torch.equal(refined[EMPTY], inputs["video"][EMPTY])
    assert not torch.allclose(refined[0, 0], inputs["video"][0, 0], atol=1e-3)


def test_the_printed_reading_gives_patches_off_the_joints_the_weight_of_exp_zero(inputs: dict[str, Tensor]) -> None:
    module = refinement("inside")
    refined, _ = module(**inputs)
    assert module.pose_to_video is not None
    assert module.patch_key is not None
    assert module.patch_value is not None
    for clip, frame in ((0, 0), EMPTY):
        tokens, mask = inputs["video"][clip, frame], inputs["mask"][clip, frame]
        heads = [
            (tokens @ module.pose_to_video.query.weight.T).view(-1, HEADS, 4).transpose(0, 1),
            (tokens[1:] @ module.patch_key.weight.T).view(-1, HEADS, 4).transpose(0, 1),
            (tokens[1:] @ module.patch_value.weight.T).view(-1, HEADS, 4).transpose(0, 1),
        ]
        raised = (mask * (heads[0] @ heads[1].mT) / 2.0).exp()
        assert (raised[..., mask == 0] == 1).all()
        attention = raised / (raised.sum(dim=-1, keepdim=True) + bool((mask == 0).all()))
        mixed = (attention @ heads[2]).transpose(0, 1).flatten(1)
        expected = tokens + mixed @ module.pose_to_video.proj.weight.T
        torch.testing.assert_close(refined[clip, frame], expected, atol=1e-5, rtol=1e-4)


def test_the_outer_reading_refines_only_tokens_on_joints(inputs: dict[str, Tensor]) -> None:
    refined, _ = refinement("outer")(**inputs)
    on_joint = F.pad(inputs["mask"] > 0, (1, 0))
    assert torch.equal(refined[~on_joint], inputs["video"][~on_joint])
    torch.testing.assert_close(refined[on_joint], refinement("key")(**inputs)[0][on_joint])


def test_patches_off_the_joints_do_not_reach_other_tokens(inputs: dict[str, Tensor]) -> None:
    module = refinement(v2p=False)
    refined, _ = module(**inputs)
    changed = inputs["video"].clone()
    off_joint = F.pad(inputs["mask"] == 0, (1, 0))
    changed[off_joint] += 1
    torch.testing.assert_close(module(**(inputs | {"video": changed}))[0][~off_joint], refined[~off_joint])


@pytest.mark.parametrize("reading", ["key", "inside", "outer"])
@pytest.mark.parametrize("autocast", [False, True])
def test_empty_frames_among_others_leave_values_and_gradients_finite(
    reading: MaskReading, autocast: bool, weights: Tensor, joints: Tensor, inputs: dict[str, Tensor]
) -> None:
    module = refinement(reading, group="nearest")
    leaves = {name: inputs[name].clone().requires_grad_() for name in ("video", "pose")}
    weights.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        mask = mask_of(weights, joints)
        video, pose = module(**leaves, mask=mask, joints=joints)
    if reading != "inside":
        assert torch.equal(video[EMPTY], inputs["video"][EMPTY])
    (video.square().sum() + pose.square().sum()).backward()
    for tensor in (*leaves.values(), weights, *module.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.any()


# --- video to pose


def test_joints_read_all_patches_as_if_a_background_query_stood_beside_them(inputs: dict[str, Tensor]) -> None:
    module = refinement()
    _, refined = module(**inputs)
    for clip, frame in torch.cartesian_prod(torch.arange(CLIPS), torch.arange(FRAMES)).tolist():
        patches, tokens = inputs["video"][clip, frame, 1:], inputs["pose"][clip, frame]
        queries = torch.cat([tokens[1:], 9 * random(1, WIDTH, seed=9)])
        update = by_hand(queries, patches, module, module.video_to_pose, torch.ones(PATCHES))[:-1]
        torch.testing.assert_close(refined[clip, frame, 1:], tokens[1:] + update, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(refined[clip, frame, 0], tokens[0] + update.mean(dim=0), atol=1e-5, rtol=1e-4)


def test_attention_of_joints_sums_to_one_over_patches(inputs: dict[str, Tensor]) -> None:
    module = refinement(p2v="off")
    inputs["video"][:, :, 1:] = inputs["video"][:, :, 1:2]
    assert module.patch_value is not None
    assert module.video_to_pose is not None
    value = inputs["video"][0, 0, 1] @ module.patch_value.weight.T @ module.video_to_pose.proj.weight.T
    _, refined = module(**inputs)
    expected = inputs["pose"][0, 0] + value
    torch.testing.assert_close(refined[0, 0], expected, atol=1e-5, rtol=1e-4)


def owner_by_loop(joints: Tensor, patch: int, radius: float) -> int | None:
    y, x = divmod(patch, GRID)
    distances = {
        joint: ((place[0] / PATCH - x - 0.5) ** 2 + (place[1] / PATCH - y - 0.5) ** 2) ** 0.5
        for joint, place in enumerate(joints.tolist())
        if place[2] > 0
    }
    nearest = min(distances, key=lambda joint: distances[joint], default=None)
    return nearest if nearest is not None and distances[nearest] <= radius else None


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0])
def test_a_patch_belongs_to_its_nearest_visible_joint_within_the_radius(radius: float, joints: Tensor) -> None:
    members = nearest_patches(joints.flatten(0, 1), num_patches=PATCHES, patch_size=PATCH, radius=radius)
    for frame, places in enumerate(joints.flatten(0, 1)):
        for patch in range(PATCHES):
            owner = owner_by_loop(places, patch, radius)
            assert members[frame, :, patch].nonzero().flatten().tolist() == ([] if owner is None else [owner])
    assert members.any()
    assert not members.any(dim=-2).all()


def test_grouped_joints_read_their_patches_only(inputs: dict[str, Tensor], joints: Tensor) -> None:
    module = refinement(group="nearest")
    _, refined = module(**inputs)
    members = nearest_patches(joints.flatten(0, 1), num_patches=PATCHES, patch_size=PATCH, radius=1.0)
    for (clip, frame), weights in zip(
        torch.cartesian_prod(torch.arange(CLIPS), torch.arange(FRAMES)).tolist(), members.float(), strict=True
    ):
        patches, tokens = inputs["video"][clip, frame, 1:], inputs["pose"][clip, frame]
        update = by_hand(tokens[1:], patches, module, module.video_to_pose, weights)
        torch.testing.assert_close(refined[clip, frame, 1:], tokens[1:] + update, atol=1e-5, rtol=1e-4)
    assert torch.equal(refined[:, :, 1 + 3], inputs["pose"][:, :, 1 + 3])
    assert torch.equal(refined[EMPTY], inputs["pose"][EMPTY])


def test_patches_in_no_square_are_refused(joints: Tensor) -> None:
    with pytest.raises(ValueError, match="12 patches do not form a square grid"):
        nearest_patches(joints.flatten(0, 1), num_patches=12, patch_size=PATCH, radius=1.0)


# --- the block


def test_both_directions_read_unrefined_tokens(inputs: dict[str, Tensor]) -> None:
    both, only = refinement(), refinement("off")
    only.load_state_dict({name: value for name, value in both.state_dict().items() if "pose_to_video" not in name})
    torch.testing.assert_close(only(**inputs)[1], both(**inputs)[1])


def test_the_block_has_six_square_matrices_and_parts_that_are_off_have_none() -> None:
    def sizes(module: CrossModalRefinement) -> list[int]:
        return [parameter.numel() for parameter in module.parameters()]

    assert sizes(refinement()) == [WIDTH**2] * 6
    assert sizes(refinement(v2p=False)) == sizes(refinement("off")) == [WIDTH**2] * 4
    assert sizes(refinement("off", v2p=False)) == []


def test_parts_that_are_off_hand_their_tokens_through(inputs: dict[str, Tensor]) -> None:
    assert torch.equal(refinement("off")(**inputs)[0], inputs["video"])
    assert torch.equal(refinement(v2p=False)(**inputs)[1], inputs["pose"])
    video, pose = refinement("off", v2p=False)(**inputs)
    assert torch.equal(video, inputs["video"])
    assert torch.equal(pose, inputs["pose"])


def test_refined_tokens_start_as_the_encoders_and_the_first_step_moves_the_output_projections(
    inputs: dict[str, Tensor],
) -> None:
    module = refinement(zero=True)
    video, pose = module(**inputs)
    assert torch.equal(video, inputs["video"])
    assert torch.equal(pose, inputs["pose"])
    tau = torch.tensor(0.07)
    loss = nt_xent(inputs["video"][:, :, 0].mean(dim=1), video[:, :, 0].mean(dim=1), tau)
    (loss + nt_xent(inputs["pose"][:, :, 0].mean(dim=1), pose[:, :, 0].mean(dim=1), tau)).backward()
    moved = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {"pose_to_video.proj.weight", "video_to_pose.proj.weight"}


def test_a_block_in_half_precision_gives_the_same_to_its_precision(inputs: dict[str, Tensor]) -> None:
    expected = refinement()(**inputs)
    halves = {name: inputs[name].bfloat16() for name in ("video", "pose")}
    for half, full in zip(refinement().bfloat16()(**(inputs | halves)), expected, strict=True):
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), full, atol=0.1, rtol=0.05)


def test_unknown_readings_and_groupings_are_refused() -> None:
    wrong: Any = "mask"
    with pytest.raises(ValueError, match="p2v 'mask'"):
        refinement(wrong)
    with pytest.raises(ValueError, match="v2p_group 'mask'"):
        refinement(group=wrong)


# --- refinement loss


def test_nt_xent_is_cross_entropy_over_cosines_with_the_own_clip_as_target() -> None:
    features, refined, tau = random(5, 8, seed=10), random(5, 8, seed=11), torch.tensor(0.3)
    cosines = F.cosine_similarity(features[:, None], refined[None], dim=-1)
    torch.testing.assert_close(nt_xent(features, refined, tau), F.cross_entropy(cosines / tau, torch.arange(5)))
    assert not torch.allclose(nt_xent(features, refined, tau), nt_xent(refined, features, tau))


def test_nt_xent_of_equal_features_vanishes_with_the_temperature_and_ignores_scale() -> None:
    features, tau = random(5, 8, seed=10), torch.tensor(0.5)
    assert nt_xent(features, features, torch.tensor(1e-3)) < 1e-6
    assert nt_xent(features, features, tau) > 0.1
    scaled = nt_xent(3 * features, features * torch.arange(1.0, 6.0)[:, None], tau)
    torch.testing.assert_close(scaled, nt_xent(features, features, tau))


def test_nt_xent_stays_in_full_precision_under_autocast() -> None:
    features, refined, tau = random(5, 8, seed=10), random(5, 8, seed=11), torch.tensor(0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(features, refined, tau)
    assert torch.equal(loss, nt_xent(features, refined, tau))
