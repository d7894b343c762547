"""open_clip's models by name or configuration file: weights found, activation checked, built the same everywhere.

Why the activation is checked here: open_clip builds `ViT-B-16` with the tag `openai` in plain GELU, although those
weights were trained with QuickGELU, and only warns. The features look healthy and are wrong, so it is an error.
"""

import difflib
import json
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import open_clip
import safetensors
import torch
from open_clip.factory import load_state_dict
from torch import Tensor, nn

from cache.encoder_spec import ImageEncoderSpec, canonical_architecture
from cache.errors import ConfigError, WeightsError
from cache.weights_file import WeightsFile, find_weights, open_clip_source
from extract.config import ImageEncoderConfig

logger = logging.getLogger(__name__)

_KEY = "extract.image_encoder"
_SUFFIX = "-quickgelu"


@dataclass(frozen=True, kw_only=True)
class OpenClipModel:
    """What can be known of a model before it is built."""

    name: str
    """As open_clip knows it, after the configuration file was registered."""
    architecture: Mapping[str, Any]
    """open_clip's configuration: embed_dim, vision_cfg, text_cfg, quick_gelu."""
    is_custom: bool
    """True if it came from a file of the person's own."""

    @property
    def quick_gelu(self) -> bool:
        """The activation of both towers."""
        return bool(self.architecture.get("quick_gelu", False))


def find_model(given: str) -> OpenClipModel:
    """A model by open_clip's name, or by the path of a configuration file in open_clip's format.

    Raises:
        ConfigError: neither; or the file is no such configuration, or takes a name that open_clip uses already.
    """
    if given.endswith(".json"):
        return _register(Path(given).expanduser())
    architecture = open_clip.get_model_config(given) if given in open_clip.list_models() else None
    if architecture is None:
        near = difflib.get_close_matches(given, open_clip.list_models(), n=4, cutoff=0.4)
        raise ConfigError(
            f"{_KEY}.model = {given!r} is not a model of open_clip; near ones: {', '.join(near) or 'none'}. Give one "
            "of open_clip.list_models(), or the path of a JSON file with embed_dim, vision_cfg and text_cfg"
        )
    return OpenClipModel(name=given, architecture=architecture, is_custom=given in _registered)


def find_model_weights(model: OpenClipModel, pretrained: str, *, offline: bool = False) -> WeightsFile:
    """The weights that a tag, a path or `none` names, refused if the tag was trained with the other activation.

    Raises:
        WeightsError: not to be had, or of the other activation; names the model to ask for.
    """
    tags = pretrained_settings(model.name)
    settings = tags.get(pretrained)
    if settings is not None:
        _check_activation(model, pretrained, bool(settings.get("quick_gelu", False)))
    elif model.name.endswith(_SUFFIX) and pretrained in pretrained_settings(model.name.removesuffix(_SUFFIX)):
        _check_activation(model, pretrained, tag_is_quick=False)
    return find_weights(
        pretrained,
        sources={tag: open_clip_source(tag, str(tags[tag]["hf_hub"])) for tag in tags},
        what=f"open_clip model {model.name!r}:",
        key=f"{_KEY}.pretrained",
        offline=offline,
    )


def pretrained_settings(name: str) -> dict[str, dict[str, Any]]:
    """Tags that open_clip knows for a model -> their preprocessing, activation and address."""
    return {tag: open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}


def describe(model: OpenClipModel, pretrained: str, weights: WeightsFile) -> ImageEncoderSpec:
    """The specification of the image tower, without building it.

    Raises:
        ConfigError: it takes images that are not square, or resizes in a way that is not supported.
    """
    size = model.architecture["vision_cfg"].get("image_size", 224)
    sides = {size} if isinstance(size, int) else set(size)
    settings = {**_DEFAULT_SETTINGS, **pretrained_settings(model.name).get(pretrained, {})}
    if len(sides) != 1 or settings["resize_mode"] not in ("shortest", "squash"):
        raise ConfigError(
            f"{_KEY}.model = {model.name!r} takes images of {size} resized by {settings['resize_mode']!r}; square "
            "images and 'shortest' or 'squash' are supported"
        )
    return ImageEncoderSpec(
        model=model.name,
        quick_gelu=model.quick_gelu,
        embed_dim=model.architecture["embed_dim"],
        image_size=sides.pop(),
        mean=_triple(settings["mean"]),
        std=_triple(settings["std"]),
        interpolation=settings["interpolation"],
        resize_mode=settings["resize_mode"],
        weights_sha256=weights.sha256,
        architecture=canonical_architecture(model.architecture) if model.is_custom else "",
    )


