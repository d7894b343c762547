"""Entropic optimal transport between the classes and the frames of one video (Sinkhorn), for PCMCI's ICH.

Every class sends mass 1/C and every frame takes 1/L, so unlike a softmax per class the plan cannot give all classes
the one frame that looks like everything. The last half-step is the one over rows: a plan that has not converged still
gives each class a convex combination of frames. Iterations stop for each video by itself, so that its plan does not
depend on the videos it shares a batch with.

Axis letters: n batch, C classes, L frames used.
"""

import functools
import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_LARGEST_ERROR = 0.01  # of a column's mass, that passes without a warning


@dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """Entropic optimal transport between classes and frames (ICH)."""

    eps: float = 0.01
    """Entropic regularisation. Chosen: at 0.1 plans of one video's CLIP features are nearly uniform."""
    iters: int = 50
    """Most Sinkhorn iterations."""
    tolerance: float = 1e-5
    """Iterations stop when the largest error of a marginal is below this."""
    grad: bool = False
    """Differentiate through the plan. Chosen: no; T still learns through the additive path."""

    def __post_init__(self) -> None:
        if not self.eps > 0 or not self.tolerance > 0:
            raise ValueError(f"eps = {self.eps} and tolerance = {self.tolerance} must be positive")
        if self.iters < 1:
            raise ValueError(f"iters = {self.iters}: it must be at least 1")


def transport_plan(similarity: Tensor, *, eps: float, iters: int, tolerance: float) -> Tensor:
    """The plan of least cost 1 - similarity under uniform marginals and entropic regularisation (Cuturi, 2013).

    Iterates on logarithms, so that no eps underflows.

    Args:
        similarity: (n, C, L), cosines.
        eps: weight of the entropy.
        iters: most iterations.
        tolerance: a video is done when no column sum is further than this from 1/L; rows are exact.

    Returns:
        (n, C, L) in the precision of `similarity` but at least fp32, also under autocast; rows sum to 1/C.
    """
    with torch.autocast(similarity.device.type, enabled=False):
        kernel = (similarity.to(torch.promote_types(similarity.dtype, torch.float32)) - 1) / eps
        row_mass, column_mass = 1 / similarity.shape[1], 1 / similarity.shape[2]
        rows = torch.zeros_like(kernel[:, :, :1])  # f (n, C, 1)
        columns = torch.zeros_like(kernel[:, :1])  # g (n, 1, L)
        unfinished = torch.ones_like(kernel[:, :1, :1], dtype=torch.bool)
        column_sums = kernel.logsumexp(dim=1, keepdim=True)  # log of what columns sum to, but for g
        for _ in range(iters):
            columns = torch.where(unfinished, math.log(column_mass) - column_sums, columns)
            row_sums = (kernel + columns).logsumexp(dim=2, keepdim=True)
            rows = torch.where(unfinished, math.log(row_mass) - row_sums, rows)
            column_sums = (kernel + rows).logsumexp(dim=1, keepdim=True)
            error = ((columns + column_sums).exp() - column_mass).abs()
            unfinished = error.amax(dim=2, keepdim=True) > tolerance
            if not unfinished.any():
                break
        else:
            if error.amax() > _LARGEST_ERROR * column_mass:
                _warn_of_unfinished(iters, eps)
        return row_mass * (kernel + columns).softmax(dim=2)  # the last rows, without their rounding


@functools.cache
def _warn_of_unfinished(iters: int, eps: float) -> None:
    """Once for a setting: rows of the plan are exact, columns are not yet."""
    logger.warning(
        "transport plans have not converged after %d iterations at eps %g: frames do not weigh the same; raise "
        "train.pcmci.transport.iters, or eps",
        iters,
        eps,
    )
