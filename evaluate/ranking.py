"""The scores of C classes, sorted once: average precision of any weighting of the clips without sorting again.

A bootstrap asks for the same ranking a thousand times under other weights. Sorted once, a weighting costs a running
sum over the ranking; and for many weightings the sums become one matrix product: row p counts how often each clip
stands at or before positive p, and times the weights of all resamples that is p's rank on each of them. Counts and
weights are whole numbers, exact in float32 as long as no rank reaches 2^24. Either way the result is scikit-learn's to
the last bits (`deconfound bench evaluate`). Ties are safe: all clips of one score enter together, as in scikit-learn,
so that the order of the rows cannot change a number.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Scores = npt.NDArray[np.floating[Any]]
Targets = npt.NDArray[np.integer[Any]]
Indices = npt.NDArray[np.int64]

_BLOCK = 4_000_000  # scores sorted at once: bounds the memory, not the result
_ROWS = 256  # positives in one product
_CELLS = 8_000_000  # positives x weightings held at once
_EXACT = 2**24  # whole numbers below are exact in float32
_NANOSECONDS = {"running sum": 6.0, "count": 2.0, "product": 0.04}  # per ranked entry; per cell, made and multiplied


class RankedScores:
    """The scores of C classes sorted once, for average precision under any weights of the n clips.

    Args:
        scores: (n, C), finite; larger means more likely.
        targets: (n, C) of 0 and 1.
        pooled: all n x C decisions make one ranking, of one class, in which each clip has C entries.

    Raises:
        ValueError: the shapes differ, a score is NaN or infinite, a target is neither 0 nor 1.
    """

    def __init__(self, scores: Scores, targets: Targets, *, pooled: bool = False) -> None:
        check_multi(scores, targets)
        self.num_clips = len(scores)
        entries_per_clip = scores.shape[1] if pooled else 1
        if pooled:
            scores, targets = scores.reshape(-1, 1), targets.reshape(-1, 1)
        num_entries, self.num_classes = scores.shape
        width = max(1, _BLOCK // max(1, num_entries))
        blocks = [
            _rank(scores[:, start : start + width], targets[:, start : start + width])
            for start in range(0, self.num_classes, width)
        ]
        self._ranked_clips = np.concatenate([order for order, _, _ in blocks]) // entries_per_clip  # (C, m) best first
        starts = np.arange(len(blocks)) * width
        self._column = np.concatenate(
            [column + start for (_, (column, _), _), start in zip(blocks, starts, strict=True)]
        )
        self._tie_end = np.concatenate([tie_end for _, (_, tie_end), _ in blocks])
        self._clip = np.concatenate([entry for _, _, entry in blocks]) // entries_per_clip
        # Of each positive: the last positive of the same class and the same score, as an index into the positives.
        key = self._column * num_entries + self._tie_end
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
            ranked = np.cumsum(weights[self._ranked_clips], axis=1)[self._column, self._tie_end]
        total = np.concatenate([[0.0], np.cumsum(weight)])
        true_positives = total[self._last + 1] - total[self._first]
        precision = np.divide(true_positives, ranked, out=np.zeros_like(ranked), where=ranked > 0)
        return _ratio(self._by_class(weight * precision), self._by_class(weight))

    def _by_class(self, values: Floats) -> Floats:
        """(C,) sums over the positives of each class."""
        return np.bincount(self._column, weights=values, minlength=self.num_classes).astype(np.float64)

    def average_precisions(self, weights: Floats) -> Floats:
        """The same under many weightings, by whichever of the two equal ways is cheaper for these sizes.

        Args:
            weights: (B, n).

        Returns:
            (B, C).
        """
        if not self._is_product_cheaper(len(weights)):
            return np.array([self.average_precision(row) for row in weights]).reshape(-1, self.num_classes)
        width = max(1, _CELLS // max(1, len(self._clip)))
        parts = [self._by_products(weights[start : start + width]) for start in range(0, len(weights), width)]
        return np.concatenate(parts)

    def endless_precision(self) -> Floats:
        """Average precision of every class, estimated for endless clips like these.

        On n clips each positive counts towards the precision at its own rank, so that the plain average is too high, by
        much where positives are few. Here a positive is judged by the other clips alone, with the other positives
        weighted up to the share that all of them had; the one that leads a ranking alone by those down to the next
        positive. A class of one positive has 0: nothing is known about other positives.

        Returns:
            (C,) float64; NaN where a class has no positive.
        """
        positives = self._by_class(np.ones(len(self._column)))
        hits = (self._last - self._first).astype(np.float64)  # other positives at or before each
        misses = self._tie_end - hits
        leads = np.flatnonzero(hits + misses == 0)
        following = np.minimum(leads + 1, len(hits) - 1)
        hits[leads], misses[leads] = hits[following], misses[following]
        others = positives[self._column] - 1
        hits *= np.divide(others + 1, others, out=np.zeros_like(others), where=others > 0)
        total = hits + misses
        precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
        return _ratio(self._by_class(precision), positives)

    def _is_product_cheaper(self, num_weightings: int) -> bool:
        cost = _NANOSECONDS
        product = len(self._clip) * self.num_clips * (cost["count"] + num_weightings * cost["product"])
        return product < num_weightings * self._ranked_clips.size * cost["running sum"]

    def _by_products(self, weights: Floats) -> Floats:
        columns = np.ascontiguousarray(weights.T, dtype=self._exact_type(weights))  # (n, B)
        gained, positives = np.zeros((2, self.num_classes, len(weights)))
        bounds = np.searchsorted(self._column, np.arange(self.num_classes + 1))
        for column in np.unique(self._column).tolist():
            start, stop = bounds[column : column + 2]
            weight = columns[self._clip[start:stop]]  # (positives, B)
            hits = np.cumsum(weight, axis=0)[self._last[start:stop] - start]
            for rows, counts in self._counts(column, self._tie_end[start:stop], columns.dtype):
                ranked = (counts @ columns).astype(np.float64)
                precision = np.divide(hits[rows], ranked, out=np.zeros_like(ranked), where=ranked > 0)
                gained[column] += (precision * weight[rows]).sum(axis=0)
            positives[column] = weight.sum(axis=0)
        return _ratio(gained, positives).T

    def _exact_type(self, weights: Floats) -> type[np.floating[Any]]:
        entries_per_clip = self._ranked_clips.shape[1] // self.num_clips
        reach = entries_per_clip * weights.sum(axis=1).max()
        return np.float32 if reach < _EXACT and not np.any(weights % 1) else np.float64

    def _counts(
        self, column: int, ends: Indices, kind: np.dtype[np.floating[Any]]
    ) -> Iterator[tuple[slice, npt.NDArray[np.floating[Any]]]]:
        """Blocks of rows of (positives, n): entries of each clip at or before the positive; `ends` are their ranks."""
        before = np.zeros(self.num_clips, dtype=kind)
        done = 0
        for start in range(0, len(ends), _ROWS):
            rows = slice(start, min(start + _ROWS, len(ends)))
            stop = int(ends[rows][-1]) + 1
            row = np.searchsorted(ends[rows], np.arange(done, stop))
            cells = row * self.num_clips + self._ranked_clips[column, done:stop]
            counts = np.bincount(cells, minlength=(rows.stop - rows.start) * self.num_clips).astype(kind)
            counts = counts.reshape(-1, self.num_clips)
            counts[0] += before
            np.cumsum(counts, axis=0, out=counts)
            before, done = counts[-1].copy(), stop
            yield rows, counts


def _ratio(gained: Floats, positives: Floats) -> Floats:
    return np.divide(gained, positives, out=np.full(gained.shape, np.nan), where=positives > 0)


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
