"""The layers every trained model is made of: attention, feed-forward, stochastic depth.

Attention goes through torch's scaled_dot_product_attention instead of nn.MultiheadAttention, so that
parameter names stay those of the released checkpoints (`qkv`, `proj`) and cost counters see each Linear.

Axis letters here: n any batch of sequences, q queries, s sequence (keys and values), d width, h heads.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(n, s, d) -> (n, heads, s, d / heads)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """(n, heads, s, d / heads) -> (n, s, d)."""
    return tokens.transpose(1, 2).flatten(2)


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that `heads` does not divide."""
    if heads < 1 or width % heads:
        raise ValueError(f"width {width} cannot be split into {heads} heads: heads must divide the width")


def attention_map(queries: Tensor, keys: Tensor) -> Tensor:
    """The attention weights themselves, for what must look at them; fp32 also under autocast.

    Args:
        queries: (n, h, q, d / h).
        keys: (n, h, s, d / h).

    Returns:
        (n, h, q, s), rows sum to 1.
    """
    with torch.autocast(queries.device.type, enabled=False):
        scale = queries.shape[-1] ** -0.5
        return (queries.float() * scale @ keys.float().transpose(-1, -2)).softmax(dim=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (n, s, d) -> (n, s, d)."""
        queries, keys, values = (split_heads(part, self.heads) for part in self.qkv(tokens).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return self.proj(merge_heads(mixed))

    def weights(self, tokens: Tensor) -> Tensor:
        """What each token reads, without dropout. tokens: (n, s, d) -> (n, h, s, s), rows sum to 1."""
        queries, keys, _ = (split_heads(part, self.heads) for part in self.qkv(tokens).chunk(3, dim=-1))
        return attention_map(queries, keys)


class CrossAttention(nn.Module):
    """Multi-head attention of queries over another sequence."""

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """queries: (n, q, d), memory: (n, s, d) -> (n, q, d)."""
        keys, values = (split_heads(part, self.heads) for part in self.key_value(memory).chunk(2, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            split_heads(self.query(queries), self.heads), keys, values, dropout_p=dropout
        )
        return self.proj(merge_heads(mixed))

    def weights(self, queries: Tensor, memory: Tensor) -> Tensor:
        """What each query reads, without dropout. (n, q, d) and (n, s, d) -> (n, h, q, s), rows sum to 1."""
        keys, _ = self.key_value(memory).chunk(2, dim=-1)
        return attention_map(split_heads(self.query(queries), self.heads), split_heads(keys, self.heads))


class FeedForward(nn.Module):
    """Linear, GELU (erf), Linear."""

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (..., d) -> (..., d)."""
        return self.fc2(self.dropout(F.gelu(self.fc1(tokens))))


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole rows of axis 0 and rescales the rest."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"drop path probability is {probability}: it must lie in [0, 1)")
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """branch: (n, ...) -> (n, ...)."""
        if not self.training or self.probability == 0.0:
            return branch
        kept = 1.0 - self.probability
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        mask = torch.empty(shape, dtype=branch.dtype, device=branch.device).bernoulli_(kept)
        return branch * (mask / kept)
