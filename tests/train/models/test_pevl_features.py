"""PeVL from the encoders' tokens to projected features, against the specification by hand; and what it starts with."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.models.small_pevl import (
    CLIPS,
    DIM,
    FRAMES,
    GRID,
    NO_UCMR,
    PATCH,
    POSE_FRAMES,
    SHARED,
    WIDTH,
    build,
    joints,
    pixels,
    towers,
)
from train.models.pevl import PeVL, VisualFeatures
from train.refinement import CrossModalRefinement

Pool = Callable[[Tensor], Tensor]
POSE_ALONE: dict[str, Any] = {"encoders": ("pose", "text"), "adapters": ("pose",), "similarities": ("ps",)}
VIDEO_ALONE: dict[str, Any] = {"encoders": ("video", "text"), "adapters": ("video",), "similarities": ("vs",)}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def run(model: PeVL) -> VisualFeatures:
    return model(
        pixels=None if model.video is None else pixels(),
        tokens=None,
        joints=None if model.pose is None else joints(),
    )


def class_token(tokens: Tensor) -> Tensor:
    return tokens[:, :, 0]


def others(tokens: Tensor) -> Tensor:
    """Mean of patches or of joints."""
    return tokens[:, :, 1:].sum(dim=2) / (tokens.shape[2] - 1)


def video_tokens(model: PeVL) -> Tensor:
    assert model.video is not None
    return model.video(model.image_tower, pixels())


def pose_tokens(model: PeVL) -> tuple[Tensor, Tensor]:
    assert model.pose is not None
    tokens, weights = model.pose(model.image_tower, joints())
    assert weights is not None
    return tokens, weights


def projected(model: PeVL, tokens: Tensor, projection: nn.Linear | None) -> Tensor:
    """ln_post as it is defined, then the projection."""
    assert projection is not None
    norm = model.image_tower.ln_post
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    unit = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return (unit * norm.weight + norm.bias) @ projection.weight.T


def mask_by_hand(weights: Tensor, dilate: int) -> Tensor:
    """M (n, L, P): weights of visible joints in the patches around theirs, summing to 1 in a frame with joints."""
    mask = torch.zeros(CLIPS, FRAMES, GRID, GRID)
    for clip in range(CLIPS):
        for frame, instant in enumerate(SHARED):
            for (x, y, score), weight in zip(joints()[clip, instant].tolist(), weights[clip, instant], strict=True):
                row, column = int(y // PATCH), int(x // PATCH)
                rows = slice(max(row - dilate, 0), row + dilate + 1)
                columns = slice(max(column - dilate, 0), column + dilate + 1)
                part = mask[clip, frame, rows, columns]
                part += (score > 0) * weight / part.numel()
    total = mask.sum(dim=(2, 3), keepdim=True)
    return (mask / total.where(total > 0, 1.0)).flatten(2)


def pooled(
    model: PeVL, video: Tensor, pose: Tensor, video_pool: Pool, pose_pool: Pool
) -> tuple[Tensor, Tensor, Tensor]:
    """V (n, D), P (n, D), F (n, T, D) of tokens."""
    frames = pose_pool(pose)
    return (
        projected(model, video_pool(video).sum(dim=1) / FRAMES, model.video_projection),
        projected(model, frames.sum(dim=1) / POSE_FRAMES, model.pose_projection),
        projected(model, frames, model.pose_projection),
    )


def plain_features(model: PeVL) -> tuple[Tensor, Tensor, Tensor]:
    """V, P and F of what the encoders give."""
    return pooled(model, video_tokens(model), pose_tokens(model)[0], class_token, class_token)


def refinement_block(model: PeVL, **switches: Any) -> CrossModalRefinement:  # noqa: ANN401
    """The model's weights in a block that is built here."""
    assert model.refinement is not None
    settings: dict[str, Any] = {"p2v": "key", "v2p": True, "v2p_group": "none", "v2p_radius": 2} | switches
    block = CrossModalRefinement(WIDTH, 4, patch_size=PATCH, **settings)
    block.load_state_dict(model.refinement.state_dict())
    return block


