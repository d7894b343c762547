"""The learnable approximators h and g of the interventions: two vectors per class in, one out.

The papers say only "learnable approximator". The default, `residual_mlp`, starts as the identity on one of its two
inputs (last layer zero), because a learning rate of 1e-5 cannot first undo a random mapping; the modes without
residual are the literal readings.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

ApproximatorKind = Literal["residual_mlp", "mlp", "linear"]


class Approximator(nn.Module):
    """h([t, b]) of Eq. 3 and g([t', v]) of Eq. 8 (CMDCL)."""

    def __init__(self, dim: int, kind: ApproximatorKind) -> None:
        super().__init__()
        if kind not in get_args(ApproximatorKind):
            raise ValueError(f"approximator {kind!r} is unknown: use one of {get_args(ApproximatorKind)}")
        self.has_residual = kind == "residual_mlp"
        self.mapping = nn.Linear(2 * dim, dim) if kind == "linear" else self._mlp(dim)

    def _mlp(self, dim: int) -> nn.Sequential:
        last = nn.Linear(dim, dim)
        if self.has_residual:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        return nn.Sequential(nn.LayerNorm(2 * dim), nn.Linear(2 * dim, dim), nn.GELU(), last)

    def forward(self, first: Tensor, second: Tensor, *, residual: Tensor) -> Tensor:
        """Map the concatenation of two inputs; modes without residual ignore `residual`.

        Args:
            first: (..., D), or fewer leading axes, broadcast against `second`.
            second: (..., D).
            residual: the input that the result starts from, (..., D).

        Returns:
            (..., D).
        """
        first, second = torch.broadcast_tensors(first, second)
        mapped = self.mapping(torch.cat([first, second], dim=-1))
        return residual + mapped if self.has_residual else mapped
