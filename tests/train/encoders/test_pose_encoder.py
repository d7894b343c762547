"""The pose encoder: attention over time, the class token's weights, heatmaps."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cache.errors import ConfigError
from tests.train.encoders.tiny_encoders import (
    JOINTS,
    POSE_FRAMES,
    close,
    frames,
    joints,
    pose_encoder,
    stir,
    video_encoder,
)
from tests.train.tiny_clip import ARCHITECTURE, reference, tiny_shape, towers_of
from train.encoders.adapted_clip import PoseEncoder, PoseTokens
from train.encoders.clip_tower import ClipShape, ClipTowers


@pytest.fixture
def shape(tmp_path: Path) -> ClipShape:
    return tiny_shape(tmp_path)


@pytest.fixture
def towers(shape: ClipShape) -> ClipTowers:
    return towers_of(reference(), shape)


def test_the_pose_encoder_mixes_over_time_once_trained_and_always_when_frozen(
    shape: ClipShape, towers: ClipTowers
) -> None:
    other = joints(1)
    other[:, 0, :, 0] = 1.0
    for adapters, trained, mixes in ((True, False, False), (True, True, True), (False, False, True)):
        encoder = pose_encoder(shape, adapters=adapters)
        if trained:
            stir(encoder, "temporal")
        with torch.no_grad():
            difference = (encoder(towers.image, joints(1)).tokens - encoder(towers.image, other).tokens).abs()
        assert difference[:, 0].max() > 1e-4
        assert bool((difference[:, 1:].amax(dim=(0, 2, 3)) > 1e-4).all()) == mixes


def test_joint_weights_are_the_class_tokens_row_of_the_last_blocks_attention(
    shape: ClipShape, towers: ClipTowers
) -> None:
    encoder = pose_encoder(shape)
    stir(encoder)
    found: list[Tensor] = []
    last = towers.image.transformer.blocks[-1]
    handle = last.ln_1.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    with torch.no_grad():
        result = encoder(towers.image, joints())
    handle.remove()
    over_space = found[1]  # the first call was for attention over time
    attention = reference().get_submodule("visual.transformer.resblocks.2.attn")
    sequences = over_space.flatten(0, 1)
    with torch.no_grad():
        rows = attention(sequences, sequences, sequences, need_weights=True)[1]  # (k, s, s), mean over heads
    assert result.weights is not None
    assert result.weights.shape == (2, POSE_FRAMES, JOINTS)
    torch.testing.assert_close(result.weights.flatten(0, 1), rows[:, 0, 1:], atol=1e-6, rtol=1e-5)
    assert (result.weights >= 0).all()
    assert (result.weights.sum(dim=-1) < 1).all()


def test_joint_weights_by_hand(towers: ClipTowers) -> None:
    """Two heads of one dimension; the class token's logits are 0, log 3 and log 4, then 0, 0 and log 2."""
    attention = towers.image.transformer.blocks[0].attn
    attention.heads = 2
    attention.in_proj_weight = nn.Parameter(torch.eye(2).repeat(3, 1), requires_grad=False)
    attention.in_proj_bias = nn.Parameter(torch.zeros(6), requires_grad=False)
    tokens = torch.tensor([[[1.0, 1.0], [1 + math.log(3), 1.0], [1 + math.log(4), 1 + math.log(2)]]])
    row = attention.project(tokens).class_row()
    expected = [[(3 / 8 + 1 / 4) / 2, (4 / 8 + 2 / 4) / 2]]
    torch.testing.assert_close(row, torch.tensor(expected))


def test_the_gradient_of_joint_weights_reaches_the_adapters_of_earlier_blocks(
    shape: ClipShape, towers: ClipTowers
) -> None:
    encoder = pose_encoder(shape)
    stir(encoder)
    weights = encoder(towers.image, joints()).weights
    assert weights is not None
    weights[..., 0].sum().backward()
    gradient = encoder.get_parameter("blocks.adapters.0.spatial.up.weight").grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_the_pose_encoder_embeds_then_normalises_then_attends(shape: ClipShape, towers: ClipTowers) -> None:
    encoder = pose_encoder(shape)
    with torch.no_grad():
        embedded = towers.image.ln_pre(encoder.embed(joints(), towers.image.class_embedding)).flatten(0, 1)
        expected = reference().get_submodule("visual.transformer")(embedded)
        tokens = encoder(towers.image, joints()).tokens
    assert tokens.shape == (2, POSE_FRAMES, 1 + JOINTS, 32)
    assert close(tokens.flatten(0, 1), expected)


def heatmap_encoder(shape: ClipShape) -> PoseEncoder:
    return PoseEncoder(
        shape,
        num_frames=POSE_FRAMES,
        num_joints=JOINTS,
        adapters=True,
        ratio=0.25,
        mlp_scale=0.5,
        drop_path=0.0,
        pose_input="heatmaps",
    ).eval()


def test_heatmaps_give_patches_and_no_joint_weights(tmp_path: Path, shape: ClipShape, towers: ClipTowers) -> None:
    result = heatmap_encoder(shape)(towers.image, joints())
    assert isinstance(result, PoseTokens)
    assert result.tokens.shape == (2, POSE_FRAMES, 1 + 4, 32)
    assert result.weights is None
    coarse = tiny_shape(tmp_path, vision_cfg={**ARCHITECTURE["vision_cfg"], "patch_size": 32})
    with pytest.raises(ConfigError, match=r'pose_input = "heatmaps" draws 16 pixels.*patch size 32'):
        heatmap_encoder(coarse)


def test_under_autocast_joint_weights_stay_in_full_precision(shape: ClipShape, towers: ClipTowers) -> None:
    encoder = pose_encoder(shape)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        lower = encoder(towers.image, joints())
        video = video_encoder(shape)(towers.image, frames())
    with torch.no_grad():
        full = encoder(towers.image, joints())
    assert lower.weights is not None
    assert full.weights is not None
    assert lower.weights.dtype == torch.float32
    torch.testing.assert_close(lower.weights, full.weights, atol=0.05, rtol=0)
    assert torch.isfinite(video).all()
