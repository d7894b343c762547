"""Released and own weights of the video encoder: read safely, renamed, resized, and checked name by name.

A question a reader will ask: why no strict=False? It turns a misspelled or foreign checkpoint into a randomly
initialised model without a word. Here every name that is missing or left over must be on a short list, and the rest
is a WeightsError.

Three layouts are accepted, told apart by their names: Facebook's (a `model_state` of names with the prefix `model.`),
Hugging Face's (`timesformer.embeddings...`), and our own, which is Facebook's without prefix. A plain image ViT with
timm's names is accepted too: attention over time starts as a copy of attention over space, and switched off.
"""

import logging
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cache.errors import WeightsError
from cache.weights_file import WeightsFile, WeightsSource
from train.encoders.timesformer import TimeSformer, TimeSformerConfig

logger = logging.getLogger(__name__)

_LICENCE = "CC-BY-NC-4.0"


def _released(tag: str, repository: str, note: str) -> WeightsSource:
    return WeightsSource(
        name=tag,
        url=f"https://huggingface.co/{repository}",
        licence=_LICENCE,
        filename="pytorch_model.bin",
        hf_repo=repository,
        alternatives=("model.safetensors",),
        note=note,
    )


TIMESFORMER_SOURCES: Mapping[str, WeightsSource] = {
    source.name: source
    for source in (
        _released("8x32_224_K400", "facebook/timesformer-base-finetuned-k400", "8 frames, 224 px, Kinetics-400"),
        _released("8x32_224_K600", "facebook/timesformer-base-finetuned-k600", "8 frames, 224 px, Kinetics-600"),
        _released("8_224_SSv2", "facebook/timesformer-base-finetuned-ssv2", "8 frames, 224 px, SSv2"),
        _released("16x16_448_K400", "facebook/timesformer-hr-finetuned-k400", "16 frames, 448 px, Kinetics-400"),
        _released("16x16_448_K600", "facebook/timesformer-hr-finetuned-k600", "16 frames, 448 px, Kinetics-600"),
        _released("16_448_SSv2", "facebook/timesformer-hr-finetuned-ssv2", "16 frames, 448 px, SSv2"),
    )
}
"""Tags of released TimeSformers, named as in Facebook's model zoo; CMDCL's tables use 8x32_224_K400."""

_HF_STEM = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "time_embed": "embeddings.time_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_HF_BLOCK = {
    "norm1": "layernorm_before",
    "attn.qkv": "attention.attention.qkv",
    "attn.proj": "attention.output.dense",
    "temporal_norm1": "temporal_layernorm",
    "temporal_attn.qkv": "temporal_attention.attention.qkv",
    "temporal_attn.proj": "temporal_attention.output.dense",
    "temporal_fc": "temporal_dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_SPACE_OF_TIME = {"temporal_norm1": "norm1", "temporal_attn.qkv": "attn.qkv", "temporal_attn.proj": "attn.proj"}
_ENDINGS = ("weight", "bias")


def hf_names(depth: int) -> dict[str, str]:
    """Our parameter name -> Hugging Face's (without prefix), for every parameter but the head's."""
    names = {ours: theirs for ours, theirs in _HF_STEM.items() if ours.endswith(("_token", "_embed"))}
    modules = {ours: theirs for ours, theirs in _HF_STEM.items() if ours not in names}
    for i in range(depth):
        modules |= {f"blocks.{i}.{ours}": f"encoder.layer.{i}.{theirs}" for ours, theirs in _HF_BLOCK.items()}
    return names | {f"{a}.{end}": f"{b}.{end}" for a, b in modules.items() for end in _ENDINGS}


def load_timesformer(config: TimeSformerConfig, weights: WeightsFile) -> TimeSformer:
    """A TimeSformer without head, with the given weights; random ones only if asked for by name.

    Args:
        config: shape of the model; position and time embeddings of another size are resized (nearest).
        weights: what `cache.weights_file.find_weights` returned.

    Raises:
        WeightsError: the file is unreadable, unsafe, or of another architecture.
    """
    model = TimeSformer(config)
    if weights.path is None:
        return model
    state = native_names(read_state(weights.path), weights.path)
    _check_architecture(state, config, weights.path)
    if not any("temporal" in name for name in state):
        state = _inflate_image_vit(state, config)
        logger.info("%s is an image ViT: attention over time starts switched off", weights.path)
    state = _resize_embeddings(state, config)
    _check_names(state, model.state_dict(), weights.path)
    model.load_state_dict(state)
    return model


def read_state(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint file: .safetensors, or .bin, .pt, .pth, .pyth without any code in it.

    Raises:
        WeightsError: unreadable, of an unknown kind, or holding anything but tensors and plain values.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error
    if path.suffix not in (".bin", ".pt", ".pth", ".pyth"):
        raise WeightsError(f"{path} is no checkpoint by its name: accepted are .safetensors, .bin, .pt, .pth and .pyth")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: it is damaged or holds Python objects besides tensors, and loading those "
            "could run code. Convert it to .safetensors with a tool you trust"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as a torch checkpoint: {error}") from error
    return _tensors(content, path)


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    """The mapping of tensors in a checkpoint, unwrapped from Facebook's training state."""
    if isinstance(content, Mapping) and "model_state" in content:
        content = content["model_state"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path} holds no state dict: expected a mapping of names to tensors, or one under 'model_state'"
        )
    return dict(content)