def features_by_hand(
    model: PeVL,
    block: CrossModalRefinement,
    *,
    dilate: int = 0,
    video_pool: Pool = class_token,
    pose_pool: Pool = class_token,
) -> VisualFeatures:
    """Mask, refinement and pooling as specified, written down from the encoders' tokens on."""
    video, (pose, weights) = video_tokens(model), pose_tokens(model)
    shared = pose[:, list(SHARED)]
    refined_video, refined = block(video, shared, mask_by_hand(weights, dilate), joints()[:, list(SHARED)])
    refined_pose = pose.clone()
    for frame, instant in enumerate(SHARED):
        refined_pose[:, instant] = refined[:, frame]
    before_video, before_pose, _ = pooled(model, video, pose, video_pool, pose_pool)
    after_video, after_pose, frames = pooled(model, refined_video, refined_pose, video_pool, pose_pool)
    return VisualFeatures(
        video=after_video,
        pose=after_pose,
        pose_frames=frames,
        unrefined_video=before_video,
        unrefined_pose=before_pose,
    )


def check(found: VisualFeatures, expected: VisualFeatures) -> None:
    torch.testing.assert_close(vars(found), vars(expected), atol=1e-5, rtol=1e-4)


# --- features


@pytest.mark.parametrize(
    ("switches", "changes", "reading"),
    [
        ({}, {}, {}),
        ({"p2v": "inside"}, {}, {}),
        ({"p2v": "outer"}, {}, {"video_pool": others}),
        ({"v2p_group": "nearest"}, {}, {}),
        ({"v2p_group": "nearest", "v2p_radius": 1}, {}, {}),
        ({}, {"mask_dilate": 1}, {"dilate": 1}),
        ({}, {"pose_pool": "cls+mean"}, {"pose_pool": lambda tokens: class_token(tokens) + others(tokens)}),
    ],
    ids=["plain", "inside", "outer", "nearest", "radius", "dilate", "pose_pool"],
)
def test_features_are_those_of_the_specification(
    switches: dict[str, Any], changes: dict[str, Any], reading: dict[str, Any]
) -> None:
    model = build(**switches, **changes)
    expected = features_by_hand(model, refinement_block(model, **switches), **reading)
    check(run(model), expected)
    for before, after in ((expected.unrefined_video, expected.video), (expected.unrefined_pose, expected.pose)):
        assert before is not None
        assert after is not None
        assert (before - after).abs().max() > 1e-2


def test_only_the_pose_frames_of_video_frames_are_refined() -> None:
    model = build()
    frames, plain = run(model).pose_frames, projected(model, class_token(pose_tokens(model)[0]), model.pose_projection)
    assert frames is not None
    moved = (frames - plain).abs().amax(dim=-1) > 1e-4
    assert moved.all(dim=0).nonzero().flatten().tolist() == list(SHARED)
    assert moved.any(dim=0).nonzero().flatten().tolist() == list(SHARED)


def test_a_sub_block_that_is_off_changes_nothing_and_leaves_nothing_to_compare() -> None:
    without_p2v, without_v2p = build(p2v="off"), build(v2p=False)
    found, other = run(without_p2v), run(without_v2p)
    video, pose, _ = plain_features(without_p2v)
    torch.testing.assert_close((found.video, found.unrefined_pose), (video, pose), atol=1e-5, rtol=1e-4)
    assert found.unrefined_video is None
    video, pose, frames = plain_features(without_v2p)
    refined = (other.unrefined_video, other.pose, other.pose_frames)
    torch.testing.assert_close(refined, (video, pose, frames), atol=1e-5, rtol=1e-4)
    assert other.unrefined_pose is None


def test_without_refinement_features_are_those_of_the_encoders() -> None:
    model = build(**NO_UCMR)
    video, pose, frames = plain_features(model)
    check(run(model), VisualFeatures(video=video, pose=pose, pose_frames=frames))


def test_one_visual_encoder_gives_its_own_features_alone() -> None:
    pose_alone, video_alone = build(**POSE_ALONE, **NO_UCMR), build(**VIDEO_ALONE, **NO_UCMR)
    frames = class_token(pose_tokens(pose_alone)[0])
    check(
        run(pose_alone),
        VisualFeatures(
            video=None,
            pose=projected(pose_alone, frames.mean(dim=1), pose_alone.pose_projection),
            pose_frames=projected(pose_alone, frames, pose_alone.pose_projection),
        ),
    )
    video = projected(video_alone, class_token(video_tokens(video_alone)).mean(dim=1), video_alone.video_projection)
    check(run(video_alone), VisualFeatures(video=video, pose=None, pose_frames=None))


