"""What one layer costs: parameters and multiply-accumulates, as formulas of sizes.

Formulas, and not a run of the model under a profiler, because a count must need neither weights nor time; tests hold
them against torch's own counter on the real modules. Element-wise products, softmaxes, norms and Sinkhorn's iterations
count as nothing, as in every published figure.
"""

from dataclasses import dataclass, fields, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters and multiply-accumulates (MACs) of something; costs add up."""

    params: int = 0
    """All parameters."""
    trainable: int = 0
    """Those of them that training changes."""
    linear: int = 0
    """MACs with learned matrices: linear layers and convolutions."""
    attention: int = 0
    """MACs between activations: queries with keys, weights with values, features with features."""
    unseen: int = 0
    """Parameters that a counter hooked to modules misses: bare ones, and all inside nn.MultiheadAttention."""

    @property
    def with_attention(self) -> int:
        """MACs of both kinds."""
        return self.linear + self.attention

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{entry.name: getattr(self, entry.name) + getattr(other, entry.name) for entry in fields(Cost)})

    def repeated(self, runs: int) -> Self:
        """The same weights used `runs` times."""
        return replace(self, linear=runs * self.linear, attention=runs * self.attention)

    def stacked(self, layers: int) -> "Cost":
        """Several layers of this kind, each with weights of its own."""
        return Cost(**{entry.name: layers * getattr(self, entry.name) for entry in fields(Cost)})

    def frozen(self) -> Self:
        """The same, not trained."""
        return replace(self, trainable=0)

    def weights(self) -> Self:
        """The parameters without the work."""
        return replace(self, linear=0, attention=0)

    def work(self) -> Self:
        """The work alone, of weights that are counted elsewhere."""
        return replace(self, params=0, trainable=0, unseen=0)


@dataclass(frozen=True)
class Part:
    """A part of a model and what it costs."""

    cost: Cost
    cached: bool = False
    """Computed once per data set: no step of training runs it."""
    note: str = ""
    """What a reader must know about the count."""


def total(*costs: Cost) -> Cost:
    """The sum of several costs, or of none."""
    return sum(costs, Cost())


def bare(params: int) -> Cost:
    """Parameters that belong to no layer, as embeddings of positions do."""
    return Cost(params=params, trainable=params, unseen=params)


def norm(width: int) -> Cost:
    """Layer normalisation: scale and shift."""
    return Cost(params=2 * width, trainable=2 * width)


def linear(inputs: int, outputs: int, *, tokens: int, bias: bool = True) -> Cost:
    """A linear layer on `tokens` vectors; a convolution with its stride as its size is one on patches."""
    params = inputs * outputs + (outputs if bias else 0)
    return Cost(params=params, trainable=params, linear=tokens * inputs * outputs)


def bare_matrix(inputs: int, outputs: int, *, tokens: int) -> Cost:
    """A learned matrix that is no layer, as CLIP's projections are."""
    return replace(linear(inputs, outputs, tokens=tokens, bias=False), unseen=inputs * outputs)


def products(rows: int, columns: int, width: int) -> Cost:
    """A matrix product of activations, (rows, width) with (width, columns), in any number of heads."""
    return Cost(attention=rows * columns * width)


def attention(queries: int, keys: int, width: int, *, unseen: bool = False) -> Cost:
    """Multi-head attention of `queries` over `keys` tokens, with its four projections.

    Args:
        queries: tokens that ask.
        keys: tokens that are asked.
        width: of both.
        unseen: count the weights as unseen, where the papers' code would use nn.MultiheadAttention.
    """
    asking, asked = linear(width, width, tokens=queries), linear(width, width, tokens=keys)
    cost = total(asking.stacked(2), asked.stacked(2), products(queries, keys, width).stacked(2))
    return replace(cost, unseen=cost.params) if unseen else cost


def feed_forward(width: int, hidden: int, *, tokens: int) -> Cost:
    """Linear, activation, Linear."""
    return linear(width, hidden, tokens=tokens) + linear(hidden, width, tokens=tokens)