def native_names(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same tensors under our names, whatever layout they came in; classification heads are dropped."""
    names = {name: name.removeprefix("model.").removeprefix("timesformer.") for name in state}
    plain = {short: state[name] for name, short in names.items()}
    if len(plain) != len(state):
        raise WeightsError(f"{path} names the same parameter twice, with and without a prefix")
    depth = 1 + max((int(i) for name in plain for i in re.findall(r"^encoder\.layer\.(\d+)\.", name)), default=-1)
    ours = {theirs: name for name, theirs in hf_names(depth).items()} if depth else {}
    heads = {f"{head}.{end}" for head in ("head", "classifier") for end in _ENDINGS}
    return {ours.get(name, name): value for name, value in plain.items() if name not in heads}


def _check_architecture(state: Mapping[str, Tensor], config: TimeSformerConfig, path: Path) -> None:
    """One clear line for the common mistakes: not a TimeSformer, or one of another size."""
    if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
        first = ", ".join(sorted(state)[:3]) or "nothing"
        raise WeightsError(
            f"{path} holds no TimeSformer and no image ViT: expected patch_embed.proj and pos_embed under Facebook, "
            f"Hugging Face or timm names, found {first}"
        )
    blocks = {int(i) for name in state for i in re.findall(r"^blocks\.(\d+)\.", name)}
    kernel = state["patch_embed.proj.weight"]
    found = {"width": kernel.shape[0], "depth": len(blocks), "patch_size": kernel.shape[-1]}
    wrong = {name: size for name, size in found.items() if size != getattr(config, name)}
    if wrong:
        held = ", ".join(f"{name} {size}" for name, size in wrong.items())
        asked = ", ".join(f"{name} {getattr(config, name)}" for name in wrong)
        raise WeightsError(f"{path} is a model of {held}; the configuration asks for {asked}")


def _inflate_image_vit(state: Mapping[str, Tensor], config: TimeSformerConfig) -> dict[str, Tensor]:
    """An image ViT as a TimeSformer that sees each frame alone: time layers copied, temporal_fc zero."""
    inflated = dict(state)
    inflated["time_embed"] = torch.zeros(1, config.num_frames, config.width)
    for i in range(config.depth):
        for ending in _ENDINGS:
            shape = (config.width, config.width) if ending == "weight" else (config.width,)
            inflated[f"blocks.{i}.temporal_fc.{ending}"] = torch.zeros(shape)
            for ours, source in _SPACE_OF_TIME.items():
                tensor = state.get(f"blocks.{i}.{source}.{ending}")
                if tensor is not None:
                    inflated[f"blocks.{i}.{ours}.{ending}"] = tensor.clone()
    return inflated


def _resize_embeddings(state: Mapping[str, Tensor], config: TimeSformerConfig) -> dict[str, Tensor]:
    """Position and time embeddings at the configuration's sizes."""
    resized = dict(state)
    resized["pos_embed"] = resize_pos_embed(state["pos_embed"], config.num_patches)
    if "time_embed" in state:
        resized["time_embed"] = resize_time_embed(state["time_embed"], config.num_frames)
    return resized


def resize_time_embed(time_embed: Tensor, num_frames: int) -> Tensor:
    """Nearest interpolation over time, as the released code does. (1, frames, d) -> (1, num_frames, d)."""
    if time_embed.shape[1] == num_frames:
        return time_embed
    return F.interpolate(time_embed.float().transpose(1, 2), size=num_frames, mode="nearest").transpose(1, 2)


def resize_pos_embed(pos_embed: Tensor, num_patches: int) -> Tensor:
    """Nearest interpolation over the patch grid; the class token's position stays.

    Args:
        pos_embed: (1, 1 + patches, d), of a square grid.
        num_patches: P, a square number.

    Returns:
        (1, 1 + P, d).
    """
    if pos_embed.shape[1] == 1 + num_patches:
        return pos_embed
    old, new = math.isqrt(pos_embed.shape[1] - 1), math.isqrt(num_patches)
    if old**2 != pos_embed.shape[1] - 1:
        raise WeightsError(f"pos_embed has {pos_embed.shape[1]} positions: expected one and a square number of patches")
    grid = pos_embed[:, 1:].float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="nearest").flatten(2).transpose(1, 2)
    return torch.cat([pos_embed[:, :1].float(), grid], dim=1)


def _check_names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Every parameter present in its shape, nothing left over."""
    problems = {
        "missing": sorted(wanted.keys() - state.keys()),
        "not part of the model": sorted(state.keys() - wanted.keys()),
        "of another shape": sorted(
            name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape
        ),
    }
    found = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in problems.items()
        if names
    ]
    if found:
        raise WeightsError(f"{path} does not fit this TimeSformer: {'; '.join(found)}")
