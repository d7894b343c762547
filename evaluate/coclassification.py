"""Which actions are predicted together, beside which occur together (CMDCL, Fig. 6), from logits alone.

The paper prints the matrix and no rule. A threshold would decide how much is predicted at all, so here a clip's n
classes of highest logit count as predicted, n being how many it has: both matrices then hold equally many labels, and
what differs is which go together.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.predictions import Predictions

_MOST_CLASSES = 24
_MOST_PAIRS = 5
Counts = npt.NDArray[np.int64]


def co_classification(predictions: Predictions) -> dict[str, Any]:
    """The document's `co_classification` of one split: counts of clips for the most frequent classes.

    Args:
        predictions: of a multi-label task.

    Returns:
        {"classes": names, "num_clips", "together": (c, c) counts of clips that have both, "predicted": the same of
        predicted ones, "difference": mean over all ordered pairs of the task of how far the share of the first's clips
        that have the second too is from the share that is predicted, a class without clips left out, "pairs":
        [{"first", "second", "together", "predicted"}] that are predicted together more often than they occur
        together, the largest excess first}; pairs are sought among all classes.

    Raises:
        ValueError: the task is single-label.
    """
    if predictions.kind != "multi":
        raise ValueError(f"co-classification needs a multi-label task, and {predictions.task!r} has one label a clip")
    targets = (predictions.targets > 0).astype(np.int64)
    chosen = as_many_as_true(predictions.logits, targets)
    together, predicted = _pairs(targets), _pairs(chosen)
    frequent = np.sort(np.argsort(-np.diag(together), kind="stable")[:_MOST_CLASSES])
    names = predictions.class_names
    return {
        "classes": [names[number] for number in frequent],
        "num_clips": len(targets),
        "together": together[np.ix_(frequent, frequent)].tolist(),
        "predicted": predicted[np.ix_(frequent, frequent)].tolist(),
        "difference": _difference(together, predicted),
        "pairs": [
            {
                "first": names[first],
                "second": names[second],
                "together": int(together[first, second]),
                "predicted": int(predicted[first, second]),
            }
            for first, second in _overstated(together, predicted)
        ],
    }


def as_many_as_true(logits: npt.NDArray[np.float32], targets: Counts) -> Counts:
    """(n, C): 1 at each clip's n_i classes of highest logit, n_i being how many it has; ties go to the first class."""
    ranks = np.argsort(np.argsort(-logits, axis=1, kind="stable"), axis=1, kind="stable")
    return (ranks < targets.sum(axis=1, keepdims=True)).astype(np.int64)


def _pairs(labels: Counts) -> Counts:
    """(C, C): clips that have both. Products of floats, exact at these sizes, are a hundred times those of integers."""
    floats = labels.astype(np.float64)
    return (floats.T @ floats).astype(np.int64)


def shares(counts: Counts) -> npt.NDArray[np.float64]:
    """Rows divided by their diagonal: of the clips with the row's class, how many have the column's; 0 without any."""
    own = np.diag(counts)[:, None]
    return np.divide(counts, own, out=np.zeros(counts.shape), where=own > 0)


def _difference(together: Counts, predicted: Counts) -> float | None:
    present = np.diag(together) > 0
    pairs = present[:, None] & present & ~np.eye(len(together), dtype=bool)
    return float(np.abs(shares(predicted) - shares(together))[pairs].mean()) if pairs.any() else None


def _overstated(together: Counts, predicted: Counts) -> list[tuple[int, int]]:
    excess = np.triu(predicted - together, k=1)
    order = np.argsort(-excess, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = np.transpose(np.unravel_index(order, excess.shape))
    return [(int(first), int(second)) for first, second in pairs if excess[first, second] > 0]
