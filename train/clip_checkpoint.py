"""A CLIP's weights file, read safely and checked name by name against the towers that it is for.

Why no strict=False, and no resizing of position embeddings as open_clip does: both turn a file of another model into
one that loads. Here a leftover tensor must be on a short list, and the rest is a WeightsError that names it.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cache.errors import WeightsError
from train.encoders.clip_tower import ClipShape

# Tensors of CLIP files that are no part of the towers: temperatures, the causal mask of old files, OpenAI's sizes.
_LEFT_OVER = {"logit_scale", "logit_bias", "attn_mask", "input_resolution", "context_length", "vocab_size"}


def read_clip_checkpoint(path: Path, shape: ClipShape, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a weights file, whatever wraps them, in the precision they were stored in.

    Args:
        path: .safetensors, or a torch file without any code in it.
        shape: of the model that they are for.
        wanted: name -> a tensor of the right shape (on any device), under open_clip's names.

    Returns:
        A tensor for each name of `wanted`.

    Raises:
        WeightsError: unreadable, unsafe, or of another model; says which sizes or names differ.
    """
    state = _native_names(_read(path), path)
    _check_sizes(state, shape, path)
    _check_names(state, wanted, path)
    return state


def _read(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file, out of a training checkpoint's `state_dict` if it is one."""
    advice = "Give a file of tensors alone, best as .safetensors"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: it is damaged or holds Python objects besides tensors, and loading those could run "
            f"code. {advice}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} cannot be read: {reason}. {advice} (OpenAI's own .pt files are TorchScript programs; the tag "
            "`openai` has the same weights as tensors)"
        ) from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds no state dict: expected names and tensors, or such under 'state_dict'")
    return dict(content)


def _native_names(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Our names, whatever wrapped the model: distributed training (`module.`), or a text tower of its own (`text.`)."""
    plain = {name.removeprefix("module.").removeprefix("text."): tensor for name, tensor in state.items()}
    if len(plain) != len(state):
        raise WeightsError(f"{path} names the same parameter twice, with and without a prefix")
    return {name: tensor for name, tensor in plain.items() if name not in _LEFT_OVER}


def _check_sizes(state: Mapping[str, Tensor], shape: ClipShape, path: Path) -> None:
    """One clear line for the common mistakes: not a CLIP under open_clip's names, or one of another size."""
    anchors = ("visual.conv1.weight", "visual.positional_embedding", "positional_embedding", "text_projection")
    absent = [name for name in anchors if name not in state]
    if absent:
        first = ", ".join(sorted(state)[:3]) or "nothing"
        raise WeightsError(f"{path} holds no CLIP under open_clip's names: {absent[0]} is missing, found {first}")
    kernel, image, text, projection = (state[name].shape for name in anchors)
    found = {
        "width": kernel[0],
        "patch_size": kernel[-1],
        "num_patches": image[0] - 1,
        "text_width": text[-1],
        "context_length": text[0],
        "embed_dim": projection[-1],
    }
    wrong = {name: size for name, size in found.items() if size != getattr(shape, name)}
    if wrong:
        held = ", ".join(f"{name} {size}" for name, size in wrong.items())
        asked = ", ".join(f"{name} {getattr(shape, name)}" for name in wrong)
        raise WeightsError(f"{path} is a CLIP of {held}; train.pevl.clip asks for {asked}")


def _check_names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Every parameter present in its shape, nothing left over."""
    shared = wanted.keys() & state.keys()
    problems = {
        "missing": wanted.keys() - state.keys(),
        "not part of the model": state.keys() - wanted.keys(),
        "of another shape": {name for name in shared if wanted[name].shape != state[name].shape},
    }
    found = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in problems.items()
        if names
    ]
    if found:
        raise WeightsError(f"{path} does not fit this CLIP: {'; '.join(found)}")
