"""The video encoder against an image ViT (timm), against its own definition, and its pooling."""

import dataclasses
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor

from train.encoders.timesformer import Block, FramePool, TimeSformer, TimeSformerConfig, pool_frames

SMALL = TimeSformerConfig(image_size=32, patch_size=8, width=32, depth=3, heads=4, num_frames=4, drop_path=0.0)
PATCHES = 16


def small(*, num_frames: int = 4, depth: int = 3) -> TimeSformer:
    torch.manual_seed(0)
    model = TimeSformer(dataclasses.replace(SMALL, num_frames=num_frames, depth=depth))
    for name, parameter in model.named_parameters():
        if "temporal_fc" not in name and "time_embed" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def image_vit(model: TimeSformer) -> Callable[[Tensor], Tensor]:
    """Timm's image ViT with the weights of attention over space: images to tokens."""
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=0
    ).eval()
    state = model.state_dict()
    vit.load_state_dict({name: state[name] for name in state if "temp" not in name and "time" not in name})
    features: Callable[[Tensor], Tensor] = vit.forward_features
    return features


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_base_model_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = TimeSformer(TimeSformerConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 121_258_752


def test_without_attention_over_time_one_frame_gives_what_an_image_vit_gives() -> None:
    model = small(num_frames=1)
    frame = images(2)
    torch.testing.assert_close(model(frame.unsqueeze(1)), image_vit(model)(frame), atol=1e-5, rtol=1e-5)


def test_without_attention_over_time_equal_frames_each_give_what_one_frame_gives() -> None:
    model = small()
    frame = images(2)
    expected = image_vit(model)(frame)
    tokens = model(frame.unsqueeze(1).expand(-1, 4, -1, -1, -1))
    torch.testing.assert_close(tokens[:, 0], expected[:, 0], atol=1e-5, rtol=1e-5)
    for t in range(4):
        torch.testing.assert_close(
            tokens[:, 1:].unflatten(1, (PATCHES, 4))[:, :, t], expected[:, 1:], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(("depth", "independent"), [(1, True), (2, False)])
def test_frames_meet_in_the_class_token_from_the_second_block_on(depth: int, independent: bool) -> None:
    model = small(depth=depth)
    video = images(1, 4)
    changed = video.clone()
    changed[:, 0] = 3.0
    before, after = (model(v)[:, 1:].unflatten(1, (PATCHES, 4)) for v in (video, changed))
    assert torch.allclose(before[:, :, 1:], after[:, :, 1:], atol=1e-5) == independent
    assert not torch.allclose(before[:, :, 0], after[:, :, 0], atol=1e-2)


def test_attention_over_time_joins_frames_at_the_same_patch_only() -> None:
    model = small(depth=1)
    torch.nn.init.normal_(model.get_parameter("blocks.0.temporal_fc.weight"), std=0.2)
    torch.nn.init.zeros_(model.get_parameter("blocks.0.attn.proj.weight"))
    video = images(1, 4)
    changed = video.clone()
    changed[:, 0, :, :8, :8] = 3.0  # the first patch of the first frame
    before, after = (model(v)[:, 1:].unflatten(1, (PATCHES, 4)) for v in (video, changed))
    difference = (before - after).abs().amax(dim=(0, 3))  # (P, L)
    assert (difference[0] > 1e-3).all()
    assert difference[1:].max() < 1e-6


def first_gradient(config: TimeSformerConfig) -> Tensor:
    """Gradient at the first layer, in training, with the same weights and drop paths every time."""
    torch.manual_seed(0)
    model = TimeSformer(config).train()
    torch.manual_seed(3)
    model(images(2, 4)).square().mean().backward()
    gradient = model.get_parameter("patch_embed.proj.weight").grad
    assert gradient is not None
    return gradient


def test_gradient_checkpointing_changes_no_gradient() -> None:
    config = dataclasses.replace(SMALL, drop_path=0.3)
    expected = first_gradient(config)
    assert expected.abs().max() > 0
    torch.testing.assert_close(first_gradient(dataclasses.replace(config, gradient_checkpointing=True)), expected)


def test_drop_path_grows_linearly_from_none_in_the_first_block() -> None:
    model = TimeSformer(dataclasses.replace(SMALL, depth=5, drop_path=0.1))
    found = [block.get_submodule("drop_path").probability for block in model.blocks]
    assert found == pytest.approx([0.0, 0.025, 0.05, 0.075, 0.1])


def test_drop_path_drops_all_three_branches_and_keeps_the_bias_behind_the_temporal_one() -> None:
    torch.manual_seed(0)
    block = Block(32, heads=4, mlp_ratio=4, drop_path=1 - 1e-7).train()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens = torch.randn(2, 1 + PATCHES * 4, 32)
    expected = torch.cat([tokens[:, :1], tokens[:, 1:] + block.temporal_fc.bias], dim=1)
    torch.testing.assert_close(block(tokens, 4), expected)
    block.eval()
    assert not torch.allclose(block(tokens, 4), expected, atol=0.1)


def test_every_layer_norm_has_the_epsilon_of_the_released_code() -> None:
    norms = [module for module in TimeSformer(SMALL).modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 3 * SMALL.depth + 1
    assert {norm.eps for norm in norms} == {1e-6}


def test_the_head_reads_the_class_token() -> None:
    torch.manual_seed(0)
    model = TimeSformer(SMALL, num_classes=5).eval()
    assert model.head is not None
    torch.testing.assert_close(model.classify(images(2, 4)), model.head(model(images(2, 4))[:, 0]))
    with pytest.raises(ValueError, match="no head"):
        TimeSformer(SMALL).classify(images(2, 4))


def test_frames_of_another_number_or_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 4, 3, 32, 32\)"):
        small()(images(2, 5))


def test_a_patch_size_that_does_not_divide_the_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size 16 does not divide image_size 40"):
        TimeSformerConfig(image_size=40)


def marked_tokens(num_frames: int) -> Tensor:
    """Tokens holding (p, l), behind a class token that must be ignored."""
    p, t = torch.meshgrid(torch.arange(196.0), torch.arange(float(num_frames)), indexing="ij")
    patches = torch.stack([p, t], dim=-1).flatten(0, 1)
    return torch.cat([torch.full((1, 2), 1e6), patches]).unsqueeze(0)


@pytest.mark.parametrize("num_frames", [4, 8, 16])
def test_the_patch_mean_of_frame_l_holds_frame_l(num_frames: int) -> None:
    pooled = pool_frames(marked_tokens(num_frames), num_frames)
    torch.testing.assert_close(pooled[0, :, 1], torch.arange(float(num_frames)))
    torch.testing.assert_close(pooled[0, :, 0], torch.full((num_frames,), 97.5))


def test_msqnet_bins_are_bins_of_space_that_mix_all_frames() -> None:
    pooled = pool_frames(marked_tokens(16), 16, "msqnet_bins")
    assert pooled.shape == (1, 16, 2)
    assert (pooled[0, :, 1] - 7.5).abs().max() < 0.5
    assert (pooled[0, :, 0].diff() > 10).all()


@pytest.mark.parametrize(("mode", "num_frames"), [("patch_mean", 3), ("patches", 4)])
def test_pooling_refuses_what_it_cannot_pool(mode: FramePool, num_frames: int) -> None:
    with pytest.raises(ValueError, match=r"tokens are not|is unknown"):
        pool_frames(torch.zeros(1, 1 + 16, 2), num_frames, mode)
