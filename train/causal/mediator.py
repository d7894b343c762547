"""Mediators M of PCMCI's front door (IVC): the text itself, or what the text reads from a visual source.

The summary names an ablation over mediators and prints none. Our readings keep the read alone, without adding the
text to it: a mediator that still held the text could not tell a visual mediator from the textual one. Queries are
layer-normalised, since vectors of length 1 would attend to everything alike.

Axis letters: n batch, L frames used, C classes, D joint width.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.layers import CrossAttention

MediatorKind = Literal["text", "memory", "multiscale"]
SCALES = (1, 2, 4)
"""Frames per token of each level that `multiscale` reads."""


def frame_pyramid(visual: Tensor) -> Tensor:
    """Frame features averaged over neighbours at every scale, one level after the other; a last window may be short.

    Args:
        visual: (n, L, D).

    Returns:
        (n, L + ceil(L / 2) + ceil(L / 4), D).
    """
    over_time = visual.transpose(1, 2)
    return torch.cat([F.avg_pool1d(over_time, scale, ceil_mode=True) for scale in SCALES], dim=2).transpose(1, 2)


class Mediator(nn.Module):
    """M from the text state and the frame features.

    `text` is the text state. `memory` is what it reads, by attention, from a learnable bank; entries start as large as
    layer-normalised tokens. `multiscale` is what it reads from the frames at scales 1, 2 and 4.
    """

    def __init__(self, dim: int, kind: MediatorKind, *, heads: int, memory_size: int) -> None:
        super().__init__()
        if kind not in get_args(MediatorKind):
            raise ValueError(f"mediator {kind!r} is unknown: use one of {get_args(MediatorKind)}")
        self.bank = nn.Parameter(torch.randn(memory_size, dim)) if kind == "memory" else None
        self.norm = None if kind == "text" else nn.LayerNorm(dim)
        self.read = None if kind == "text" else CrossAttention(dim, heads)

    def forward(self, text: Tensor, visual: Tensor) -> Tensor:
        """text: (n, C, D), visual: (n, L, D) -> (n, C, D)."""
        if self.norm is None or self.read is None:
            return text
        source = frame_pyramid(visual) if self.bank is None else self.bank.expand(len(text), -1, -1)
        return self.read(self.norm(text), source)
