"""TimeSformer with divided space-time attention: the trained video encoder (Bertasius et al., ICML 2021).

Parameter names are exactly those of Facebook's checkpoints, so their weights load as they are;
train/weights.py translates Hugging Face names. A question a reader will ask: why `pool_frames` and not adaptive
pooling? Output tokens are ordered space-major, token 1 + p * L + t is patch p of frame t, so pooling neighbours
averages over *frames*, not over patches.

Axis letters: n batch, L frames used, P patches per frame, d width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.layers import DropPath, FeedForward, SelfAttention, check_heads

FramePool = Literal["patch_mean", "msqnet_bins"]


@dataclass(frozen=True, kw_only=True)
class TimeSformerConfig:
    """Shape of a TimeSformer; the defaults are TimeSformer-B/16 as released for 8 frames of 224 px."""

    image_size: int = 224
    """Height and width of a frame, in pixels."""
    patch_size: int = 16
    """Side of a patch, in pixels; must divide image_size."""
    width: int = 768
    """Token width d."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads; must divide width."""
    mlp_ratio: int = 4
    """Hidden width of a block's feed-forward layer, in multiples of width."""
    num_frames: int = 8
    """Frames per video, L: the number of time positions."""
    drop_path: float = 0.1
    """Probability of dropping a residual branch in the last block; grows linearly from 0 in the first."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "width", "depth", "heads", "mlp_ratio", "num_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path is {self.drop_path}: it must lie in [0, 1)")
        check_heads(self.width, self.heads)

    @property
    def num_patches(self) -> int:
        """Patches per frame, P."""
        return (self.image_size // self.patch_size) ** 2


class PatchEmbed(nn.Module):
    """Each patch of each frame to one token."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (n, 3, H, W) -> (n, P, d), patches row by row."""
        return self.proj(frames).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention over time, then over space, then a feed-forward layer."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(width, eps=1e-6)
        self.temporal_attn = SelfAttention(width, heads)
        self.temporal_fc = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = FeedForward(width, mlp_ratio * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, num_frames: int) -> Tensor:
        """tokens: (n, 1 + P * L, d) -> (n, 1 + P * L, d)."""
        cls, patches = tokens[:, :1], tokens[:, 1:].unflatten(1, (-1, num_frames))  # (n, P, L, d)
        patches = patches + self._over_time(patches)
        cls_update, patch_update = self._over_space(cls, patches)
        tokens = torch.cat([cls + cls_update, (patches + patch_update).flatten(1, 2)], dim=1)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))

    def _over_time(self, patches: Tensor) -> Tensor:
        """Each patch position attends to itself in the other frames. patches: (n, P, L, d) -> same."""
        sequences = patches.flatten(0, 1)  # (n * P, L, d)
        attended = self.drop_path(self.temporal_attn(self.temporal_norm1(sequences)))
        return self.temporal_fc(attended).unflatten(0, patches.shape[:2])

    def _over_space(self, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Each frame attends within itself; the class token is shared, its update averaged over frames."""
        update = self.drop_path(self.attn(self.norm1(self._frames_of(cls, patches))))
        update = update.unflatten(0, (len(patches), patches.shape[2]))
        return update[:, :, 0].mean(dim=1, keepdim=True), update[:, :, 1:].transpose(1, 2)

    def class_attention(self, tokens: Tensor, num_frames: int) -> Tensor:
        """How much the class token reads of each patch of each frame, mean over heads.

        tokens: (n, 1 + P * L, d), this block's input -> (n, L, P); what it reads of itself is missing from the sums.
        """
        cls, patches = tokens[:, :1], tokens[:, 1:].unflatten(1, (-1, num_frames))
        patches = patches + self._over_time(patches)
        weights = self.attn.weights(self.norm1(self._frames_of(cls, patches)))  # (n * L, h, 1 + P, 1 + P)
        return weights[:, :, 0, 1:].mean(dim=1).unflatten(0, (len(tokens), num_frames))

    @staticmethod
    def _frames_of(cls: Tensor, patches: Tensor) -> Tensor:
        """Each frame's patches behind the shared class token. (n, 1, d), (n, P, L, d) -> (n * L, 1 + P, d)."""
        shared = cls.unsqueeze(1).expand(-1, patches.shape[2], -1, -1)
        return torch.cat([shared, patches.transpose(1, 2)], dim=2).flatten(0, 1)


class TimeSformer(nn.Module):
    """Frames to tokens; with `num_classes`, also the linear head on the class token."""

    def __init__(self, config: TimeSformerConfig, *, num_classes: int | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = PatchEmbed(config.patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.num_patches, width))
        self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, width))
        drop_paths = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio, drop_path) for drop_path in drop_paths)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = None if num_classes is None else nn.Linear(width, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The released initialisation: temporal_fc is zero, so at first an image ViT sees each frame."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.zeros_(self.time_embed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.zeros_(block.temporal_fc.weight)

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (n, L, 3, H, W), normalised -> (n, 1 + P * L, d): class token, then token 1 + p * L + t."""
        tokens = self.embed(frames)
        for block in self.blocks:
            if self.config.gradient_checkpointing and self.training:
                tokens = checkpoint(block, tokens, self.config.num_frames, use_reentrant=False)
            else:
                tokens = block(tokens, self.config.num_frames)
        return self.norm(tokens)

    def look(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, and where the class token of the last block looks.

        frames: (n, L, 3, H, W), normalised -> (n, 1 + P * L, d), those of `forward`, and (n, L, P).
        """
        tokens, num_frames = self.embed(frames), self.config.num_frames
        for block in self.blocks[:-1]:
            tokens = block(tokens, num_frames)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return self.norm(last(tokens, num_frames)), last.class_attention(tokens, num_frames)

    def classify(self, frames: Tensor) -> Tensor:
        """frames: (n, L, 3, H, W) -> logits (n, num_classes), from the class token."""
        if self.head is None:
            raise ValueError("this TimeSformer has no head: build it with num_classes")
        return self.head(self(frames)[:, 0])

    def embed(self, frames: Tensor) -> Tensor:
        """Patches with their positions in space and time. frames: (n, L, 3, H, W) -> (n, 1 + P * L, d)."""
        size, num_frames = self.config.image_size, self.config.num_frames
        if frames.ndim != 5 or frames.shape[1:] != (num_frames, 3, size, size):
            raise ValueError(f"frames have shape {tuple(frames.shape)}: expected (n, {num_frames}, 3, {size}, {size})")
        patches = self.patch_embed(frames.flatten(0, 1)) + self.pos_embed[:, 1:]
        patches = patches.unflatten(0, (-1, num_frames)).transpose(1, 2)  # (n, P, L, d)
        patches = (patches + self.time_embed).flatten(1, 2)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(frames), -1, -1)
        return torch.cat([cls, patches], dim=1)


def pool_frames(tokens: Tensor, num_frames: int, mode: FramePool = "patch_mean") -> Tensor:
    """One vector per frame from the encoder's output tokens.

    `patch_mean` averages the patches of each frame. `msqnet_bins` repeats what MSQNet's code does to
    space-major tokens (adaptive average pooling to L outputs): L spatial bins, each averaged over all frames.

    Args:
        tokens: (n, 1 + P * L, d), as TimeSformer returns them.
        num_frames: L.
        mode: how to pool.

    Returns:
        (n, L, d).
    """
    patches = tokens[:, 1:]
    if num_frames < 1 or patches.shape[1] == 0 or patches.shape[1] % num_frames:
        raise ValueError(f"{tokens.shape[1]} tokens are not 1 + P * {num_frames} for any number of patches P")
    if mode == "patch_mean":
        return patches.unflatten(1, (-1, num_frames)).mean(dim=1)
    if mode == "msqnet_bins":
        return F.adaptive_avg_pool1d(patches.transpose(1, 2), num_frames).transpose(1, 2)
    raise ValueError(f"frame pool {mode!r} is unknown: use 'patch_mean' or 'msqnet_bins'")
