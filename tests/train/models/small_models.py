"""Sizes, inputs and a video encoder small enough for the tests of CMDCL and PCMCI."""

import torch
from torch import Tensor, nn

from train.encoders.timesformer import TimeSformer, TimeSformerConfig

CLASSES, WIDTH, FRAMES, VIDEO_WIDTH, VIDEOS = 5, 16, 4, 24, 3


def video_encoder(num_frames: int = FRAMES) -> TimeSformer:
    """A TimeSformer for pictures of 16 pixels."""
    return TimeSformer(
        TimeSformerConfig(
            image_size=16, patch_size=8, width=VIDEO_WIDTH, depth=2, heads=4, num_frames=num_frames, drop_path=0.0
        )
    )


def scramble(model: nn.Module) -> None:
    """Draws every weight but T and the norms anew, so that nothing hides behind a zero initialisation."""
    for name, parameter in model.named_parameters():
        if name != "text" and "norm" not in name:
            nn.init.normal_(parameter, std=0.3)


def some_prompts() -> Tensor:
    """(n, L, D)."""
    return torch.randn(VIDEOS, FRAMES, WIDTH, generator=torch.Generator().manual_seed(1))


def some_tokens() -> Tensor:
    """(n, L, d_v)."""
    return torch.randn(VIDEOS, FRAMES, VIDEO_WIDTH, generator=torch.Generator().manual_seed(2))
