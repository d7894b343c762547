"""Counts at full size against the papers' figures, and against figures of other papers with the same layers."""

import dataclasses
from typing import Any

import pytest

from train.clip_weights import clip_shape
from train.config import TrainConfig
from train.cost import model_parts, sum_in_training, sum_of, text4vis
from train.layer_costs import Part
from train.models.pevl_config import PeVLConfig
from train.pevl_costs import pevl_parts

B16, L14 = clip_shape("ViT-B-16-quickgelu"), clip_shape("ViT-L-14-quickgelu")
VIDEO_ALONE: dict[str, Any] = {"encoders": ("video",), "adapters": ("video",), "p2v": "off", "v2p": False}


def causal(num_frames: int, num_classes: int = 10) -> dict[str, Part]:
    config = TrainConfig(task="activity", num_frames=num_frames)
    return model_parts(config, num_classes=num_classes, num_joints=0, clip=B16)


def pevl(**changes: Any) -> dict[str, Part]:  # noqa: ANN401
    return pevl_parts(PeVLConfig(**changes), num_frames=16, num_classes=48, num_joints=17, clip=B16)


@pytest.mark.parametrize(
    ("num_frames", "linear", "with_attention"), [(16, 649.3, 673.1), (64, 2596.9, 2703.2)], ids=["16", "64"]
)
def test_cmdcls_two_backbones_give_its_650_at_16_frames_alone(
    num_frames: int, linear: float, with_attention: float
) -> None:
    parts = causal(num_frames)
    both = sum_of({name: parts[name] for name in ("video_encoder", "image_tower")})
    assert both.linear / 1e9 == pytest.approx(linear, abs=0.06)
    assert both.with_attention / 1e9 == pytest.approx(with_attention, abs=0.06)


def test_cmdcls_parameters_are_those_of_the_specification() -> None:
    parts = causal(16)
    assert parts["video_encoder"].cost.params == 121_258_752 + 8 * 768  # 8 frames more than the released model
    assert sum_of(parts).params / 1e6 == pytest.approx(220, abs=0.1)
    assert sum_in_training(parts).trainable / 1e6 == pytest.approx(134, abs=0.3)


def test_heads_cost_less_than_one_gmac_for_ten_classes() -> None:
    parts = causal(16)
    heads = {name: part for name, part in parts.items() if name not in ("video_encoder", "image_tower")}
    assert 0 < sum_of(heads).with_attention < 1e9


def test_classes_cost_parameters_of_their_own_and_no_more() -> None:
    fewer, more = sum_of(causal(16, 10)), sum_of(causal(16, 48))
    assert more.params - fewer.params == 38 * (512 + 513)


def test_the_counter_that_gives_cmdcl_650_gives_text4vis_its_835_and_287() -> None:
    cost = text4vis()
    assert cost.linear / 1e9 == pytest.approx(835.13, abs=0.005)
    assert cost.params / 1e6 == pytest.approx(286.86, abs=0.005)


def test_pevls_pose_encoder_gives_its_108_and_11() -> None:
    parts = pevl(**VIDEO_ALONE | {"encoders": ("pose",), "adapters": ("pose",)})
    assert parts["pose_encoder"].cost.with_attention / 1e9 == pytest.approx(108.07, abs=0.005)
    trained = parts["pose_encoder"].cost.trainable + parts["projections"].cost.trainable
    assert trained / 1e6 == pytest.approx(11.1, abs=0.05)


def test_pevls_video_encoder_gives_303_and_not_the_printed_275() -> None:
    parts = pevl(**VIDEO_ALONE)
    assert parts["video_encoder"].cost.with_attention / 1e9 == pytest.approx(303.3, abs=0.05)
    trained = parts["video_encoder"].cost.trainable + parts["projections"].cost.trainable
    assert trained / 1e6 == pytest.approx(7.5, abs=0.05)


def test_with_attention_over_time_the_video_encoder_is_aims() -> None:
    aim = PeVLConfig(video_temporal=True, **VIDEO_ALONE)
    sizes: dict[str, Any] = {"num_classes": 48, "num_joints": 17, "clip": B16}
    of = {frames: pevl_parts(aim, num_frames=frames, **sizes)["video_encoder"].cost for frames in (8, 16)}
    assert of[16].with_attention / 1e9 == pytest.approx(404.6, abs=0.1)
    assert 3 * of[8].with_attention / 1e9 == pytest.approx(606, abs=0.5)  # AIM prints 606 for three views
    large = dataclasses.replace(aim, clip="ViT-L-14-quickgelu")
    tunable = pevl_parts(large, num_frames=32, **sizes | {"clip": L14})["video_encoder"].cost.trainable
    assert tunable / 1e6 == pytest.approx(38, abs=0.5)  # and 38 M


def test_a_prompt_costs_298_without_adapters_and_refinement_88() -> None:
    prompt = pevl(adapters=("video", "pose"))["text_encoder"].cost.with_attention / 48
    assert prompt / 1e9 == pytest.approx(2.98, abs=0.03)
    refinement = pevl()["refinement"].cost
    assert refinement.with_attention / 1e9 == pytest.approx(8.8, abs=0.05)
    assert refinement.params / 1e6 == pytest.approx(3.5, abs=0.05)


def test_one_frame_of_clip_costs_1756() -> None:
    assert causal(1)["image_tower"].cost.with_attention / 1e9 == pytest.approx(17.56, abs=0.005)
