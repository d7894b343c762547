"""CLIP's two towers as PeVL needs them: frozen weights under open_clip's names, and parts that adapters can enter.

Why not open_clip's own modules: adapters sit between attention and its residual, attention runs over time as well as
over space, and the last pose block must show its weights; none of that has a seam there. The numbers are the same.

Axis letters: k images, m texts, s tokens of a sequence, P patches, d width of a tower, D joint width, h heads.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.layers import attention_map, check_heads, merge_heads, split_heads


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Sizes of both towers; the text tower's defaults are those of open_clip."""

    image_size: int
    """Height and width of an image, in pixels."""
    patch_size: int
    """Side of a patch, in pixels; must divide image_size."""
    width: int
    """Token width d of the image tower."""
    depth: int
    """Blocks of the image tower."""
    heads: int
    """Attention heads of the image tower."""
    mlp_ratio: float = 4.0
    """Hidden width of the image tower's feed-forward layers, in multiples of width."""
    text_width: int = 512
    """Token width of the text tower."""
    text_depth: int = 12
    """Blocks of the text tower."""
    text_heads: int = 8
    """Attention heads of the text tower."""
    text_mlp_ratio: float = 4.0
    """Hidden width of the text tower's feed-forward layers, in multiples of text_width."""
    context_length: int = 77
    """Text positions N_t, begin and end included."""
    vocab_size: int = 49408
    """Rows of the token embedding."""
    embed_dim: int
    """Joint width D."""
    quick_gelu: bool = False
    """x * sigmoid(1.702 x) instead of GELU, in both towers: OpenAI's weights need it."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "quick_gelu" and not value > 0:
                raise ValueError(f"{name} is {value}: it must be positive")
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        check_heads(self.width, self.heads)
        check_heads(self.text_width, self.text_heads)

    @property
    def num_patches(self) -> int:
        """Patches per image, P."""
        return (self.image_size // self.patch_size) ** 2


class Heads(NamedTuple):
    """Queries, keys and values of one attention, each (k, h, s, d / h)."""

    queries: Tensor
    keys: Tensor
    values: Tensor

    def class_row(self) -> Tensor:
        """How much the first token attends to each of the others, mean over heads: (k, s - 1), fp32.

        Rows do not sum to 1: the class token's attention to itself is left out.
        """
        return attention_map(self.queries[:, :, :1], self.keys)[:, :, 0, 1:].mean(dim=1)


class Attention(nn.Module):
    """Multi-head self-attention under the names of nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, tokens: Tensor) -> Heads:
        """tokens: (k, s, d) -> what attention is made of."""
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        return Heads(*(split_heads(part, self.heads) for part in projected.chunk(3, dim=-1)))

    def mix(self, parts: Heads, *, causal: bool = False) -> Tensor:
        """Each token reads all others, or with `causal` those before it: (k, s, d)."""
        return self.out_proj(merge_heads(F.scaled_dot_product_attention(*parts, is_causal=causal)))


class FeedForward(nn.Module):
    """Linear, (Quick)GELU, Linear under CLIP's names."""

    def __init__(self, width: int, hidden: int, *, quick_gelu: bool) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.quick_gelu = quick_gelu

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (..., d) -> (..., d)."""
        hidden = self.c_fc(tokens)
        return self.c_proj(hidden * torch.sigmoid(1.702 * hidden) if self.quick_gelu else F.gelu(hidden))


class Block(nn.Module):
    """The parts of one pre-norm block; train/encoders/adapted_clip.py says how tokens pass through them."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, *, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, int(width * mlp_ratio), quick_gelu=quick_gelu)


class Transformer(nn.Module):
    """A stack of blocks, there for open_clip's names `transformer.resblocks.i`."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float, *, quick_gelu: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, mlp_ratio, quick_gelu=quick_gelu) for _ in range(depth))

    @property
    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [block for block in self.resblocks if isinstance(block, Block)]


class ImageTower(nn.Module):
    """CLIP's image tower, open_clip's `visual.`; shared by the video and the pose encoder."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        width, scale = shape.width, shape.width**-0.5
        self.shape = shape
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + shape.num_patches, width))
        self.conv1 = nn.Conv2d(3, width, kernel_size=shape.patch_size, stride=shape.patch_size, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, shape.depth, shape.heads, shape.mlp_ratio, quick_gelu=shape.quick_gelu)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, shape.embed_dim))

    def embed(self, images: Tensor) -> Tensor:
        """Class token and patches with their positions, before ln_pre. images: (k, 3, S, S) -> (k, 1 + P, d)."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        cls = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([cls, patches], dim=1) + self.positional_embedding


class TextTower(nn.Module):
    """CLIP's text tower."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        width = shape.text_width
        self.shape = shape
        self.token_embedding = nn.Embedding(shape.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(shape.context_length, width))
        self.transformer = Transformer(
            width, shape.text_depth, shape.text_heads, shape.text_mlp_ratio, quick_gelu=shape.quick_gelu
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, shape.embed_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The scales of CLIP's published initialisation."""
        width, depth = self.shape.text_width, self.shape.text_depth
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)
        for block in self.transformer.blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            for layer in (block.attn.out_proj, block.mlp.c_proj):
                nn.init.normal_(layer.weight, std=(2 * width * depth) ** -0.5)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Tokens with their positions. token_ids: (m, s) with s at most N_t -> (m, s, d)."""
        if token_ids.ndim != 2 or token_ids.shape[1] > self.shape.context_length:
            raise ValueError(
                f"token_ids have shape {tuple(token_ids.shape)}: expected (m, {self.shape.context_length}) or shorter"
            )
        return self.token_embedding(token_ids) + self.positional_embedding[: token_ids.shape[1]]


class ClipTowers(NamedTuple):
    """Both towers of one CLIP."""

    image: ImageTower
    text: TextTower
