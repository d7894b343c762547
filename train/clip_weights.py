"""From `train.pevl.clip` and `train.pevl.pretrained` to CLIP's frozen towers, and from prompts to token ids.

Two decisions a reader would question. Towers that differ from CLIP's own ViT and text transformer are refused by the
name of what differs, because an adapter in the wrong place trains without complaint. And as in extraction, a tag that
was trained with the other activation is an error: open_clip only warns, and features are wrong without a sign.
"""

import difflib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from cache.errors import ConfigError, WeightsError
from cache.weights_file import WeightsFile, find_weights, open_clip_source
from train.clip_checkpoint import read_clip_checkpoint
from train.encoders.clip_tower import ClipShape, ClipTowers, ImageTower, TextTower

logger = logging.getLogger(__name__)

_MODEL_KEY, _WEIGHTS_KEY = "train.pevl.clip", "train.pevl.pretrained"
_SUFFIX = "-quickgelu"

_SIZES = {
    "vision_cfg": {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
# Settings that change nothing here: what is returned besides the embedding, and what only CLIP's own training uses.
_WITHOUT_EFFECT = {"output_tokens", "patch_dropout", "pad_id", "eos_id"}
_USUAL = {
    "pool_type": ("tok", "argmax"),
    "pos_embed_type": ("learnable",),
    "proj_type": ("linear",),
    "block_type": ("default",),
}
_VISUAL = "visual."


def clip_shape(model: str, *, key: str = _MODEL_KEY) -> ClipShape:
    """The sizes of a CLIP, without building it.

    Args:
        model: open_clip's name, or the path of a JSON file in its format.
        key: the configuration key that gave it, for errors.

    Raises:
        ConfigError: neither; or towers of another kind than CLIP's ViT and text transformer.
    """
    architecture = _architecture(model, key)
    _check_kind(model, architecture, key)
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    width = vision.get("width", 768)
    size = vision.get("image_size", 224)
    try:
        return ClipShape(
            image_size=size if isinstance(size, int) else _one_side(size),
            patch_size=vision.get("patch_size", 16),
            width=width,
            depth=vision.get("layers", 12),
            heads=width // vision.get("head_width", 64),
            mlp_ratio=vision.get("mlp_ratio", 4.0),
            text_width=text.get("width", 512),
            text_depth=text.get("layers", 12),
            text_heads=text.get("heads", 8),
            text_mlp_ratio=text.get("mlp_ratio", 4.0),
            context_length=text.get("context_length", 77),
            vocab_size=text.get("vocab_size", 49408),
            embed_dim=architecture["embed_dim"],
            quick_gelu=bool(architecture.get("quick_gelu", False)),
        )
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{key} = {model!r} has sizes that do not fit together: {error}") from error


def find_clip_weights(model: str, pretrained: str) -> WeightsFile:
    """The weights that a tag, a path or `none` names, refused if the tag was trained with the other activation.

    Args:
        model: as in `clip_shape`.
        pretrained: a tag of open_clip for that model, a path, or `none` for random weights.

    Raises:
        ConfigError: the model is unknown.
        WeightsError: the weights are not to be had, or of the other activation; names the model to ask for.
    """
    quick_gelu = bool(_architecture(model).get("quick_gelu", False))
    tags = _tags(model)
    if pretrained in tags:
        _check_activation(model, quick_gelu, pretrained, bool(tags[pretrained].get("quick_gelu", False)))
    elif pretrained in _tags(model.removesuffix(_SUFFIX)):
        _check_activation(model, quick_gelu, pretrained, tag_is_quick=False)
    return find_weights(
        pretrained,
        sources={tag: open_clip_source(tag, str(settings["hf_hub"])) for tag, settings in tags.items()},
        what=f"CLIP {model!r}:",
        key=_WEIGHTS_KEY,
    )


def load_clip(shape: ClipShape, weights: WeightsFile, *, seed: int) -> ClipTowers:
    """Both towers, frozen, in fp32.

    Args:
        shape: what `clip_shape` returned.
        weights: what `find_clip_weights` returned.
        seed: of random weights, on which alone they then depend.

    Raises:
        WeightsError: the file is unreadable, unsafe, or of another model.
    """
    if weights.path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _frozen(ClipTowers(ImageTower(shape), TextTower(shape)))
    with torch.device("meta"):
        towers = ClipTowers(ImageTower(shape), TextTower(shape))
    wanted = {_VISUAL + name: tensor for name, tensor in towers.image.state_dict().items()} | towers.text.state_dict()
    state = read_clip_checkpoint(weights.path, shape, wanted)
    for tower, prefix in ((towers.image, _VISUAL), (towers.text, "")):
        own = {name: state[prefix + name].float() for name in tower.state_dict()}
        tower.load_state_dict(own, assign=True)
    return _frozen(towers)


def tokenize(prompts: Sequence[str], shape: ClipShape) -> tuple[Tensor, Tensor]:
    """Prompts as the text tower reads them; one that is too long is cut, and a warning names it.

    Returns:
        token ids (C, N_t) int64 with begin and end, zero-padded; words (C, N_t) bool: no begin, end or padding.

    Raises:
        ConfigError: no prompt at all, a prompt without words, or a token that the tower has no row for.
    """
    if not prompts:
        raise ConfigError("there are no class prompts to encode")
    tokenizer = open_clip.SimpleTokenizer(context_length=shape.context_length)
    lengths = [len(tokenizer.encode(prompt)) for prompt in prompts]
    empty = [index for index, length in enumerate(lengths) if length == 0]
    if empty:
        raise ConfigError(f"the prompts of classes {empty} (counted from 0) have no words")
    room = shape.context_length - 2  # begin and end take one position each
    for prompt, length in dict(zip(prompts, lengths, strict=True)).items():
        if length > room:
            logger.warning("the prompt %r has %d tokens; the model reads the first %d", prompt, length, room)
    token_ids = tokenizer(list(prompts))
    if int(token_ids.max()) >= shape.vocab_size:
        raise ConfigError(
            f"the text tower of {_MODEL_KEY} knows {shape.vocab_size} tokens, but the prompts need token "
            f"{int(token_ids.max())}: use a CLIP with the vocabulary of OpenAI's"
        )
    position = torch.arange(shape.context_length)
    return token_ids, (position >= 1) & (position <= torch.tensor(lengths).clamp(max=room).unsqueeze(1))


def token_words(token_ids: Tensor, word_mask: Tensor) -> tuple[tuple[str, ...], ...]:
    """The words of each prompt, as the tokenizer cuts them. (C, N_t) ids and mask, as from `tokenize`."""
    tokenizer = open_clip.SimpleTokenizer()
    rows = zip(token_ids.cpu(), word_mask.cpu(), strict=True)
    return tuple(tuple(tokenizer.decode([number]).strip() for number in ids[mask].tolist()) for ids, mask in rows)


def _architecture(model: str, key: str = _MODEL_KEY) -> dict[str, Any]:
    """open_clip's configuration of a model, from its registry or from a file."""
    if model.endswith(".json"):
        return _read_architecture(Path(model).expanduser(), key)
    known = open_clip.list_models()
    if model not in known:
        near = difflib.get_close_matches(model, known, n=4, cutoff=0.4)
        raise ConfigError(
            f"{key} = {model!r} is not a model of open_clip; near ones: {', '.join(near) or 'none'}. Give one "
            "of open_clip.list_models(), or the path of a JSON file with embed_dim, vision_cfg and text_cfg"
        )
    return open_clip.get_model_config(model)


def _read_architecture(path: Path, key: str) -> dict[str, Any]:
    try:
        architecture = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key} = '{path}' cannot be read as an open_clip configuration: {error}") from error
    parts = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    read = architecture if isinstance(architecture, dict) else {}
    if not all(isinstance(read.get(part), kind) for part, kind in parts.items()):
        raise ConfigError(
            f"{path} is not an open_clip configuration: it needs embed_dim, vision_cfg and text_cfg at the top "
            "(the `model_cfg` of an open_clip_config.json is one)"
        )
    return read


def _check_kind(model: str, architecture: Mapping[str, Any], key: str) -> None:
    """Refuse whatever is neither a size nor the usual."""
    other = ["multimodal_cfg"] if architecture.get("multimodal_cfg") else []
    for part, sizes in _SIZES.items():
        for name, value in architecture[part].items():
            unusual = name not in sizes | _WITHOUT_EFFECT and value and value not in _USUAL.get(name, ())
            if unusual or (name == "layers" and not isinstance(value, int)):
                other.append(f"{part}.{name} = {value!r}")
    if other:
        raise ConfigError(
            f"{key} = {model!r} has towers of another kind than CLIP's own ViT and text transformer: "
            f"{', '.join(other)}. Adapters are defined for CLIP's own: choose a model such as ViT-B-16-quickgelu"
        )


def _one_side(size: Sequence[int]) -> int:
    if len(set(size)) != 1:
        raise ValueError(f"images of {list(size)} pixels are not square")
    return size[0]


def _tags(model: str) -> dict[str, dict[str, Any]]:
    """Tags that open_clip knows for a model -> their activation and address; none for a configuration file."""
    return {tag: open_clip.get_pretrained_cfg(model, tag) for tag in open_clip.list_pretrained_tags_by_model(model)}


def _check_activation(model: str, quick_gelu: bool, tag: str, tag_is_quick: bool) -> None:
    if tag_is_quick == quick_gelu:
        return
    right = model + _SUFFIX if tag_is_quick else model.removesuffix(_SUFFIX)
    advice = f"say `--set {_MODEL_KEY}={right}`" if right in open_clip.list_models() else "choose another tag"
    names = {True: "QuickGELU", False: "GELU"}
    raise WeightsError(
        f"the weights {tag!r} were trained with {names[tag_is_quick]}, but {model!r} computes {names[quick_gelu]}: "
        f"features would be wrong without a sign; {advice}"
    )


def _frozen(towers: ClipTowers) -> ClipTowers:
    for tower in towers:
        tower.eval().requires_grad_(False)
    return towers
