"""TimeSformer weights: against transformers in both layouts, resized, and refused by name."""

import copy
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel

from cache.errors import WeightsError
from cache.weights_file import WeightsFile
from train.encoders.timesformer import TimeSformer, TimeSformerConfig
from train.weights import (
    TIMESFORMER_SOURCES,
    hf_names,
    load_timesformer,
    native_names,
    read_state,
    resize_pos_embed,
    resize_time_embed,
)

SMALL = TimeSformerConfig(image_size=32, patch_size=8, width=32, depth=3, heads=4, num_frames=4)
_FACEBOOK = """
model.cls_token model.pos_embed model.time_embed model.patch_embed.proj.weight model.patch_embed.proj.bias
model.blocks.0.norm1.weight model.blocks.0.norm1.bias
model.blocks.0.attn.qkv.weight model.blocks.0.attn.qkv.bias
model.blocks.0.attn.proj.weight model.blocks.0.attn.proj.bias
model.blocks.0.temporal_norm1.weight model.blocks.0.temporal_norm1.bias
model.blocks.0.temporal_attn.qkv.weight model.blocks.0.temporal_attn.qkv.bias
model.blocks.0.temporal_attn.proj.weight model.blocks.0.temporal_attn.proj.bias
model.blocks.0.temporal_fc.weight model.blocks.0.temporal_fc.bias
model.blocks.0.norm2.weight model.blocks.0.norm2.bias
model.blocks.0.mlp.fc1.weight model.blocks.0.mlp.fc1.bias
model.blocks.0.mlp.fc2.weight model.blocks.0.mlp.fc2.bias
model.blocks.1.norm1.weight model.blocks.1.norm1.bias
model.blocks.1.attn.qkv.weight model.blocks.1.attn.qkv.bias
model.blocks.1.attn.proj.weight model.blocks.1.attn.proj.bias
model.blocks.1.temporal_norm1.weight model.blocks.1.temporal_norm1.bias
model.blocks.1.temporal_attn.qkv.weight model.blocks.1.temporal_attn.qkv.bias
model.blocks.1.temporal_attn.proj.weight model.blocks.1.temporal_attn.proj.bias
model.blocks.1.temporal_fc.weight model.blocks.1.temporal_fc.bias
model.blocks.1.norm2.weight model.blocks.1.norm2.bias
model.blocks.1.mlp.fc1.weight model.blocks.1.mlp.fc1.bias
model.blocks.1.mlp.fc2.weight model.blocks.1.mlp.fc2.bias
model.norm.weight model.norm.bias
model.head.weight model.head.bias
"""
FACEBOOK_NAMES = _FACEBOOK.split()
"""Every name in Facebook's released checkpoints, of a TimeSformer of two blocks."""


