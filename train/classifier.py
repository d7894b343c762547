"""From class queries to logits: a light Q-Former and one linear classifier per class (CMDCL, Eq. 9).

Light, because the published 210 M parameters leave room for one decoder layer of width 512 and none for BLIP-2's
twelve. The class dependence of Eq. 9 is a dot product per class, not a C x C matrix: permuting the classes
permutes the logits.

Axis letters: n batch, C classes, s keys (frames or classes), D joint width.
"""

import torch
from torch import Tensor, nn

from train.layers import CrossAttention, FeedForward, SelfAttention


class QFormerLayer(nn.Module):
    """Self-attention over queries, cross-attention to the keys, feed-forward; normalised after each sum."""

    def __init__(self, dim: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(dim, heads, dropout=dropout)
        self.cross_attention = CrossAttention(dim, heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """queries: (n, C, D), memory: (n, s, D) -> (n, C, D)."""
        queries = self.norms[0](queries + self.dropout(self.self_attention(queries)))
        queries = self.norms[1](queries + self.dropout(self.cross_attention(queries, memory)))
        return self.norms[2](queries + self.dropout(self.feed_forward(queries)))


class LightQFormer(nn.Module):
    """Q of Eq. 9: class queries read the visual side."""

    def __init__(self, dim: int, *, layers: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            QFormerLayer(dim, heads=heads, hidden=hidden, dropout=dropout) for _ in range(layers)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """queries: (n, C, D), memory: (n, s, D) -> Z (n, C, D)."""
        for layer in self.layers:
            queries = layer(queries, memory)
        return queries


class GroupWiseLinear(nn.Module):
    """One weight vector and one bias per class: logit_c = W_c . Z_c + b_c (Eq. 9)."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        bound = dim**-0.5
        self.weight = nn.Parameter(torch.empty(num_classes, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_classes).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """features: (n, C, D) -> logits (n, C)."""
        return (features * self.weight).sum(dim=-1) + self.bias


class ClassDecoder(nn.Module):
    """Q-Former and per-class linear: what class queries read from the visual side becomes logits (Eq. 9)."""

    def __init__(self, num_classes: int, dim: int, *, layers: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.qformer = LightQFormer(dim, layers=layers, heads=heads, hidden=hidden, dropout=dropout)
        self.classifier = GroupWiseLinear(num_classes, dim)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """queries: (n, C, D), memory: (n, s, D) -> logits (n, C)."""
        return self.classifier(self.qformer(queries, memory))
