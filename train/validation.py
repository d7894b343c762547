"""The one number that chooses the best checkpoint: Acc@1 of a single-label task, macro mAP of a multi-label one.

The decision to question: a clip whose best score several classes share counts by chance, as in evaluation. With
`argmax` a collapsed epoch would be right wherever the target is the first class, and could be chosen for that.
"""

import numpy as np
import numpy.typing as npt

from cache.manifest import TaskKind

SCORE_NAMES = {"single": "acc1", "multi": "map_macro"}


def score(
    kind: TaskKind, logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64] | npt.NDArray[np.uint8]
) -> float:
    """Acc@1 or macro mAP, between 0 and 1.

    Args:
        kind: "single" or "multi".
        logits: (n, C).
        targets: (n,) class indices, or (n, C) of 0 and 1; classes without a positive are left out of the mean,
            and there must be another.
    """
    if kind == "single":
        is_best = logits == logits.max(axis=1, keepdims=True)
        return float(np.mean(is_best[np.arange(len(targets)), targets] / is_best.sum(axis=1)))
    from sklearn.metrics import average_precision_score  # a second of import that single-label runs don't pay

    present = targets.any(axis=0)
    return float(average_precision_score(targets[:, present], logits[:, present].astype(np.float64), average="macro"))
