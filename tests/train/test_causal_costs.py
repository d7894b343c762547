"""Formulas of CMDCL and PCMCI against the models themselves, switch by switch."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from tests.train.counting import count, num_params, num_trained
from train.causal_costs import causal_parts
from train.clip_weights import clip_shape
from train.config import TrainConfig, VideoEncoderConfig
from train.cost import sum_in_training, sum_of
from train.encoders.timesformer import TimeSformer
from train.models.cmdcl import CMDCL, CMDCLConfig
from train.models.pcmci import PCMCI, PCMCIConfig

CLASSES, FRAMES, DIM = 7, 5, 16
ENCODER = VideoEncoderConfig(
    pretrained="none", image_size=16, resize=16, patch_size=8, width=24, depth=2, heads=4, drop_path=0.0
)
CMDCL_CHANGES: list[dict[str, Any]] = [
    {},
    {"tci": False, "vci": False},
    {"tci": False},
    {"vci": False},
    {"vci": False, "temporal_control": True},
    {"sta_layers": 0},
    {"sta_ffn": True, "sta_layers": 3},
    {"approx": "linear"},
    {"approx": "mlp", "qformer_layers": 2},
    {"train_text": False},
    {"tci": False, "prompt_control": True},
    {"scene": "exchanged"},
    {"tci": False, "evidence": True},
]
PCMCI_CHANGES: list[dict[str, Any]] = [
    {},
    {"stages": ()},
    {"stages": ("ich",)},
    {"stages": ("ici", "ich")},
    {"stages": ("ivc", "ich", "ici"), "ivc_layers": 3},
    {"ich": "concat_mlp", "ich_weights": "softmax"},
    {"ici_agg": "sum"},
    {"ici_agg": "hadamard", "ici_prior": True},
    {"ici_layers": 2, "ici_ffn": True, "ici_prior": True},
    {"mediator": "memory", "memory_size": 9},
    {"mediator": "multiscale"},
    {"ivc": "elementwise", "train_text": False},
]


def config_of(method: str, changes: dict[str, Any], *, frozen: bool = False) -> TrainConfig:
    shared: dict[str, Any] = {"dim": DIM, "qformer_heads": 2, "qformer_ffn": 40}
    section: dict[str, Any] = (
        {"cmdcl": CMDCLConfig(**{**shared, "sta_heads": 4, "sta_layers": 2, **changes})}
        if method == "cmdcl"
        else {"pcmci": PCMCIConfig(**{**shared, "bases": 4, **changes})}
    )
    encoder = dataclasses.replace(ENCODER, frozen=frozen)
    named: dict[str, Any] = {"method": method, **section}
    return TrainConfig(task="any", num_frames=FRAMES, video_encoder=encoder, **named)


def build(config: TrainConfig) -> CMDCL | PCMCI:
    kind: Any = {"cmdcl": CMDCL, "pcmci": PCMCI}[config.method]
    torch.manual_seed(0)
    encoder = None if config.video_encoder.frozen else TimeSformer(config.video_encoder.timesformer(FRAMES))
    model = kind(
        config.causal,
        text_embeddings=torch.randn(CLASSES, DIM),
        num_frames=FRAMES,
        video_width=config.video_encoder.width,
        video_encoder=encoder,
    )
    return model.eval()


def inputs() -> dict[str, torch.Tensor]:
    return {"visual_prompts": torch.randn(1, FRAMES, DIM), "frames": torch.randn(1, FRAMES, 3, 16, 16)}


def macs_of_linear_layers(model: nn.Module) -> int:
    """What hooks on every linear layer and convolution see."""
    seen = []

    def hook(module: nn.Module, _given: Any, output: torch.Tensor) -> None:  # noqa: ANN401
        per_output = module.weight[0].numel()  # type: ignore[index]
        seen.append(output.numel() * int(per_output))

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        model(**inputs())
    for handle in handles:
        handle.remove()
    return sum(seen)


CASES = [("cmdcl", changes) for changes in CMDCL_CHANGES] + [("pcmci", changes) for changes in PCMCI_CHANGES]


@pytest.mark.parametrize(("method", "changes"), CASES)
def test_a_model_costs_what_torch_counts(method: str, changes: dict[str, Any]) -> None:
    config = config_of(method, changes)
    model = build(config)
    cost = sum_in_training(causal_parts(config, num_classes=CLASSES, clip=clip_shape("ViT-B-16")))
    assert (cost.params, cost.trainable) == (num_params(model), num_trained(model))
    assert cost.linear == macs_of_linear_layers(model)
    assert cost.with_attention == count(lambda: model(**inputs())).total()


@pytest.mark.parametrize(("method", "changes"), CASES)
def test_every_part_has_the_parameters_of_its_modules(method: str, changes: dict[str, Any]) -> None:
    config = config_of(method, changes)
    model = build(config)
    modules: dict[str, tuple[Any, ...]] = {
        "video_encoder": (model.frame_features.video_encoder,),
        "frame_projection": (model.frame_features.projection,),
        "class_embeddings": (model.text,),
        "decoder": (model.decoder.qformer,),
        "classifier": (model.decoder.classifier,),
    }
    if isinstance(model, CMDCL):
        modules |= {"tci": (model.tci,), "temporal_layers": (model.temporal,), "vci": (model.vci,)}
        modules |= {"prompt_projection": (model.prompt_projection,), "evidence": (model.evidence,)}
    else:
        ivc = (model.mediator, model.temporal, model.ivc)
        modules |= {"ich": (model.ich,), "ici": (model.ici,), "ivc": ivc}
    parts = causal_parts(config, num_classes=CLASSES, clip=clip_shape("ViT-B-16"))
    counted = {name: num_params(*found) for name, found in modules.items() if any(m is not None for m in found)}
    assert {name: part.cost.params for name, part in parts.items() if name != "image_tower"} == counted


def test_work_stands_with_the_part_that_does_it() -> None:
    config = config_of("pcmci", {})
    model = build(config)
    counted = count(lambda: model(**inputs()))
    parts = causal_parts(config, num_classes=CLASSES, clip=clip_shape("ViT-B-16"))
    assert parts["ich"].cost.with_attention == counted.total("PCMCI.ich")
    assert parts["ici"].cost.with_attention == counted.total("PCMCI.ici")
    assert parts["decoder"].cost.with_attention == counted.total("PCMCI.decoder.qformer")


def test_a_frozen_video_encoder_leaves_the_training_loop() -> None:
    config = config_of("cmdcl", {}, frozen=True)
    model = build(config)
    parts = causal_parts(config, num_classes=CLASSES, clip=clip_shape("ViT-B-16"))
    tokens = torch.randn(1, FRAMES, ENCODER.width)
    cost = sum_in_training(parts)
    assert (cost.params, cost.trainable) == (num_params(model), num_trained(model))
    prompts = inputs()["visual_prompts"]
    assert cost.with_attention == count(lambda: model(prompts, frame_tokens=tokens)).total()
    assert parts["video_encoder"].cached
    assert parts["video_encoder"].cost.trainable == 0


def test_the_image_tower_is_part_of_the_sum_and_not_of_training() -> None:
    shape = clip_shape("ViT-B-16")
    parts = causal_parts(config_of("cmdcl", {}), num_classes=CLASSES, clip=shape)
    outside = sum_of(parts).with_attention - sum_in_training(parts).with_attention
    assert outside == parts["image_tower"].cost.with_attention > 0
    assert parts["image_tower"].cost.trainable == 0
