"""The scores of C classes, sorted once: average precision of any weighting of the clips without sorting again.

A bootstrap asks for the same ranking a thousand times under other weights; sorting once makes it some 100 times as fast
as a loop over scikit-learn on every resample (`deconfound bench evaluate`), with the same result to the last bits. Ties
are safe: all clips of one score enter together, as in scikit-learn, so that the order of the rows cannot change a
number.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating[Any]]
Targets = npt.NDArray[np.integer[Any]]
Indices = npt.NDArray[np.int64]

_BLOCK = 4_000_000  # scores sorted at once: bounds the memory, not the result


class RankedScores:
    """The scores of C classes sorted once, for average precision under any weights of the n clips.

    Args:
        scores: (n, C), finite; larger means more likely.
        targets: (n, C) of 0 and 1.

    Raises:
        ValueError: the shapes differ, a score is NaN or infinite, a target is neither 0 nor 1.
    """

    def __init__(self, scores: Scores, targets: Targets) -> None:
        check_multi(scores, targets)
        self.num_clips, self.num_classes = scores.shape
        width = max(1, _BLOCK // max(1, self.num_clips))
        blocks = [
            _rank(scores[:, start : start + width], targets[:, start : start + width])
            for start in range(0, self.num_classes, width)
        ]
        self._order = np.concatenate([order for order, _, _ in blocks])  # (C, n) clips, best first
        starts = np.arange(len(blocks)) * width
        self._column = np.concatenate(
            [column + start for (_, (column, _), _), start in zip(blocks, starts, strict=True)]
        )
        self._tie_end = np.concatenate([tie_end for _, (_, tie_end), _ in blocks])
        self._clip = np.concatenate([clip for _, _, clip in blocks])
        # Of each positive: the last positive of the same class and the same score, as an index into the positives.
        key = self._column * self.num_clips + self._tie_end
        self._last = np.searchsorted(key, key, side="right") - 1
        self._first = np.searchsorted(self._column, self._column, side="left")

    def average_precision(self, weights: Floats | None = None) -> Floats:
        """Average precision of every class: sum over thresholds of (recall gained) x precision.

        Args:
            weights: (n,) how often each clip counts; None for once each.

        Returns:
            (C,) float64 in [0, 1]; NaN where a class has no positive of positive weight.
        """
        if weights is None:
            weight = np.ones(len(self._clip))
            ranked = (self._tie_end + 1).astype(np.float64)
        else:
            weight = weights[self._clip]
            ranked = np.cumsum(weights[self._order], axis=1)[self._column, self._tie_end]
        total = np.concatenate([[0.0], np.cumsum(weight)])
        true_positives = total[self._last + 1] - total[self._first]
        precision = np.divide(true_positives, ranked, out=np.zeros_like(ranked), where=ranked > 0)
        gained = np.bincount(self._column, weights=weight * precision, minlength=self.num_classes)
        positives = np.bincount(self._column, weights=weight, minlength=self.num_classes)
        return np.divide(gained, positives, out=np.full(self.num_classes, np.nan), where=positives > 0)


def _rank(
    scores: Scores, targets: Targets
) -> tuple[npt.NDArray[np.int32], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.int32]]:
    columns = np.ascontiguousarray(scores.T)
    order = np.argsort(-columns, axis=1, kind="stable").astype(np.int32)  # (C, n)
    ranked = np.take_along_axis(columns, order, axis=1)
    n = scores.shape[0]
    is_end = np.ones(ranked.shape, dtype=bool)
    is_end[:, :-1] = ranked[:, :-1] != ranked[:, 1:]
    ends = np.where(is_end, np.arange(n, dtype=np.int32), np.int32(n))
    tie_end = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    column, rank = np.nonzero(np.take_along_axis(targets.T, order, axis=1))
    return order, (column, tie_end[column, rank].astype(np.int64)), order[column, rank]


def check_scores(scores: Scores) -> None:
    """ValueError unless the scores are (n, C), not empty and finite."""
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores must be (n, C) with at least one clip and one class, got {scores.shape}")
    if not np.isfinite(scores).all():
        bad = int(np.count_nonzero(~np.isfinite(scores).all(axis=1)))
        raise ValueError(f"{bad} of {len(scores)} clips have NaN or infinite scores: a metric of them means nothing")


def check_multi(scores: Scores, targets: Targets) -> None:
    """ValueError unless scores (n, C) are finite and targets (n, C) hold 0 and 1."""
    check_scores(scores)
    if targets.shape != scores.shape:
        raise ValueError(f"targets have shape {targets.shape}, scores (n, C) = {scores.shape}")
    if not np.isin(targets, (0, 1)).all():
        raise ValueError("targets of a multi-label task must be 0 or 1")
