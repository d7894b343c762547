"""HRNet for poses: an image of a person in, one heatmap per joint out.

Why timm and not the official code: timm's backbone, cut to its stride-4 branch, plus a 1x1 convolution gives the same
numbers bit for bit, and its keys equal the official ones after a change of prefix. So official and mmpose checkpoints
load strictly, and there is no second implementation of the network to keep.
"""

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from timm.models.hrnet import HighResolutionNetFeatures
from torch import Tensor, nn

from cache.errors import WeightsError

logger = logging.getLogger(__name__)

HEATMAP_STRIDE = 4
_HEAD_PREFIXES = ("keypoint_head.final_layer.", "head.final_layer.")  # mmpose 0.x, 1.x
_OTHER_HEADS = {
    133: "133 joints is the whole-body format (COCO-WholeBody)",
    51: "51 channels is a UDP head that regresses offsets (3 channels per joint)",
    16: "16 joints is the MPII format",
}
_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class HRNetVariant:
    """Sizes of one HRNet: C, 2C, 4C, 8C channels at strides 4, 8, 16, 32."""

    width: int
    """C."""
    num_modules: tuple[int, int, int]
    """Fusion modules in stages 2, 3 and 4."""
    num_blocks: int
    """Residual blocks per branch of a module."""
    num_bottlenecks: int = 4
    """Bottlenecks before the first split."""
    bottleneck_width: int = 64
    """Their inner width; they end in four times as many channels."""


VARIANTS: Mapping[str, HRNetVariant] = {
    "hrnet_w32": HRNetVariant(width=32, num_modules=(1, 4, 3), num_blocks=4),
    "hrnet_w48": HRNetVariant(width=48, num_modules=(1, 4, 3), num_blocks=4),
    # For small rendered videos: 0.25 M parameters, same names and strides as its elders.
    "hrnet_w8_tiny": HRNetVariant(width=8, num_modules=(1, 1, 1), num_blocks=1, num_bottlenecks=1, bottleneck_width=16),
}


class HRNetPose(nn.Module):
    """HRNet with a heatmap per joint (Sun et al., CVPR 2019), new weights from torch's random generator."""

    def __init__(self, variant: str, num_joints: int = 17) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"HRNet variant {variant!r}: choose one of {', '.join(VARIANTS)}")
        self.variant = variant
        self.num_joints = num_joints
        config = _timm_config(VARIANTS[variant])
        self.backbone = HighResolutionNetFeatures(config, feature_location="", out_indices=(1,))  # type: ignore[no-untyped-call]
        # timm's last module fuses to all four strides; pose networks keep the finest one.
        self.backbone.stage4[-1].fuse_layers = self.backbone.stage4[-1].fuse_layers[:1]
        self.final_layer = nn.Conv2d(VARIANTS[variant].width, num_joints, kernel_size=1)
        # As in the official code: a head that starts near zero, or the mean square error drowns the backbone's signal.
        nn.init.normal_(self.final_layer.weight, std=0.001)
        nn.init.zeros_(self.final_layer.get_parameter("bias"))

    def forward(self, images: Tensor) -> Tensor:
        """Heatmaps of joints.

        Args:
            images: (b, 3, H, W) RGB, normalised; H and W multiples of 32.

        Returns:
            (b, J, H/4, W/4); about 1 at a joint, not a probability.
        """
        return self.final_layer(self.backbone(images)[0])


def load_checkpoint(model: HRNetPose, path: Path) -> None:
    """Loads weights of any known layout into `model`.

    Raises:
        WeightsError: the file is absent, unsafe, damaged or of another network; the message says which.
    """
    load_state(model, read_state(path), source=str(path))
    logger.debug("loaded %s from %s", model.variant, path)


