"""Frames or tokens to V: what is computed, and what is refused."""

import pytest
import torch

from cache.errors import ConfigError
from tests.train.models.small_models import FRAMES, VIDEO_WIDTH, WIDTH, some_tokens, video_encoder
from train.encoders.frame_features import FrameFeatures
from train.encoders.timesformer import FramePool, TimeSformer, pool_frames


def build(encoder: TimeSformer | None = None, pool: FramePool = "patch_mean") -> FrameFeatures:
    torch.manual_seed(0)
    return FrameFeatures(WIDTH, num_frames=FRAMES, video_width=VIDEO_WIDTH, video_encoder=encoder, pool=pool)


def test_tokens_are_projected_frame_by_frame() -> None:
    features, tokens = build(), some_tokens()
    expected = tokens[1, 2] @ features.projection.weight.T + features.projection.bias
    torch.testing.assert_close(features(frame_tokens=tokens)[1, 2], expected)


@pytest.mark.parametrize("pool", ["patch_mean", "msqnet_bins"])
def test_frames_are_encoded_pooled_as_asked_and_projected(pool: FramePool) -> None:
    encoder = video_encoder()
    features = build(encoder, pool).eval()
    frames = torch.randn(2, FRAMES, 3, 16, 16)
    pooled = pool_frames(encoder(frames), FRAMES, pool)
    torch.testing.assert_close(features(frames=frames), features(frame_tokens=pooled))


def test_gradients_reach_the_encoder_and_the_projection() -> None:
    features = build(video_encoder())
    features(frames=torch.randn(2, FRAMES, 3, 16, 16)).square().sum().backward()
    assert features.projection.weight.grad is not None
    assert features.video_encoder is not None
    assert features.video_encoder.patch_embed.proj.weight.grad is not None
    assert features.video_encoder.patch_embed.proj.weight.grad.abs().max() > 0


def test_frames_and_tokens_together_or_neither_are_refused() -> None:
    features = build()
    with pytest.raises(ValueError, match="either frames or frame_tokens"):
        features()
    with pytest.raises(ValueError, match="either frames or frame_tokens"):
        features(frames=torch.zeros(3, FRAMES, 3, 16, 16), frame_tokens=some_tokens())


def test_frames_without_a_video_encoder_are_refused() -> None:
    with pytest.raises(ValueError, match="without a video encoder: give frame_tokens"):
        build()(frames=torch.zeros(3, FRAMES, 3, 16, 16))


def test_tokens_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frame_tokens have shape \(3, 3, 24\): expected \(n, 4, 24\)"):
        build()(frame_tokens=some_tokens()[:, :3])
    with pytest.raises(ValueError, match="frame_tokens have shape"):
        build()(frame_tokens=some_tokens()[..., None])


def test_a_video_encoder_of_another_length_or_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="width 24 for 8 frames; the model asks for width 24 and 4 frames"):
        build(video_encoder(8))
    with pytest.raises(ConfigError, match="asks for width 32"):
        FrameFeatures(16, num_frames=FRAMES, video_width=32, video_encoder=video_encoder(), pool="patch_mean")
