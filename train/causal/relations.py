"""Relation layers R with K bases, of PCMCI: over classes in ICI, over frames (as F) in IVC.

Only a summary of the paper was available. It names K = 8 bases, each a graph of pairwise interactions, and an operator
that aggregates them; the graph as a row softmax of scaled products and the three aggregations are our readings. The
default, `concat`, is multi-head attention over labels. Graphs are never held in training (n * K * C * C numbers, 300 MB
at 778 classes and 16 videos): `graphs` computes them again for whoever looks at them.

Axis letters: n batch, s tokens (classes or frames), D joint width, K bases.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.layers import FeedForward, attention_map, check_heads, merge_heads, split_heads

Aggregation = Literal["concat", "sum", "hadamard"]


class RelationLayer(nn.Module):
    """R(X) = X + W_O I, where I joins what the K graphs G_k gather from LN(X); W_O starts at zero, so R(X) = X.

    `concat` gives each basis D / K coordinates of I; `sum` gives each basis values of full width and adds them;
    `hadamard` multiplies the graphs, normalises the product by row again and gathers values of full width once.
    """

    def __init__(self, dim: int, bases: int, *, aggregation: Aggregation, prior: bool, feed_forward: bool) -> None:
        """Build the layer.

        Args:
            dim: D.
            bases: K; must divide D.
            aggregation: how the bases are joined.
            prior: learn how much each basis counts; uniform at first, which changes nothing.
            feed_forward: add a feed-forward layer after the relations.

        Raises:
            ValueError: K does not divide D, or an unknown aggregation.
        """
        super().__init__()
        check_heads(dim, bases)
        if aggregation not in get_args(Aggregation):
            raise ValueError(f"aggregation {aggregation!r} is unknown: use one of {get_args(Aggregation)}")
        self.bases = bases
        self.aggregation = aggregation
        self.norm = nn.LayerNorm(dim)
        self.query_key = nn.Linear(dim, 2 * dim)
        self.value = nn.Linear(dim, bases * dim if aggregation == "sum" else dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)
        self.prior = nn.Parameter(torch.zeros(bases)) if prior else None
        self.feed_forward_norm = nn.LayerNorm(dim) if feed_forward else None
        self.feed_forward = FeedForward(dim, 4 * dim) if feed_forward else None

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (n, s, D) -> (n, s, D)."""
        tokens = tokens + self.proj(self._gather(self.norm(tokens)))
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            tokens = tokens + self.feed_forward(self.feed_forward_norm(tokens))
        return tokens

    def graphs(self, tokens: Tensor) -> Tensor:
        """The K graphs G_k over the layer's input. tokens: (n, s, D) -> (n, K, s, s), rows sum to 1, fp32."""
        return attention_map(*self._queries_and_keys(self.norm(tokens)))

    def _gather(self, normed: Tensor) -> Tensor:
        """I, the joined bases. normed: (n, s, D) -> (n, s, D)."""
        queries, keys = self._queries_and_keys(normed)
        values = self.value(normed)
        if self.aggregation == "hadamard":
            # log(prod_k G_k) is the sum of the K score matrices up to a constant per row, which the softmax drops:
            # one attention of full width with the scale of one basis.
            queries, keys = merge_heads(self._weighted(queries)), merge_heads(keys)
            return F.scaled_dot_product_attention(queries, keys, values, scale=(values.shape[-1] // self.bases) ** -0.5)
        values = self._weighted(split_heads(values, self.bases))
        gathered = F.scaled_dot_product_attention(queries, keys, values)
        return gathered.sum(dim=1) if self.aggregation == "sum" else merge_heads(gathered)

    def _queries_and_keys(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Two of (n, K, s, D / K)."""
        queries, keys = self.query_key(normed).chunk(2, dim=-1)
        return split_heads(queries, self.bases), split_heads(keys, self.bases)

    def _weighted(self, per_basis: Tensor) -> Tensor:
        """Each basis times K alpha_k, alpha the softmax of the prior. per_basis: (n, K, s, any) -> same."""
        if self.prior is None:
            return per_basis
        return per_basis * (self.bases * self.prior.float().softmax(dim=0)).to(per_basis.dtype)[:, None, None]


class Relations(nn.Module):
    """A stack of relation layers; over classes it is PCMCI's ICI, T* = R(T')."""

    def __init__(self, layers: Iterable[RelationLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (n, s, D) -> (n, s, D)."""
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

    def graphs(self, tokens: Tensor) -> Tensor:
        """Graphs of the last layer, when the stack reads `tokens`: (n, s, D) -> (n, K, s, s)."""
        for layer in self.layers[:-1]:
            tokens = layer(tokens)
        last = self.layers[-1]
        assert isinstance(last, RelationLayer)
        return last.graphs(tokens)
