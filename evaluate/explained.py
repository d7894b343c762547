"""The numbers of what runs did inside, from the explanations that `predict --explain` stored: a part of metrics.json.

The decision to question: an explanation whose logits are no longer those of the predictions is of other weights, and is
named instead of shown. Weights over frames are summed up as "frames used", the exponential of their entropy: 1 where a
class reads a single frame, L where it reads all alike.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.explanation import MATCHING_STAGES, Explanation, Matching, PoseMask
from cache.predictions import Predictions
from cache.run import Run

Floats = npt.NDArray[np.floating]
MOST_MATCHED_ROWS, MOST_MATCHED_CLASSES = 12, 24
_TOLERANCE = 1e-2  # of the spread of the logits: another device or batch size is far below it


def explained(run: Run, predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """The document's `explained`: split -> its numbers, for the evaluated splits that have an explanation.

    Args:
        run: an opened run directory.
        predictions: by split, those that are evaluated.

    Returns:
        {split: {"is_current", "notices", "clips": [{"id", "true", "predicted", "seconds", "shown": [{"class",
        "is_true", "logit", "back_door", "front_door"}]}], "frames": L, "frames_used": {"back_door", "front_door"},
        "matching", "joints"}}; of an explanation that is not current "is_current" alone. "predicted"
        are as many classes as the clip has, one at least. Weights and what is made of them are null where the method
        has none; "matching" has {"row_task", "temperature", "rows", "counts", "classes", "on_own": {stage},
        "probabilities": {stage: [[per row and class]]}}, "joints" the mean share of each joint's weight.

    Raises:
        CorruptShard: an explanation is damaged.
    """
    found = {}
    for split, item in predictions.items():
        explanation = run.explanation(split)
        if explanation is not None:
            is_current = describes(explanation, item)
            found[split] = {"is_current": is_current} | (_numbers(explanation) if is_current else {})
    return found


def describes(explanation: Explanation, predictions: Predictions) -> bool:
    """Whether the explained weights are those that predicted: the same clips and classes, the same logits."""
    places = {clip_id: number for number, clip_id in enumerate(predictions.clip_ids)}
    if explanation.class_names != predictions.class_names or not places.keys() >= set(explanation.clip_ids):
        return False
    stored = predictions.logits[[places[clip_id] for clip_id in explanation.clip_ids]]
    return bool(np.abs(stored - explanation.logits).max() <= _TOLERANCE * max(float(predictions.logits.std()), 1e-6))


def _numbers(explanation: Explanation) -> dict[str, Any]:
    parts, num_frames = explanation.interventions, explanation.pts_seconds.shape[1]
    return {
        "notices": list(explanation.notices),
        "clips": [_clip(explanation, number) for number in range(len(explanation.clip_ids))],
        "frames": num_frames,
        "frames_used": {
            name: None if parts is None else _used(getattr(parts, name), explanation)
            for name in ("back_door", "front_door")
        },
        "matching": None if explanation.matching is None else _matching(explanation.matching, explanation.class_names),
        "joints": None if explanation.pose is None else _joints(explanation.pose),
    }


def _clip(explanation: Explanation, number: int) -> dict[str, Any]:
    names, logits = explanation.class_names, explanation.logits[number]
    true = np.flatnonzero(explanation.targets[number])
    best = np.argsort(-logits, kind="stable")[: max(len(true), 1)]
    return {
        "id": explanation.clip_ids[number],
        "true": [names[column] for column in true],
        "predicted": [names[column] for column in best],
        "seconds": explanation.pts_seconds[number].tolist(),
        "shown": [_shown(explanation, number, int(column)) for column in explanation.shown[number]],
    }


def _shown(explanation: Explanation, number: int, column: int) -> dict[str, Any]:
    parts = explanation.interventions
    return {
        "class": explanation.class_names[column],
        "is_true": bool(explanation.targets[number, column]),
        "logit": float(explanation.logits[number, column]),
        "back_door": _row(None if parts is None else parts.back_door, number, column),
        "front_door": _row(None if parts is None else parts.front_door, number, column),
    }


def _row(weights: Floats | None, number: int, column: int) -> list[float] | None:
    return None if weights is None else weights[number, column].astype(np.float64).tolist()


def _used(weights: Floats | None, explanation: Explanation) -> float | None:
    """Frames used by the true classes, or by all where no clip has one: the mean of exp(entropy)."""
    if weights is None:
        return None
    positive = np.clip(weights.astype(np.float64), 1e-12, None)
    used = np.exp(-(positive * np.log(positive)).sum(axis=-1))  # (m, C)
    true = explanation.targets > 0
    return float(used[true].mean() if true.any() else used.mean())


def _matching(matching: Matching, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Rows and classes that fit a page: the rows with most clips, the classes that get most."""
    rows = np.sort(np.argsort(-matching.counts, kind="stable")[:MOST_MATCHED_ROWS])
    most = matching.probabilities.sum(axis=(0, 1))
    columns = np.sort(np.argsort(-most, kind="stable")[:MOST_MATCHED_CLASSES])
    probabilities = matching.probabilities.astype(np.float64)[:, rows][:, :, columns]
    own = matching.on_own
    return {
        "row_task": matching.row_task,
        "temperature": matching.temperature,
        "rows": [matching.rows[row] for row in rows],
        "counts": matching.counts[rows].tolist(),
        "classes": [class_names[column] for column in columns],
        "on_own": None if own is None else dict(zip(MATCHING_STAGES, own.astype(np.float64).tolist(), strict=True)),
        "probabilities": dict(zip(MATCHING_STAGES, probabilities.tolist(), strict=True)),
    }


def _joints(pose: PoseMask) -> dict[str, float]:
    """Mean share of each joint among the joints of a frame, over frames with any weight."""
    weights = pose.joint_weights.astype(np.float64).reshape(-1, len(pose.joint_names))
    totals = weights.sum(axis=1, keepdims=True)
    shares = (weights[totals[:, 0] > 0] / totals[totals[:, 0] > 0]).mean(axis=0)
    return dict(zip(pose.joint_names, shares.tolist(), strict=True))