@pytest.fixture(scope="module")
def hf_classifier() -> TimesformerForVideoClassification:
    """Transformers' own TimeSformer, small, with nothing at zero."""
    config = TimesformerConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        num_frames=4,
        hidden_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    model = TimesformerForVideoClassification(config).train(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def video(num_frames: int = 4, size: int = 32) -> Tensor:
    return torch.randn(2, num_frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def weights(path: Path) -> WeightsFile:
    return WeightsFile(name=path.name, path=path, sha256="0" * 64, licence="test")


def facebook_state(model: TimesformerForVideoClassification) -> dict[str, Tensor]:
    """The same weights under Facebook's names, by the inverse of our table; those are held to a list below."""
    theirs = model.timesformer.state_dict()
    state = {f"model.{ours}": theirs[name] for ours, name in hf_names(3).items()}
    return state | {"model.head.weight": torch.zeros(2, 32), "model.head.bias": torch.zeros(2)}


def write_hf(path: Path, model: TimesformerForVideoClassification) -> None:
    torch.save(model.state_dict(), path)


def write_hf_without_head(path: Path, model: TimesformerForVideoClassification) -> None:
    torch.save(model.timesformer.state_dict(), path)


def write_hf_safetensors(path: Path, model: TimesformerForVideoClassification) -> None:
    save_file(dict(model.state_dict()), path)


def write_facebook(path: Path, model: TimesformerForVideoClassification) -> None:
    torch.save({"epoch": 15, "model_state": facebook_state(model), "cfg": "TRAIN: ..."}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("pytorch_model.bin", write_hf),
        ("model.pt", write_hf_without_head),
        ("model.safetensors", write_hf_safetensors),
        ("TimeSformer.pyth", write_facebook),
    ],
)
def test_the_same_weights_give_what_transformers_gives(
    name: str,
    write: Callable[[Path, TimesformerForVideoClassification], None],
    hf_classifier: TimesformerForVideoClassification,
    tmp_path: Path,
) -> None:
    write(tmp_path / name, hf_classifier)
    model = load_timesformer(SMALL, weights(tmp_path / name)).eval()
    with torch.no_grad():
        expected = hf_classifier.timesformer(video()).last_hidden_state
        difference = (model(video()) - expected).abs().max().item()
    assert expected.std() > 0.1
    assert difference <= 1e-4


def test_more_frames_and_larger_frames_give_what_transformers_gives_with_its_own_resizing(
    hf_classifier: TimesformerForVideoClassification, tmp_path: Path
) -> None:
    write_hf(tmp_path / "pytorch_model.bin", hf_classifier)
    larger = dataclasses.replace(SMALL, num_frames=8, image_size=64)
    model = load_timesformer(larger, weights(tmp_path / "pytorch_model.bin")).eval()
    hf_config = copy.deepcopy(hf_classifier.config)
    hf_config.num_frames, hf_config.image_size = 8, 64
    theirs = TimesformerModel(hf_config).train(False)
    state = hf_classifier.timesformer.state_dict()
    state["embeddings.time_embeddings"] = state["embeddings.time_embeddings"].repeat_interleave(2, dim=1)
    positions = state["embeddings.position_embeddings"]
    grid = positions[:, 1:].unflatten(1, (4, 4)).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    state["embeddings.position_embeddings"] = torch.cat([positions[:, :1], grid.flatten(1, 2)], dim=1)
    theirs.load_state_dict(state)
    with torch.no_grad():
        expected = theirs(video(8, 64)).last_hidden_state
        assert (model(video(8, 64)) - expected).abs().max() <= 1e-4


def test_time_positions_from_8_to_16_repeat_each_twice() -> None:
    time_embed = torch.randn(1, 8, 3)
    assert torch.equal(resize_time_embed(time_embed, 16), time_embed.repeat_interleave(2, dim=1))
    assert torch.equal(resize_time_embed(time_embed, 8), time_embed)


def test_patch_positions_are_resized_on_their_grid_and_the_class_token_stays() -> None:
    positions = torch.tensor([9.0, 1, 2, 3, 4]).reshape(1, 5, 1)
    expected = torch.tensor([9.0, 1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]).reshape(1, 17, 1)
    assert torch.equal(resize_pos_embed(positions, 16), expected)
    with pytest.raises(WeightsError, match="square number"):
        resize_pos_embed(torch.zeros(1, 6, 1), 16)


def test_the_hugging_face_names_are_a_bijection_onto_every_parameter_but_the_head(
    hf_classifier: TimesformerForVideoClassification,
) -> None:
    names = hf_names(3)
    assert set(names) == set(TimeSformer(SMALL).state_dict())
    assert set(names.values()) == set(hf_classifier.timesformer.state_dict())
    assert len(set(names.values())) == len(names)


def facebook_tensors() -> dict[str, Tensor]:
    """Random weights under the names of the list above, with the shapes that SMALL asks for."""
    torch.manual_seed(4)
    shapes = TimeSformer(dataclasses.replace(SMALL, depth=2), num_classes=5).state_dict()
    return {name: torch.randn_like(shapes[name.removeprefix("model.")]) for name in FACEBOOK_NAMES}


def test_facebooks_names_are_all_accepted_and_each_weight_arrives_at_its_place(tmp_path: Path) -> None:
    tensors, small = facebook_tensors(), dataclasses.replace(SMALL, depth=2)
    torch.save({"epoch": 15, "model_state": tensors, "cfg": "TRAIN: ..."}, tmp_path / "TimeSformer.pyth")
    found = load_timesformer(small, weights(tmp_path / "TimeSformer.pyth")).state_dict()
    assert {f"model.{name}" for name in found} == {name for name in FACEBOOK_NAMES if ".head." not in name}
    assert all(torch.equal(tensor, tensors[f"model.{name}"]) for name, tensor in found.items())


@pytest.mark.parametrize("name", [name for name in FACEBOOK_NAMES if ".head." not in name])
def test_each_of_facebooks_names_is_needed(name: str, tmp_path: Path) -> None:
    tensors, small = facebook_tensors(), dataclasses.replace(SMALL, depth=2)
    tensors[f"{name}_"] = tensors.pop(name)
    torch.save({"model_state": tensors}, tmp_path / "TimeSformer.pyth")
    with pytest.raises(WeightsError, match=r"does not fit this TimeSformer: 1 missing|holds no TimeSformer"):
        load_timesformer(small, weights(tmp_path / "TimeSformer.pyth"))


def test_every_layout_comes_out_under_our_names(hf_classifier: TimesformerForVideoClassification) -> None:
    ours = set(TimeSformer(SMALL).state_dict())
    path = Path("weights.bin")
    assert set(native_names(hf_classifier.state_dict(), path)) == ours
    assert set(native_names(facebook_state(hf_classifier), path)) == ours
    assert set(native_names(TimeSformer(SMALL, num_classes=3).state_dict(), path)) == ours


def test_half_precision_weights_are_loaded_as_full_precision(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in TimeSformer(SMALL).state_dict().items()}
    save_file(state, tmp_path / "tiny.safetensors")
    model = load_timesformer(dataclasses.replace(SMALL, num_frames=8), weights(tmp_path / "tiny.safetensors"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.cls_token, state["cls_token"].float())


def test_an_image_vit_starts_as_itself_on_every_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=5
    ).eval()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.2)
    save_file(dict(vit.state_dict()), tmp_path / "vit.safetensors")
    with caplog.at_level(logging.INFO):
        model = load_timesformer(SMALL, weights(tmp_path / "vit.safetensors")).eval()
    assert "is an image ViT" in caplog.text
    frame = video()[:, 0]
    tokens = model(frame.unsqueeze(1).expand(-1, 4, -1, -1, -1))
    expected = vit.forward_features(frame)
    torch.testing.assert_close(tokens[:, 0], expected[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens[:, 1::4], expected[:, 1:], atol=1e-4, rtol=1e-4)
    state = model.state_dict()
    assert torch.equal(state["blocks.1.temporal_attn.qkv.weight"], state["blocks.1.attn.qkv.weight"])


def test_random_weights_are_given_only_when_asked_for_by_name() -> None:
    torch.manual_seed(5)
    model = load_timesformer(SMALL, WeightsFile(name="none", path=None, sha256="none", licence="none"))
    torch.manual_seed(5)
    assert torch.equal(model.cls_token, TimeSformer(SMALL).cls_token)


def saved(path: Path, state: dict[str, Tensor]) -> WeightsFile:
    torch.save(state, path)
    return weights(path)


def test_weights_of_another_size_are_refused_in_one_line(tmp_path: Path) -> None:
    file = saved(tmp_path / "wide.bin", TimeSformer(SMALL).state_dict())
    with pytest.raises(WeightsError) as refusal:
        load_timesformer(dataclasses.replace(SMALL, width=64, depth=2), file)
    assert str(refusal.value).endswith(
        "wide.bin is a model of width 32, depth 3; the configuration asks for width 64, depth 2"
    )


def test_a_missing_parameter_is_refused_by_name(tmp_path: Path) -> None:
    state = TimeSformer(SMALL).state_dict()
    del state["blocks.1.temporal_fc.weight"]
    with pytest.raises(WeightsError, match=r"1 missing \(blocks\.1\.temporal_fc\.weight\)"):
        load_timesformer(SMALL, saved(tmp_path / "less.bin", state))


def test_a_parameter_too_many_is_refused_by_name(tmp_path: Path) -> None:
    state = TimeSformer(SMALL).state_dict() | {"blocks.0.adapter.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"1 not part of the model \(blocks\.0\.adapter\.weight\)"):
        load_timesformer(SMALL, saved(tmp_path / "more.bin", state))


def test_a_parameter_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    state = TimeSformer(SMALL).state_dict() | {"blocks.0.mlp.fc1.bias": torch.zeros(7)}
    with pytest.raises(WeightsError, match=r"1 of another shape \(blocks\.0\.mlp\.fc1\.bias\)"):
        load_timesformer(SMALL, saved(tmp_path / "odd.bin", state))


def test_an_image_vit_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    state = {name: t for name, t in TimeSformer(SMALL).state_dict().items() if "tim" not in name and "temp" not in name}
    del state["blocks.2.attn.qkv.bias"]
    with pytest.raises(WeightsError, match=r"2 missing \(blocks\.2\.attn\.qkv\.bias, blocks\.2\.temporal_attn"):
        load_timesformer(SMALL, saved(tmp_path / "vit.pth", state))


def test_a_parameter_named_twice_is_refused() -> None:
    with pytest.raises(WeightsError, match="twice"):
        native_names({"norm.weight": torch.zeros(1), "model.norm.weight": torch.zeros(1)}, Path("a.bin"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no TimeSformer and no image ViT"):
        load_timesformer(SMALL, saved(tmp_path / "other.bin", nn.Linear(2, 2).state_dict()))


class Innocent:
    """Stands for any Python object whose loading could run code."""


def test_a_file_with_python_objects_is_refused_unread(tmp_path: Path) -> None:
    torch.save({"model_state": Innocent()}, tmp_path / "evil.bin")
    with pytest.raises(WeightsError, match="could run code"):
        read_state(tmp_path / "evil.bin")


@pytest.mark.parametrize("name", ["cut.bin", "cut.pth", "cut.safetensors"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    torch.save(TimeSformer(SMALL).state_dict(), tmp_path / "whole.bin")
    (tmp_path / name).write_bytes((tmp_path / "whole.bin").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=name):
        read_state(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model_state": {"epoch": 3}}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state(tmp_path / "list.pt")


def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"accepted are \.safetensors"):
        read_state(tmp_path / "weights.onnx")


def test_released_tags_name_their_licence_and_origin() -> None:
    source = TIMESFORMER_SOURCES["8x32_224_K400"]
    assert source.licence == "CC-BY-NC-4.0"
    assert source.hf_repo == "facebook/timesformer-base-finetuned-k400"
    assert all(tag == source.name for tag, source in TIMESFORMER_SOURCES.items())
