"""A CLIP of a few thousand parameters in open_clip's format, and open_clip's own model of it to compare with."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from train.clip_weights import clip_shape
from train.encoders.clip_tower import ClipShape, ClipTowers, ImageTower, TextTower

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8, "mlp_ratio": 3.0},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def write_model(folder: Path, *, name: str = "tiny-clip.json", **changes: Any) -> str:  # noqa: ANN401
    """Writes the configuration file and returns what `train.pevl.clip` would say."""
    path = folder / name
    path.write_text(json.dumps(ARCHITECTURE | changes))
    return str(path)


def tiny_shape(folder: Path, **changes: Any) -> ClipShape:  # noqa: ANN401
    """The sizes of the configuration, read as a run reads them."""
    return clip_shape(write_model(folder, **changes))


def reference(architecture: dict[str, Any] = ARCHITECTURE, *, seed: int = 0) -> nn.Module:
    """open_clip's model with nothing at zero or one, large enough that a wrong position or bias is seen."""
    model = open_clip.CLIP(**architecture).eval()
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float(".ln_" in name and name.endswith("weight")), std=0.2)
    return model


def towers_of(model: nn.Module, shape: ClipShape) -> ClipTowers:
    """Our frozen towers with the weights of open_clip's model."""
    with torch.device("meta"):
        towers = ClipTowers(ImageTower(shape), TextTower(shape))
    state = model.state_dict()
    for tower, prefix in ((towers.image, "visual."), (towers.text, "")):
        tower.load_state_dict({name: state[prefix + name] for name in tower.state_dict()}, assign=True)
        tower.requires_grad_(False)
    return towers
