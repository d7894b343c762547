"""CLIP's towers from names, files and tags: sizes and names against open_clip, everything else refused by name."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cache.errors import ConfigError, WeightsError
from cache.weights_file import WeightsFile
from pipeline.demo import frozen_models
from tests.train.tiny_clip import ARCHITECTURE, reference, tiny_shape, write_model
from train.clip_weights import clip_shape, find_clip_weights, load_clip, tokenize
from train.encoders.clip_tower import ClipShape, ClipTowers, ImageTower, TextTower

RANDOM = WeightsFile(name="none", path=None, sha256="none", licence="")
POSITIONS = "visual.positional_embedding"
PROMPTS = ["make tea", "cut the bread into slices", "pour milk"]


def weights(path: Path) -> WeightsFile:
    return WeightsFile(name=path.name, path=path, sha256="0" * 64, licence="test")


def saved(path: Path, state: object) -> WeightsFile:
    torch.save(state, path)
    return weights(path)


def state_of(towers: ClipTowers) -> dict[str, Tensor]:
    """Both towers under open_clip's names."""
    image = {f"visual.{name}": tensor for name, tensor in towers.image.state_dict().items()}
    return image | towers.text.state_dict()


@pytest.mark.parametrize(
    "model", ["ViT-B-16-quickgelu", "ViT-B-32-256", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14", "ViT-S-16-alt"]
)
def test_names_sizes_heads_and_activation_are_those_of_open_clips_model(model: str) -> None:
    shape = clip_shape(model)
    with torch.device("meta"):
        ours = state_of(ClipTowers(ImageTower(shape), TextTower(shape)))
        theirs = open_clip.CLIP(**open_clip.get_model_config(model))
    expected = {name: tensor.shape for name, tensor in theirs.state_dict().items() if name != "logit_scale"}
    assert {name: tensor.shape for name, tensor in ours.items()} == expected
    assert shape.heads == theirs.visual.transformer.resblocks[0].attn.num_heads
    assert shape.text_heads == theirs.transformer.resblocks[0].attn.num_heads
    assert shape.quick_gelu == isinstance(theirs.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    assert (shape.image_size, shape.num_patches + 1) == (theirs.visual.image_size[0], expected[POSITIONS][0])


@pytest.mark.parametrize(
    ("model", "peculiarity"),
    [
        ("RN50-quickgelu", r"vision_cfg\.layers = \[3, 4, 6, 3\]"),
        ("coca_ViT-B-32", r"vision_cfg\.attentional_pool = True.*text_cfg\.embed_cls = True"),
        ("ViT-B-16-SigLIP", r"timm_model_name.*hf_tokenizer_name"),
        ("roberta-ViT-B-32", r"hf_model_name = 'roberta-base'"),
        ("ViT-L-14-CLIPA", r"no_ln_pre = True.*pool_type = 'avg'"),
        ("ViT-M-16-alt", r"ls_init_value"),
    ],
)
def test_towers_of_another_kind_are_refused_by_what_differs(model: str, peculiarity: str) -> None:
    with pytest.raises(ConfigError, match=f"{peculiarity}.*ViT-B-16-quickgelu"):
        clip_shape(model)


def test_an_unknown_model_is_answered_with_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"train\.pevl\.clip.*ViT-B-16-quickgelu"):
        clip_shape("ViT-B-16-quickglu")


def test_a_configuration_file_is_a_model_and_open_clip_never_hears_of_it(tmp_path: Path) -> None:
    before = open_clip.list_models()
    shape = tiny_shape(tmp_path)
    assert (shape.width, shape.heads, shape.text_heads, shape.num_patches, shape.mlp_ratio) == (32, 4, 2, 16, 3.0)
    assert shape.quick_gelu
    assert open_clip.list_models() == before
    assert tiny_shape(tmp_path, vision_cfg={**ARCHITECTURE["vision_cfg"], "image_size": [32, 32]}) == shape


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"image_size": [32, 24]}, "not square"),
        ({"patch_size": 7}, "patch_size 7 does not divide image_size 32"),
        ({"head_width": 5}, "width 32 cannot be split"),
        ({"head_width": 0}, "do not fit together"),
        ({"width": "32"}, "do not fit together"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(vision: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_shape(tmp_path, vision_cfg=ARCHITECTURE["vision_cfg"] | vision)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": {}}', json.dumps(ARCHITECTURE | {"text_cfg": 1}), None])
def test_a_file_that_is_no_configuration_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.json"):
        clip_shape(str(path))


@pytest.mark.parametrize(
    ("model", "tag", "advice"),
    [
        ("ViT-B-16", "openai", "train.pevl.clip=ViT-B-16-quickgelu`"),
        ("ViT-L-14", "dfn2b", "train.pevl.clip=ViT-L-14-quickgelu`"),
        ("ViT-B-16-quickgelu", "laion2b_s34b_b88k", "train.pevl.clip=ViT-B-16`"),
    ],
)
def test_a_tag_of_the_other_activation_is_refused_with_the_right_model(model: str, tag: str, advice: str) -> None:
    with pytest.raises(WeightsError, match=advice):
        find_clip_weights(model, tag)


@pytest.fixture
def no_weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.usefixtures("no_weights_here")
@pytest.mark.parametrize(
    ("model", "tag", "place"),
    [
        ("ViT-B-16-quickgelu", "openai", r"timm/vit_base_patch16_clip_224\.openai \(licence: MIT\)"),
        ("ViT-B-16", "laion2b_s34b_b88k", r"laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    ],
)
def test_weights_that_are_not_here_say_where_to_get_them(model: str, tag: str, place: str) -> None:
    with pytest.raises(WeightsError, match=rf"{place}.*train\.pevl\.pretrained=PATH"):
        find_clip_weights(model, tag)


def test_a_path_and_none_are_weights_and_an_unknown_tag_is_not(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"x")
    assert find_clip_weights(model, str(tmp_path / "weights.pt")).path == tmp_path / "weights.pt"
    assert find_clip_weights(model, "none").random
    with pytest.raises(WeightsError, match=r"'openai' is neither a known tag nor a file.*none for this model"):
        find_clip_weights(model, "openai")
    with pytest.raises(WeightsError, match="openai, dfn2b, metaclip_400m"):
        find_clip_weights("ViT-B-16-quickgelu", "open-ai")


def bare(path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, path)


def safetensors(path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, path)


def training_checkpoint(path: Path, state: dict[str, Tensor]) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": wrapped}, path)


def with_leftovers(path: Path, state: dict[str, Tensor]) -> None:
    mask, size = torch.zeros(12, 12), torch.tensor(32)
    torch.save(
        state | {"attn_mask": mask, "logit_bias": mask[0, 0], "input_resolution": size, "vocab_size": size}, path
    )


def own_text_tower(path: Path, state: dict[str, Tensor]) -> None:
    tower = ("visual.", "logit_scale")
    torch.save({name if name.startswith(tower) else f"text.{name}": value for name, value in state.items()}, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("bare.pt", bare),
        ("tensors.safetensors", safetensors),
        ("epoch_3.pt", training_checkpoint),
        ("old.bin", with_leftovers),
        ("custom.pth", own_text_tower),
    ],
)
def test_every_layout_of_a_file_gives_the_same_frozen_towers(
    name: str, write: Callable[[Path, dict[str, Tensor]], None], tmp_path: Path
) -> None:
    expected = reference().state_dict()
    write(tmp_path / name, dict(expected))
    towers = load_clip(tiny_shape(tmp_path), weights(tmp_path / name), seed=0)
    found = state_of(towers)
    assert found.keys() == expected.keys() - {"logit_scale"}
    assert all(torch.equal(found[key], expected[key]) for key in found)
    assert not any(parameter.requires_grad for tower in towers for parameter in tower.parameters())
    assert not any(tower.training for tower in towers)


def test_half_precision_weights_become_full_precision(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in reference().state_dict().items()}
    towers = load_clip(tiny_shape(tmp_path), saved(tmp_path / "half.pt", state), seed=0)
    assert {tensor.dtype for tensor in state_of(towers).values()} == {torch.float32}
    assert torch.equal(towers.image.proj, state["visual.proj"].float())


def test_random_weights_depend_on_the_seed_alone_and_leave_torchs_generator(tmp_path: Path) -> None:
    shape = tiny_shape(tmp_path)
    states = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        states.append(state_of(load_clip(shape, RANDOM, seed=seed)))
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["visual.conv1.weight"], states[2]["visual.conv1.weight"])


def test_random_weights_have_the_scales_of_open_clips(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = open_clip.CLIP(**ARCHITECTURE).state_dict()
    ours = state_of(load_clip(tiny_shape(tmp_path), RANDOM, seed=1))
    for name, tensor in ours.items():
        assert tensor.mean().item() == pytest.approx(theirs[name].mean().item(), abs=0.15), name
        if tensor.numel() >= 256:
            assert tensor.std().item() == pytest.approx(theirs[name].std().item(), rel=0.2), name


def test_weights_of_another_width_are_refused_with_both_widths(tmp_path: Path) -> None:
    wide = ARCHITECTURE | {"vision_cfg": {**ARCHITECTURE["vision_cfg"], "width": 64}}
    file = saved(tmp_path / "wide.pt", reference(wide).state_dict())
    with pytest.raises(WeightsError) as refusal:
        load_clip(tiny_shape(tmp_path), file, seed=0)
    assert str(refusal.value).endswith("wide.pt is a CLIP of width 64; train.pevl.clip asks for width 32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({POSITIONS: torch.zeros(50, 32)}, "num_patches 49; train.pevl.clip asks for num_patches 16"),
        ({"positional_embedding": torch.zeros(77, 16)}, "context_length 77; .* context_length 12"),
        ({"visual.adapter.weight": torch.zeros(1)}, r"1 not part of the model \(visual\.adapter\.weight\)"),
        ({"ln_final.weight": torch.zeros(7)}, r"1 of another shape \(ln_final\.weight\)"),
        ({"ln_final.bias": None}, r"1 missing \(ln_final\.bias\)"),
        ({"visual.conv1.weight": None}, r"no CLIP under open_clip's names: visual\.conv1\.weight is missing"),
        ({"module.ln_final.bias": torch.zeros(16)}, "twice"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    changes: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state = {name: value for name, value in (reference().state_dict() | changes).items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        load_clip(tiny_shape(tmp_path), saved(tmp_path / "other.pt", state), seed=0)


def test_a_deeper_model_is_refused(tmp_path: Path) -> None:
    deep = ARCHITECTURE | {"text_cfg": {**ARCHITECTURE["text_cfg"], "layers": 3}}
    with pytest.raises(WeightsError, match=r"not part of the model \(transformer\.resblocks\.2\.attn"):
        load_clip(tiny_shape(tmp_path), saved(tmp_path / "deep.pt", reference(deep).state_dict()), seed=0)


class Innocent:
    """Stands for any Python object whose loading could run code."""


def test_a_file_with_python_objects_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"could run code.*\.safetensors"):
        load_clip(tiny_shape(tmp_path), saved(tmp_path / "evil.pt", {"state_dict": Innocent()}), seed=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_openais_own_kind_of_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "ViT-B-16.pt"))
    with pytest.raises(WeightsError, match="the tag `openai` has the same weights"):
        load_clip(tiny_shape(tmp_path), weights(tmp_path / "ViT-B-16.pt"), seed=0)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {"epoch": 3}}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_clip(tiny_shape(tmp_path), saved(tmp_path / "list.pt", content), seed=0)


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    torch.save(reference().state_dict(), tmp_path / "whole.pt")
    (tmp_path / name).write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=name):
        load_clip(tiny_shape(tmp_path), weights(tmp_path / name), seed=0)


def test_the_demos_own_clip_loads_like_any_other(tmp_path: Path) -> None:
    models = frozen_models.unpack(tmp_path)
    shape = clip_shape(str(models.image_encoder_architecture))
    found = find_clip_weights(str(models.image_encoder_architecture), str(models.image_encoder))
    towers = load_clip(shape, found, seed=0)
    assert (shape.width, shape.depth, shape.quick_gelu) == (96, 3, False)
    assert towers.text.token_embedding.weight.shape == (49408, 96)


def test_words_are_marked_and_not_begin_end_or_padding(tmp_path: Path) -> None:
    token_ids, words = tokenize(PROMPTS, tiny_shape(tmp_path))
    assert torch.equal(token_ids, open_clip.SimpleTokenizer(context_length=12)(PROMPTS))
    assert (token_ids.dtype, words.dtype) == (torch.int64, torch.bool)
    assert words.sum(dim=1).tolist() == [2, 5, 2]
    assert set(token_ids[~words].tolist()) == {0, 49406, 49407}
    assert (token_ids[words] < 49406).all()
    assert (token_ids[words] > 0).all()


def test_a_prompt_that_is_too_long_is_cut_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "take the small knife out of the drawer and cut the bread into thin slices"
    with caplog.at_level(logging.WARNING, logger="train.clip_weights"):
        token_ids, words = tokenize(["make tea", long, long], tiny_shape(tmp_path))
    assert words.sum(dim=1).tolist() == [2, 10, 10]
    assert token_ids[1, -1] == 49407
    assert [record.message for record in caplog.records] == [
        f"the prompt {long!r} has 15 tokens; the model reads the first 10"
    ]


def test_prompts_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    shape = tiny_shape(tmp_path)
    with pytest.raises(ConfigError, match=r"classes \[1\]"):
        tokenize(["make tea", "  "], shape)
    with pytest.raises(ConfigError, match="no class prompts"):
        tokenize([], shape)
    few = ClipShape(image_size=8, patch_size=8, width=8, depth=1, heads=1, embed_dim=8, vocab_size=100)
    with pytest.raises(ConfigError, match="knows 100 tokens"):
        tokenize(PROMPTS, few)
