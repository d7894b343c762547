"""Formulas of PeVL against the model itself, switch by switch, on a small CLIP."""

import dataclasses
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.train.counting import count, num_params, num_trained
from train.clip_weights import clip_shape
from train.cost import sum_of
from train.encoders.adapted_clip import PoseEncoder
from train.encoders.clip_tower import ClipShape, ClipTowers, ImageTower, TextTower
from train.models.pevl import PeVL, VisualFeatures
from train.models.pevl_config import PeVLConfig
from train.pevl_costs import pevl_parts, text_encoder

FRAMES, POSE_FRAMES, JOINTS, CLASSES = 3, 6, 5, 4
TINY = ClipShape(
    image_size=32,
    patch_size=8,
    width=24,
    depth=2,
    heads=2,
    mlp_ratio=3.0,
    text_width=16,
    text_depth=3,
    text_heads=2,
    context_length=9,
    vocab_size=30,
    embed_dim=20,
)
ALONE: dict[str, Any] = {"p2v": "off", "v2p": False}
CHANGES: list[dict[str, Any]] = [
    {},
    {"p2v": "inside"},
    {"p2v": "off"},
    {"v2p": False},
    {"v2p_group": "nearest"},
    {"video_temporal": True, "ratio": 0.5, "text_ratio": 0.25},
    {"adapters": ()},
    {"adapters": ("pose",)},
    {"similarities": ("vs",)},
    {"similarities": ("fw", "ps")},
    {"fusion": "concat", **ALONE},
    {"encoders": ("video", "text"), "adapters": ("video",), "similarities": ("vs",), **ALONE},
    {"encoders": ("pose", "text"), "adapters": ("pose", "text"), "similarities": ("ps", "fw"), **ALONE},
    {"encoders": ("video", "pose"), "adapters": ("video", "pose"), **ALONE},
    {"encoders": ("video",), "adapters": ("video",), **ALONE},
    {"encoders": ("pose",), "adapters": ("pose",), **ALONE},
    {"encoders": ("pose",), "adapters": (), "pose_input": "heatmaps", **ALONE},
]


def build(config: PeVLConfig) -> PeVL:
    torch.manual_seed(0)
    towers = ClipTowers(ImageTower(TINY).requires_grad_(False), TextTower(TINY).requires_grad_(False))
    model = PeVL(
        config,
        towers=towers,
        shape=TINY,
        prompts=torch.arange(1, 1 + TINY.context_length).expand(CLASSES, -1),
        word_mask=torch.ones(CLASSES, TINY.context_length, dtype=torch.bool),
        frozen_sentences=torch.randn(CLASSES, TINY.embed_dim),
        num_frames=FRAMES,
        num_joints=JOINTS,
    )
    return model.eval()


def one_clip(model: PeVL) -> torch.Tensor:
    """Logits of one view, as in testing."""
    return model.logits(features(model), model.encode_classes() if model.text else None)


def features(model: PeVL) -> VisualFeatures:
    torch.manual_seed(1)
    pixels = torch.randn(1, FRAMES, 3, TINY.image_size, TINY.image_size)
    joints = torch.rand(1, POSE_FRAMES, JOINTS, 3) * 30 + 0.5
    return model(
        pixels=pixels if model.video else None,
        tokens=None,
        joints=joints if model.pose else None,
    )


@pytest.mark.parametrize("changes", CHANGES)
def test_a_model_costs_what_torch_counts(changes: dict[str, Any]) -> None:
    config = PeVLConfig(pose_frames=POSE_FRAMES, **changes)
    model = build(config)
    cost = sum_of(pevl_parts(config, num_frames=FRAMES, num_classes=CLASSES, num_joints=JOINTS, clip=TINY))
    unused = 0 if model.text else num_params(model.text_tower)  # held, never run: no part of the count
    assert cost.params == num_params(model) - unused
    assert cost.trainable == num_trained(model)
    assert cost.with_attention == count(lambda: one_clip(model)).total()


def test_every_part_costs_what_its_modules_do() -> None:
    config = PeVLConfig(pose_frames=POSE_FRAMES)
    model = build(config)
    parts = pevl_parts(config, num_frames=FRAMES, num_classes=CLASSES, num_joints=JOINTS, clip=TINY)
    seen = count(lambda: features(model))
    modules = {"video_encoder": model.video, "pose_encoder": model.pose}
    for name, module in modules.items():
        assert parts[name].cost.params == parts[name].cost.trainable == num_params(module)
        assert parts[name].cost.with_attention == seen.total(f"PeVL.{name.removesuffix('_encoder')}")
    assert parts["refinement"].cost.params == num_params(model.refinement, model.tau_r)
    assert parts["image_tower"].cost.params == num_params(model.image_tower)
    grid = TINY.num_patches
    mask = FRAMES * grid * JOINTS  # drawn outside the module
    assert parts["refinement"].cost.with_attention == seen.total("PeVL.refinement") + mask


def test_the_pose_encoder_of_the_paper_costs_what_torch_counts() -> None:
    shape = clip_shape("ViT-B-16-quickgelu")
    with FakeTensorMode():
        tower = ImageTower(shape)
        encoder = PoseEncoder(
            shape, num_frames=48, num_joints=17, adapters=True, ratio=0.25, mlp_scale=0.5, drop_path=0.0
        )
        counted = count(lambda: encoder(tower, torch.empty(1, 48, 17, 3)))
    parts = pevl_parts(PeVLConfig(), num_frames=16, num_classes=48, num_joints=17, clip=shape)
    assert parts["pose_encoder"].cost.with_attention == counted.total()


def test_frozen_text_is_computed_once() -> None:
    config = PeVLConfig(adapters=("video", "pose"))
    sizes: dict[str, int] = {"num_frames": FRAMES, "num_classes": CLASSES, "num_joints": JOINTS}
    assert pevl_parts(config, **sizes, clip=TINY)["text_encoder"].cached
    trained = dataclasses.replace(config, adapters=("video", "pose", "text"))
    assert not pevl_parts(trained, **sizes, clip=TINY)["text_encoder"].cached
    assert text_encoder(config, TINY).linear < text_encoder(trained, TINY).linear
