import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from cache.errors import ConfigError, WeightsError
from extract import open_clip_model
from extract.config import ImageEncoderConfig
from extract.image_encoder import image_encoder_spec
from tests.extract.tiny_clip import ARCHITECTURE, tiny_clip

CPU = torch.device("cpu")


@pytest.fixture
def no_weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("model", "tag", "advice"),
    [
        ("ViT-B-16", "openai", "image_encoder.model=ViT-B-16-quickgelu"),
        ("ViT-L-14", "dfn2b", "image_encoder.model=ViT-L-14-quickgelu"),
        ("RN50", "openai", "image_encoder.model=RN50-quickgelu"),
        ("ViT-B-16-quickgelu", "laion2b_s34b_b88k", "image_encoder.model=ViT-B-16`"),
    ],
)
def test_weights_of_the_other_activation_are_refused_with_the_right_model(model: str, tag: str, advice: str) -> None:
    with pytest.raises(WeightsError, match=advice):
        image_encoder_spec(ImageEncoderConfig(model=model, pretrained=tag))


@pytest.mark.usefixtures("no_weights_here")
def test_every_tag_of_open_clip_says_where_to_get_it_or_which_model_fits() -> None:
    for name, tag in open_clip.list_pretrained():
        with pytest.raises(WeightsError, match=r"https://huggingface\.co/|trained with"):
            open_clip_model.find_model_weights(open_clip_model.find_model(name), tag)


@pytest.mark.usefixtures("no_weights_here")
def test_the_default_model_is_a_matching_pair() -> None:
    with pytest.raises(
        WeightsError, match=r"timm/vit_base_patch16_clip_224\.openai.*MIT.*image_encoder\.pretrained=PATH"
    ):
        image_encoder_spec(ImageEncoderConfig())


def test_the_spec_is_known_without_building() -> None:
    spec, weights = image_encoder_spec(ImageEncoderConfig(model="ViT-L-14-336-quickgelu", pretrained="none"))
    assert weights.random
    assert (spec.image_size, spec.embed_dim, spec.quick_gelu) == (336, 768, True)
    assert spec.architecture == ""
    assert spec.mean == open_clip.OPENAI_DATASET_MEAN


def test_a_tag_brings_its_own_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--timm--ViT-B-16-SigLIP" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "open_clip_model.safetensors").write_bytes(b"weights")
    (tmp_path / "models--timm--ViT-B-16-SigLIP" / "refs").mkdir()
    (tmp_path / "models--timm--ViT-B-16-SigLIP" / "refs" / "main").write_text("abc")
    spec, weights = image_encoder_spec(ImageEncoderConfig(model="ViT-B-16-SigLIP", pretrained="webli"), offline=True)
    assert weights.name == "webli"
    assert (spec.resize_mode, spec.mean) == ("squash", (0.5, 0.5, 0.5))


def test_an_unknown_model_is_answered_with_near_ones() -> None:
    with pytest.raises(ConfigError, match="ViT-B-16-quickgelu"):
        open_clip_model.find_model("ViT-B-16-quickglu")


def test_a_configuration_file_is_a_model_and_goes_into_the_spec(tmp_path: Path) -> None:
    spec, _ = image_encoder_spec(tiny_clip(tmp_path))
    assert (spec.model, spec.embed_dim, spec.image_size, spec.quick_gelu) == ("tiny-clip", 24, 32, True)
    assert json.loads(spec.architecture) == ARCHITECTURE


def test_two_files_of_one_name_are_not_confused(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, dim in ((first, 24), (second, 16)):
        folder.mkdir()
        (folder / "same-name.json").write_text(json.dumps(ARCHITECTURE | {"embed_dim": dim}))
    for folder, dim in ((first, 24), (second, 16), (first, 24)):
        config = ImageEncoderConfig(model=str(folder / "same-name.json"), pretrained="none")
        assert open_clip_model.build(config, CPU).get_parameter("text_projection").shape[1] == dim


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": {}}', None])
def test_a_file_that_is_no_configuration_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.json"):
        open_clip_model.find_model(str(path))


def test_a_file_may_not_take_the_name_of_a_known_model(tmp_path: Path) -> None:
    (tmp_path / "ViT-B-32.json").write_text(json.dumps(ARCHITECTURE))
    with pytest.raises(ConfigError, match="rename"):
        open_clip_model.find_model(str(tmp_path / "ViT-B-32.json"))


def test_random_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    states = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(noise)
        states.append(open_clip_model.build(tiny_clip(tmp_path, seed=seed), CPU).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["visual.conv1.weight"], states[2]["visual.conv1.weight"])


@pytest.mark.parametrize("layout", ["bare.pt", "module.pt", "bare.safetensors"])
def test_every_layout_of_a_weights_file_gives_the_same_model(layout: str, tmp_path: Path) -> None:
    original = open_clip_model.build(tiny_clip(tmp_path, seed=7), CPU).state_dict()
    path = tmp_path / layout
    if layout.endswith(".safetensors"):
        save_file(original, path)
    elif layout == "module.pt":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in original.items()}}, path)
    else:
        torch.save(original, path)
    loaded = open_clip_model.build(tiny_clip(tmp_path, pretrained=str(path)), CPU).state_dict()
    assert original.keys() == loaded.keys()
    assert all(torch.equal(original[key], loaded[key]) for key in original)


def test_weights_that_do_not_fit_are_refused_and_never_stretched(tmp_path: Path) -> None:
    state = open_clip_model.build(tiny_clip(tmp_path), CPU).state_dict()
    cases = {
        "another image size": {**state, "visual.positional_embedding": torch.zeros(50, 32)},
        "text length": {**state, "positional_embedding": torch.zeros(77, 16)},
        "Missing key": {key: value for key, value in state.items() if key != "ln_final.weight"},
        "Unexpected key": {**state, "extra": torch.zeros(1)},
        "size mismatch": {**state, "text_projection": torch.zeros(16, 23)},
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(WeightsError, match=message):
            open_clip_model.build(tiny_clip(tmp_path, pretrained=str(tmp_path / "other.pt")), CPU)


def test_a_file_that_could_run_code_is_not_opened(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hook": Path}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="could run code"):
        open_clip_model.build(tiny_clip(tmp_path, pretrained=str(tmp_path / "evil.pt")), CPU)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for name in ("broken.pt", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"<html>" * 100)
        with pytest.raises(WeightsError, match="broken"):
            open_clip_model.build(tiny_clip(tmp_path, pretrained=str(tmp_path / name)), CPU)
