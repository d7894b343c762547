"""PeVL's three encoders: frozen CLIP blocks with small trainable adapters between their parts (Table 4, section 3.2).

    x += T( attention over time(LN1 x) )       temporal adapter: pose, and video if asked for
    x += S( attention over space(LN1 x) )      spatial adapter, with a skip of its own: S(a) = a + W2 GELU(W1 a)
    x += MLP(LN2 x) + scale * A(LN2 x)         adapter beside the feed-forward layer

This is AIM (Yang et al., ICLR 2023). Time and space share one frozen attention. W2 starts at zero, so an encoder
without the temporal step starts as CLIP itself, number for number. Without adapters, the step over time stays and is
added as it is.

The tower is an argument of `forward` and no part of the encoder: video and pose share it, a model's state holds it
once, and an encoder's parameters are those that are trained.

Axis letters: n batch, L video frames, T pose frames, J joints, P patches, m texts, N_t text positions, d tower width.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.encoders.clip_tower import Block, ClipShape, Heads, ImageTower, TextTower
from train.encoders.joint_tokens import HeatmapTokens, JointTokens
from train.layers import DropPath


class Adapter(nn.Module):
    """W2 GELU(W1 x) through a bottleneck; zero at first."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = max(1, round(width * ratio))
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (..., d) -> (..., d)."""
        return self.up(F.gelu(self.down(tokens)))


class BlockAdapters(nn.Module):
    """The adapters of one block, and what each adds to the tokens."""

    def __init__(self, width: int, ratio: float, *, temporal: bool, mlp_scale: float, drop_path: float) -> None:
        super().__init__()
        self.temporal = Adapter(width, ratio) if temporal else None
        self.spatial = Adapter(width, ratio)
        self.mlp = Adapter(width, ratio)
        self.mlp_scale = mlp_scale
        self.drop_path = DropPath(drop_path)

    def over_time(self, attended: Tensor) -> Tensor:
        """attended: (n, ..., d), what attention over time gave -> same."""
        if self.temporal is None:
            raise ValueError("these adapters have no temporal one: build them with temporal=True")
        return self.drop_path(self.temporal(attended))

    def over_space(self, attended: Tensor) -> Tensor:
        """attended: (n, ..., d), what attention over space gave -> same."""
        return attended + self.spatial(attended)

    def beside_mlp(self, normed: Tensor) -> Tensor:
        """normed: (n, ..., d), the feed-forward layer's input -> what is added to its output."""
        return self.drop_path(self.mlp_scale * self.mlp(normed))