def test_tokens_of_the_frozen_tower_take_the_place_of_pixels() -> None:
    model = build(adapters=("text",), **NO_UCMR)
    tokens = video_tokens(model)
    check(model(pixels=None, tokens=tokens, joints=joints()), run(model))
    half = model(pixels=None, tokens=tokens.half(), joints=joints()).video
    assert half.dtype == torch.float32


# --- what the model starts with and trains


def test_projections_start_as_clips_and_fusion_as_the_mean() -> None:
    clip, model = towers(), build(stirred=False, fusion="concat")
    assert model.video_projection is not None
    assert model.pose_projection is not None
    assert model.text_projection is not None
    assert model.fusion is not None
    assert torch.equal(model.video_projection.weight, clip.image.proj.T)
    assert torch.equal(model.pose_projection.weight, clip.image.proj.T)
    assert torch.equal(model.text_projection.weight, clip.text.text_projection.T)
    assert model.video_projection.weight.data_ptr() != model.pose_projection.weight.data_ptr()
    halves = torch.cat([torch.eye(DIM), torch.eye(DIM)], dim=1) / 2
    assert torch.equal(model.fusion.weight, halves)
    assert not model.fusion.bias.any()


def test_projections_and_the_first_temperature_learn_at_the_papers_rate_and_the_rest_is_new() -> None:
    projections = {f"{name}_projection.weight" for name in ("video", "pose", "text")}
    assert set(build().base_parameters) == projections | {"tau.log"}


@pytest.mark.parametrize("encoder", ["video", "pose", "text"])
def test_adapters_are_in_the_encoders_that_are_named(encoder: str) -> None:
    model = build(adapters=(encoder,))
    found = {name.split(".")[0] for name, _ in model.named_parameters() if ".adapters." in name}
    assert found == {encoder}


def test_text_adapters_have_a_bottleneck_of_their_own() -> None:
    model = build(ratio=0.25, text_ratio=0.75, mlp_scale=0.7)
    sizes = {
        name.split(".")[0]: len(value)
        for name, value in model.named_parameters()
        if name.endswith("spatial.down.weight")
    }
    assert sizes == {"video": WIDTH // 4, "pose": WIDTH // 4, "text": 6}
    scales = {module.mlp_scale for module in model.modules() if hasattr(module, "mlp_scale")}
    assert scales == {0.7}


@pytest.mark.parametrize("temporal", [False, True])
def test_video_frames_see_each_other_only_where_asked(temporal: bool) -> None:
    model, changed = build(video_temporal=temporal), pixels()
    assert model.video is not None
    changed[:, 1] += 1
    moved = model.video(model.image_tower, changed)[:, 0] != video_tokens(model)[:, 0]
    assert bool(moved.any()) == temporal


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({}, {"fusion", "classifier"}),
        ({"fusion": "concat"}, {"classifier"}),
        (NO_UCMR, {"refinement", "tau_r", "fusion", "classifier"}),
        ({"encoders": ("video", "pose"), "adapters": ()}, {"text_tower", "text", "text_projection"}),
        (VIDEO_ALONE | NO_UCMR, {"pose", "pose_projection", "refinement", "tau_r", "fusion", "classifier"}),
    ],
    ids=["baseline", "concatenated", "no UCMR", "no text", "video alone"],
)
def test_there_are_parts_only_for_what_is_on(changes: dict[str, Any], absent: set[str]) -> None:
    model = build(**changes)
    parts = "text_tower video pose text refinement tau_r video_projection pose_projection text_projection fusion"
    assert {name for name in (*parts.split(), "classifier") if getattr(model, name) is None} == absent


def test_pose_from_heatmaps_has_class_tokens_of_its_own() -> None:
    model = build(pose_input="heatmaps", **NO_UCMR)
    assert model.pose is not None
    tokens, weights = model.pose(model.image_tower, joints())
    assert weights is None
    expected = projected(model, class_token(tokens), model.pose_projection)
    torch.testing.assert_close(run(model).pose_frames, expected, atol=1e-5, rtol=1e-4)