def build(config: ImageEncoderConfig, device: torch.device) -> nn.Module:
    """The whole model (both towers), frozen, in eval mode and fp32; random weights depend on the seed alone.

    Raises:
        WeightsError: the weights are absent, unsafe, damaged or of another model.
    """
    model = find_model(config.model)
    weights = find_model_weights(model, config.pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _create(model, weights.path)
    return network.to(device).eval().requires_grad_(False)


_registered: set[str] = set()
_DEFAULT_SETTINGS = {
    "mean": open_clip.OPENAI_DATASET_MEAN,
    "std": open_clip.OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def _register(path: Path) -> OpenClipModel:
    try:
        architecture = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        message = f"{_KEY}.model = {str(path)!r} cannot be read as an open_clip configuration: {error}"
        raise ConfigError(message) from error
    if not isinstance(architecture, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= architecture.keys():
        raise ConfigError(
            f"{path} is not an open_clip configuration: it needs embed_dim, vision_cfg and text_cfg at the top "
            "(the `model_cfg` of an open_clip_config.json is one)"
        )
    known = open_clip.get_model_config(path.stem) if path.stem in open_clip.list_models() else None
    if known is not None and known != architecture and path.stem not in _registered:
        raise ConfigError(f"{path}: open_clip has a model {path.stem!r} of its own; rename the file")
    if known != architecture:
        open_clip.add_model_config(path.resolve())
    _registered.add(path.stem)
    return OpenClipModel(name=path.stem, architecture=architecture, is_custom=True)


def _check_activation(model: OpenClipModel, tag: str, tag_is_quick: bool) -> None:
    if tag_is_quick == model.quick_gelu:
        return
    right = model.name + _SUFFIX if tag_is_quick else model.name.removesuffix(_SUFFIX)
    advice = f"say `--set {_KEY}.model={right}`" if right in open_clip.list_models() else "choose another tag"
    names = {True: "QuickGELU", False: "GELU"}
    raise WeightsError(
        f"the weights {tag!r} were trained with {names[tag_is_quick]}, but {model.name!r} computes "
        f"{names[model.quick_gelu]}: features would be wrong without a sign; {advice}"
    )


def _create(model: OpenClipModel, path: Path | None) -> nn.Module:
    """Loads strictly; open_clip alone would stretch position embeddings of another image or text length in silence."""
    if path is None:
        return open_clip.create_model(model.name, pretrained_text=False, precision="fp32")
    try:
        network = open_clip.create_model(model.name, pretrained=str(path), precision="fp32")
        _check_positions(network, load_state_dict(str(path)), model, path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is not a PyTorch file, and is not opened: it could run code. Give a "
            "file of the state dict alone, best as .safetensors"
        ) from error
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, StopIteration) as error:
        reason = " ".join(str(error).split())[:400]
        raise WeightsError(
            f"{path} does not hold weights of {model.name!r}: {reason}. (OpenAI's own .pt files are TorchScript "
            "programs; the tag `openai` has the same weights as tensors)"
        ) from error
    return network


def _check_positions(network: nn.Module, state: Mapping[str, Tensor], model: OpenClipModel, path: Path) -> None:
    expected = network.state_dict()
    for key in ("visual.positional_embedding", "positional_embedding", "text.positional_embedding"):
        if key in expected and key in state and expected[key].shape != state[key].shape:
            raise WeightsError(
                f"{path} does not fit {model.name!r}: {key} is {tuple(state[key].shape)} instead of "
                f"{tuple(expected[key].shape)}: the weights are for another image size, patch size or text length"
            )


def _triple(values: Any) -> tuple[float, float, float]:  # noqa: ANN401 - open_clip has tuples, lists and numbers here
    triple = (values,) * 3 if isinstance(values, int | float) else tuple(float(value) for value in values)
    return cast("tuple[float, float, float]", triple)
