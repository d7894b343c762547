"""PeVL's encoders at a few thousand parameters, inputs for them, and adapters that do something."""

import torch
from torch import Tensor, nn

from train.encoders.adapted_clip import PoseEncoder, TextEncoder, VideoEncoder
from train.encoders.clip_tower import ClipShape

FRAMES, POSE_FRAMES, JOINTS = 4, 6, 5


def video_encoder(shape: ClipShape, *, adapters: bool = True, temporal: bool = False) -> VideoEncoder:
    torch.manual_seed(0)
    return VideoEncoder(
        shape, num_frames=FRAMES, adapters=adapters, ratio=0.25, mlp_scale=0.5, drop_path=0.0, temporal=temporal
    ).eval()


def pose_encoder(shape: ClipShape, *, adapters: bool = True, drop_path: float = 0.0) -> PoseEncoder:
    torch.manual_seed(0)
    return PoseEncoder(
        shape,
        num_frames=POSE_FRAMES,
        num_joints=JOINTS,
        adapters=adapters,
        ratio=0.25,
        mlp_scale=0.5,
        drop_path=drop_path,
    ).eval()


def text_encoder(shape: ClipShape, *, adapters: bool = True) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(shape, adapters=adapters, ratio=0.5, mlp_scale=0.5, drop_path=0.0).eval()


def stir(module: nn.Module, name: str = "") -> None:
    """Gives adapters whose names hold `name` an output, as training would."""
    torch.manual_seed(5)
    for key, parameter in module.named_parameters():
        if name in key and ".up." in key:
            nn.init.normal_(parameter, std=0.2)


def frames(n: int = 2) -> Tensor:
    return torch.randn(n, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def joints(n: int = 2) -> Tensor:
    positions = 32 * torch.rand(n, POSE_FRAMES, JOINTS, 2, generator=torch.Generator().manual_seed(2))
    return torch.cat([positions, torch.ones(n, POSE_FRAMES, JOINTS, 1)], dim=-1)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp(min=1))
