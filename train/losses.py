"""The loss of each kind of task, on raw logits.

A question a reader will ask: Eq. 9 of CMDCL prints a softmax for every task. A softmax cannot express the six or so
true actions of a multi-label video, so multi-label tasks use one sigmoid per class.
"""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from cache.manifest import TaskKind


def task_loss(kind: TaskKind, logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy for a single-label task, binary cross-entropy for a multi-label one; always fp32.

    Args:
        kind: "single" or "multi".
        logits: (n, C).
        targets: (n,) class indices for "single", (n, C) zeros and ones for "multi".

    Returns:
        A scalar: the mean over n, and for "multi" over C too.

    Raises:
        ValueError: targets of the other kind's shape, or an unknown kind.
    """
    expected = {"single": logits.shape[:1], "multi": logits.shape}
    if kind not in expected:
        raise ValueError(f"task kind {kind!r} is unknown: use 'single' or 'multi'")
    if targets.shape != expected[kind]:
        raise ValueError(
            f"a {kind}-label task with logits {tuple(logits.shape)} takes targets {tuple(expected[kind])}, "
            f"got {tuple(targets.shape)}"
        )
    if kind == "single":
        return F.cross_entropy(logits.float(), targets.long())
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float())