class AdaptedBlocks(nn.Module):
    """The adapters of all blocks of a tower; without adapters it has no parameter and the blocks stay as they are."""

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        adapters: bool,
        ratio: float,
        mlp_scale: float,
        drop_path: float,
        temporal: bool = False,
        causal: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Build the adapters.

        Args:
            width: d.
            depth: blocks of the tower.
            adapters: False for the frozen encoder.
            ratio: bottleneck of an adapter, as a share of the width.
            mlp_scale: weight of the adapter beside the feed-forward layer.
            drop_path: of the last block; grows linearly from 0 in the first, as in AIM.
            temporal: attention over frames, before attention over space.
            causal: attention over space reads only what stands before.
            gradient_checkpointing: recompute each block in the backward pass.
        """
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.temporal = temporal
        self.causal = causal
        self.adapters = (
            nn.ModuleList(
                BlockAdapters(
                    width, ratio, temporal=temporal, mlp_scale=mlp_scale, drop_path=drop_path * i / max(depth - 1, 1)
                )
                for i in range(depth)
            )
            if adapters
            else None
        )

    def forward(self, blocks: Sequence[Block], tokens: Tensor) -> tuple[Tensor, Heads]:
        """Sends tokens through the blocks.

        Args:
            blocks: those of the frozen tower.
            tokens: (n, t, s, d): t frames of s tokens each.

        Returns:
            tokens (n, t, s, d); what the last block's attention over space was made of, with n * t sequences.
        """
        adapters = [None] * len(blocks) if self.adapters is None else list(self.adapters)
        for block, own in zip(blocks, adapters, strict=True):
            assert own is None or isinstance(own, BlockAdapters)
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                tokens, heads = checkpoint(self._through, block, own, tokens, use_reentrant=False)
            else:
                tokens, heads = self._through(block, own, tokens)
        return tokens, heads

    def _through(self, block: Block, adapters: BlockAdapters | None, tokens: Tensor) -> tuple[Tensor, Heads]:
        """One block. tokens: (n, t, s, d) -> same, and what attention over space was made of."""
        if self.temporal:
            tokens = tokens + self._over_time(block, adapters, tokens)
        update, heads = self._over_space(block, adapters, tokens)
        tokens = tokens + update
        normed = block.ln_2(tokens)
        tokens = tokens + block.mlp(normed)
        return (tokens if adapters is None else tokens + adapters.beside_mlp(normed)), heads

    def _over_time(self, block: Block, adapters: BlockAdapters | None, tokens: Tensor) -> Tensor:
        """Each token position attends to itself in the other frames. tokens: (n, t, s, d) -> same."""
        sequences = block.ln_1(tokens).transpose(1, 2)  # (n, s, t, d)
        attended = block.attn.mix(block.attn.project(sequences.flatten(0, 1)))
        attended = attended.unflatten(0, sequences.shape[:2]).transpose(1, 2)
        return attended if adapters is None else adapters.over_time(attended)

    def _over_space(self, block: Block, adapters: BlockAdapters | None, tokens: Tensor) -> tuple[Tensor, Heads]:
        """Each frame attends within itself. tokens: (n, t, s, d) -> same, and what attention was made of."""
        heads = block.attn.project(block.ln_1(tokens).flatten(0, 1))
        attended = block.attn.mix(heads, causal=self.causal).unflatten(0, tokens.shape[:2])
        return (attended if adapters is None else adapters.over_space(attended)), heads


class VideoEncoder(nn.Module):
    """Frames to tokens, before CLIP's ln_post."""

    def __init__(
        self,
        shape: ClipShape,
        *,
        num_frames: int,
        adapters: bool,
        ratio: float,
        mlp_scale: float,
        drop_path: float,
        temporal: bool,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Build what is trained of the encoder: see `AdaptedBlocks`; num_frames is L."""
        super().__init__()
        self.num_frames = num_frames
        self.blocks = AdaptedBlocks(
            shape.width,
            shape.depth,
            adapters=adapters,
            ratio=ratio,
            mlp_scale=mlp_scale,
            drop_path=drop_path,
            gradient_checkpointing=gradient_checkpointing,
            temporal=temporal,
        )
        self.time_embedding = nn.Parameter(torch.zeros(num_frames, shape.width)) if adapters else None

    def forward(self, tower: ImageTower, frames: Tensor) -> Tensor:
        """frames: (n, L, 3, S, S), normalised -> (n, L, 1 + P, d)."""
        size = tower.shape.image_size
        if frames.ndim != 5 or frames.shape[1:] != (self.num_frames, 3, size, size):
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}: expected (n, {self.num_frames}, 3, {size}, {size})"
            )
        tokens = tower.embed(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        if self.time_embedding is not None:
            tokens = tokens + self.time_embedding.unsqueeze(1)
        return self.blocks(tower.transformer.blocks, tower.ln_pre(tokens))[0]


class PoseTokens(NamedTuple):
    """What the pose encoder gives."""

    tokens: Tensor
    """(n, T, 1 + J, d), class token first, before ln_post; with heatmaps, patches in place of joints."""
    weights: Tensor | None
    """(n, T, J), w: the class token's attention to each joint in the last block, mean over heads; None with heatmaps.

    Not renormalised: what the class token keeps for itself is missing from the sum.
    """


class PoseEncoder(nn.Module):
    """Joints to tokens and joint weights; always with attention over time."""

    def __init__(
        self,
        shape: ClipShape,
        *,
        num_frames: int,
        num_joints: int,
        adapters: bool,
        ratio: float,
        mlp_scale: float,
        drop_path: float,
        pose_input: Literal["coordinates", "heatmaps"] = "coordinates",
        gradient_checkpointing: bool = False,
    ) -> None:
        """Build what is trained of the encoder: see `AdaptedBlocks`; num_frames is T, num_joints J."""
        super().__init__()
        self.num_frames, self.num_joints = num_frames, num_joints
        self.embed: JointTokens | HeatmapTokens
        if pose_input == "coordinates":
            self.embed = JointTokens(
                shape.width, num_frames=num_frames, num_joints=num_joints, image_size=shape.image_size
            )
        else:
            self.embed = HeatmapTokens(
                shape.width,
                num_frames=num_frames,
                num_joints=num_joints,
                image_size=shape.image_size,
                patch_size=shape.patch_size,
            )
        self.blocks = AdaptedBlocks(
            shape.width,
            shape.depth,
            adapters=adapters,
            ratio=ratio,
            mlp_scale=mlp_scale,
            drop_path=drop_path,
            gradient_checkpointing=gradient_checkpointing,
            temporal=True,
        )

    def forward(self, tower: ImageTower, joints: Tensor) -> PoseTokens:
        """joints: (n, T, J, 3): x and y in pixels of the view, score; a score of 0 means missing."""
        if joints.ndim != 4 or joints.shape[1:] != (self.num_frames, self.num_joints, 3):
            raise ValueError(
                f"joints have shape {tuple(joints.shape)}: expected (n, {self.num_frames}, {self.num_joints}, 3)"
            )
        embedded = tower.ln_pre(self.embed(joints, tower.class_embedding))
        tokens, heads = self.blocks(tower.transformer.blocks, embedded)
        if isinstance(self.embed, HeatmapTokens):
            return PoseTokens(tokens, None)
        return PoseTokens(tokens, heads.class_row().unflatten(0, tokens.shape[:2]))


class TextEncoder(nn.Module):
    """Token ids to word features, after CLIP's ln_final and before its projection."""

    def __init__(
        self,
        shape: ClipShape,
        *,
        adapters: bool,
        ratio: float,
        mlp_scale: float,
        drop_path: float,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Build what is trained of the encoder: see `AdaptedBlocks`."""
        super().__init__()
        self.blocks = AdaptedBlocks(
            shape.text_width,
            shape.text_depth,
            adapters=adapters,
            ratio=ratio,
            mlp_scale=mlp_scale,
            drop_path=drop_path,
            gradient_checkpointing=gradient_checkpointing,
            causal=True,
        )

    def forward(self, tower: TextTower, token_ids: Tensor) -> Tensor:
        """token_ids: (m, N_t) or cut behind the longest text -> (m, N_t, text_width)."""
        tokens = tower.embed(token_ids).unsqueeze(1)  # a text is one frame
        return tower.ln_final(self.blocks(tower.transformer.blocks, tokens)[0].squeeze(1))
