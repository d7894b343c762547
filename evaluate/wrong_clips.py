"""The clips that went most wrong, and those that one model gets right and another does not.

The decision to question: how wrong a clip is has to be a number that a confident mistake makes large and an undecided
one small. Single label: the margin in logits by which the best wrong class leads the true one; a clip is wrong where it
is positive. Multi label: the binary cross-entropy of the raw logits, averaged over the classes, the loss that such
models are trained with; it counts what was missed and what was seen that is not there, and also finds clips without
any label. Probabilities beside the class names are the model's own (softmax, sigmoid) and are not calibrated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cache.manifest import TaskKind
from cache.predictions import Predictions
from evaluate.ranking import Floats

MOST_CLIPS = 8
_MOST_CLASSES = 3

DEFINITIONS: Mapping[TaskKind, str] = {
    "single": "Most wrong first: by how many logits the class that the model named leads the true one.",
    "multi": (
        "Most wrong first: by the binary cross-entropy of the clip, averaged over the classes. Listed are the labels "
        "that the model believed least and the classes without a label that it believed most."
    ),
}
"""What "most wrong" means, for the reader."""


@dataclass(frozen=True, kw_only=True)
class Belief:
    """A class, and the probability that the model gives it."""

    name: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class WrongClip:
    """A clip and what the model made of it.

    Attributes:
        clip_id: of the clip.
        error: margin in logits (single label) or cross-entropy (multi label).
        labels: what it shows; of many labels those that the model believed least.
        num_labels: how many labels it has.
        mistaken: classes that it does not show, those that the model believed most first.
        groups: where the clip belongs, e.g. subject and camera.
    """

    clip_id: str
    error: float
    labels: Sequence[Belief]
    num_labels: int
    mistaken: Sequence[Belief]
    groups: Mapping[str, str] = field(default_factory=dict)


def clip_errors(predictions: Predictions) -> Floats:
    """(n,) how wrong each clip is; see above."""
    logits = predictions.logits.astype(np.float64)
    if predictions.kind == "single":
        own, best_other = _own_and_best_other(logits, predictions.targets)
        return best_other - own
    signs = np.where(predictions.targets.astype(bool), -1.0, 1.0)
    return np.logaddexp(0.0, signs * logits).mean(axis=1)


def most_wrong(predictions: Predictions, *, most: int = MOST_CLIPS) -> list[WrongClip]:
    """The clips with the largest errors, worst first; of a single-label task only those that are wrong."""
    errors = clip_errors(predictions)
    rows = np.argsort(-errors, kind="stable")[:most]
    return [describe(predictions, row, errors[row]) for row in rows.tolist() if _is_wrong(predictions, errors[row])]


def describe(predictions: Predictions, row: int, error: float) -> WrongClip:
    """One clip, with labels and mistaken classes in the order of how wrong they are."""
    beliefs = _probabilities(predictions.logits[row].astype(np.float64), predictions.kind)
    is_label = np.zeros(len(beliefs), dtype=bool)
    is_label[predictions.targets[row] if predictions.kind == "single" else predictions.targets[row] == 1] = True
    labels = [number for number in np.argsort(beliefs, kind="stable").tolist() if is_label[number]]
    others = [number for number in np.argsort(-beliefs, kind="stable").tolist() if not is_label[number]]

    def named(columns: Sequence[int]) -> list[Belief]:
        return [Belief(name=predictions.class_names[c], probability=float(beliefs[c])) for c in columns]

    return WrongClip(
        clip_id=predictions.clip_ids[row],
        error=float(error),
        labels=named(_foremost(labels, beliefs < 0.5)),
        num_labels=len(labels),
        mistaken=named(_foremost(others, beliefs > 0.5)),
        groups={name: values[row] for name, values in predictions.groups.items() if values[row]},
    )


def _foremost(columns: Sequence[int], is_wrong: npt.NDArray[np.bool_]) -> Sequence[int]:
    """The first three of those that are wrong, but at least the first."""
    return columns[: min(_MOST_CLASSES, max(1, int(is_wrong[columns].sum())))]


def _is_wrong(predictions: Predictions, error: float) -> bool:
    return predictions.kind == "multi" or error > 0


def _own_and_best_other(logits: Floats, targets: npt.NDArray[np.integer]) -> tuple[Floats, Floats]:
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, targets] = -np.inf
    return logits[rows, targets], others.max(axis=1)


def _probabilities(logits: Floats, kind: TaskKind) -> Floats:
    if kind == "multi":
        return np.exp(-np.logaddexp(0.0, -logits))
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()