def read_state(path: Path, *, what: str = "HRNet") -> dict[str, Tensor]:
    """Tensors of a checkpoint file by their names in the file, without running any code that it may hold.

    Known layouts: .safetensors; official release (bare); official training checkpoint (`best_state_dict`); mmpose 0.x
    and 1.x (`state_dict` and `meta`); training checkpoint of torchvision's detectors (`model`).

    Args:
        path: the file.
        what: whose weights they are, in words, for messages.

    Raises:
        WeightsError: the file is absent, unsafe, damaged or holds no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{what} weights {path} do not exist or are not a file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in ("best_state_dict", "state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{path} holds no tensors; its entries are {_few(content)}")
    return state


def load_state(model: HRNetPose, state: Mapping[str, Tensor], *, source: str = "the state dict") -> None:
    """Loads tensors of any known naming, strictly: nothing missing, nothing left over, all shapes equal.

    Raises:
        WeightsError: they belong to another network.
    """
    named = _rename(state)
    _refuse_other_networks(model, named, source)
    expected = model.state_dict()
    # BatchNorm's counters are unused here and absent from some files; they may not be the reason for a refusal.
    missing = [key for key in expected if key not in named and not key.endswith(_COUNTER)]
    surplus = [key for key in named if key not in expected]
    reshaped = [
        f"{key} {tuple(named[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in named and named[key].shape != value.shape
    ]
    if missing or surplus or reshaped:
        raise WeightsError(
            f"{source} does not fit {model.variant} with {model.num_joints} joints: "
            f"{len(missing)} tensors missing ({_few(missing)}), {len(surplus)} unknown ({_few(surplus)}), "
            f"{len(reshaped)} of another shape ({_few(reshaped)})"
        )
    counters = {key: value for key, value in expected.items() if key.endswith(_COUNTER)}
    model.load_state_dict({**counters, **named}, strict=True)


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of every known layout -> names of `HRNetPose`."""
    named = {}
    for original, value in state.items():
        key = original.removeprefix("module.")
        for prefix in _HEAD_PREFIXES:
            if key.startswith(prefix):
                key = "final_layer." + key.removeprefix(prefix)
        if not key.startswith(("backbone.", "final_layer.", "head.", "keypoint_head.")):
            key = "backbone." + key
        named[key] = value
    return named


def _refuse_other_networks(model: HRNetPose, named: Mapping[str, Tensor], source: str) -> None:
    """Names the known confusions before the comparison of keys would drown them in a list."""
    if any("deconv_layers." in key for key in named):
        raise WeightsError(
            f"{source} has deconvolution layers in its head: it is a SimpleBaseline or ViTPose network, not HRNet. "
            f"Give weights of {model.variant}"
        )
    if any(".incre_modules." in key or key.startswith("backbone.classifier.") for key in named):
        raise WeightsError(
            f"{source} is an HRNet that classifies ImageNet images: it has no joint heatmaps. "
            f"Give weights of {model.variant} trained for poses"
        )
    head = named.get("final_layer.weight")
    if head is None or head.ndim != 4:
        raise WeightsError(f"{source} has no `final_layer` of heatmaps: it is not an HRNet pose network")
    channels, width = head.shape[:2]
    if channels != model.num_joints:
        what = _OTHER_HEADS.get(channels, f"it has {channels} output channels")
        raise WeightsError(f"{source} does not predict {model.num_joints} joints: {what}")
    if width != VARIANTS[model.variant].width:
        other = next((name for name, sizes in VARIANTS.items() if sizes.width == width), f"an HRNet of width {width}")
        raise WeightsError(f"{source} holds {other}, but the model asked for is {model.variant}")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} holds more than tensors, or is not a PyTorch file, and is not opened: it could run code "
            f"({reason}). Where you trust it, save its `state_dict` alone, best as .safetensors, and give that file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise WeightsError(f"{path} cannot be read as a PyTorch file: {error}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}; a mapping of names to tensors is expected")
    return content


def _numpy_globals() -> list[Any]:
    """What mmpose's `meta` may hold beside strings: plain numpy arrays, pickled by numpy 1 or 2."""
    reconstruct = np.empty(0).__reduce__()[0]
    dtypes = [type(np.dtype(name)) for name in ("float32", "float64", "int64", "uint8")]
    names = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    return [*names, np.ndarray, np.dtype, *dtypes]


def _timm_config(sizes: HRNetVariant) -> dict[str, Any]:
    """Timm's description of the four stages."""
    config: dict[str, Any] = {
        "stem_width": 64,
        "stage1": {
            "num_modules": 1,
            "num_branches": 1,
            "block_type": "BOTTLENECK",
            "num_blocks": (sizes.num_bottlenecks,),
            "num_channels": (sizes.bottleneck_width,),
            "fuse_method": "SUM",
        },
    }
    for stage, num_modules in zip((2, 3, 4), sizes.num_modules, strict=True):
        config[f"stage{stage}"] = {
            "num_modules": num_modules,
            "num_branches": stage,
            "block_type": "BASIC",
            "num_blocks": (sizes.num_blocks,) * stage,
            "num_channels": tuple(sizes.width * 2**branch for branch in range(stage)),
            "fuse_method": "SUM",
        }
    return config


def _few(names: Mapping[str, Any] | list[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"
