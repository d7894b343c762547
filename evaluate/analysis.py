"""What lies behind one number: a table per class, confusions, and what a known world lets us ask.

In the controlled world several activities are made of the same actions in another order. `pair_accuracy` asks whether
a model finds the set of actions, `order_accuracy` whether it finds the order within the set. The decision to question:
order accuracy looks at the logits of the target's own group alone, so that it stays defined for clips whose set was
missed, and chance is one over the size of the group.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.predictions import Predictions
from evaluate.metrics import class_recalls, has_label, one_hot, top_k_hits
from evaluate.ranking import Floats, Indices, RankedScores


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class of one split; fractions, None where there is nothing to divide by.

    Attributes:
        num_positives: clips that have the class.
        num_predicted: clips whose best class it is (single label only, else None).
        recall: Acc@1 within the class (single label only, else None).
    """

    name: str
    num_positives: int
    average_precision: float | None
    recall: float | None
    num_predicted: int | None


def per_class(predictions: Predictions, *, headline: str = "map_macro") -> list[ClassRow]:
    """One row per class, in the order of the task.

    Args:
        predictions: of one split.
        headline: the metric that stands first; the average precisions average to it where that is map_charades (clips
            without any label rank last), else to map_macro.
    """
    logits, targets = predictions.logits, predictions.targets
    num_classes = logits.shape[1]
    single = predictions.kind == "single"
    labels = one_hot(targets, num_classes) if single else targets
    weights = has_label(labels) if headline == "map_charades" else None
    precisions = RankedScores(logits, labels).average_precision(weights)
    recalls = class_recalls(logits, targets) if single else np.full(num_classes, np.nan)
    predicted = np.bincount(logits.argmax(axis=1), minlength=num_classes)
    return [
        ClassRow(
            name=name,
            num_positives=int(labels[:, number].sum()),
            average_precision=_finite(precisions[number]),
            recall=_finite(recalls[number]),
            num_predicted=int(predicted[number]) if single else None,
        )
        for number, name in enumerate(predictions.class_names)
    ]


def confusion_matrix(predictions: Predictions) -> npt.NDArray[np.int64]:
    """Clips by target (rows) and best class (columns): (C, C); a tie goes to the first class.

    Raises:
        ValueError: the task is multi-label.
    """
    _check_single(predictions, "a confusion matrix")
    num_classes = predictions.logits.shape[1]
    cells = predictions.targets.astype(np.int64) * num_classes + predictions.logits.argmax(axis=1)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def map_of_classes(predictions: Predictions, class_names: Collection[str]) -> float:
    """Macro mAP over some of the classes, e.g. the causal actions; those without positives are left out.

    Raises:
        ValueError: an unknown class, or none of them has a positive.
    """
    columns = class_columns(predictions, class_names)
    rows = per_class(predictions)
    values = [value for c in columns if (value := rows[c].average_precision) is not None]
    if not values:
        raise ValueError(f"none of the classes {sorted(class_names)} has a positive clip in {predictions!r}")
    return float(np.mean(values))


def same_set_groups(sets: Mapping[str, Collection[str]]) -> tuple[tuple[str, ...], ...]:
    """Classes that are made of the same actions, from class name -> its actions; groups of two and more only."""
    members: dict[frozenset[str], list[str]] = {}
    for name, actions in sets.items():
        members.setdefault(frozenset(actions), []).append(name)
    return tuple(tuple(names) for names in members.values() if len(names) > 1)


def pair_accuracy(predictions: Predictions, groups: Sequence[Collection[str]]) -> float:
    """The fraction of clips whose best class lies in the target's group; a class in no group is its own.

    Raises:
        ValueError: multi-label, an unknown class, or a class in two groups.
    """
    group_of = _group_numbers(predictions, groups)
    return float((group_of[predictions.logits.argmax(axis=1)] == group_of[predictions.targets]).mean())


def order_accuracy(predictions: Predictions, groups: Sequence[Collection[str]]) -> float:
    """Of the clips whose class is in a group: the fraction that the target wins against its own group alone.

    Chance is 1 / size of the group; ties count by chance.

    Raises:
        ValueError: as `pair_accuracy`, or no clip's class is in a group.
    """
    group_of = _group_numbers(predictions, groups)
    hits: list[Floats] = []
    for members in groups:
        columns = np.array(class_columns(predictions, members))
        inside = np.isin(predictions.targets, columns)
        if inside.any():
            position = (predictions.targets[inside, None] == columns).argmax(axis=1)
            hits.append(top_k_hits(predictions.logits[inside][:, columns], position, 1))
    if not hits:
        raise ValueError(f"no clip of {predictions!r} has a class of the {len(set(group_of))} groups given")
    return float(np.concatenate(hits).mean())


def order_blind_ceiling(predictions: Predictions, groups: Sequence[Collection[str]]) -> float:
    """The best expected Acc@1 of a model that finds every set of actions and guesses the order."""
    group_of = _group_numbers(predictions, groups)
    sizes = np.bincount(group_of)
    return float((1.0 / sizes[group_of[predictions.targets]]).mean())


def class_columns(predictions: Predictions, class_names: Collection[str]) -> list[int]:
    """Where classes stand in the logits; ValueError for a name that the task does not have."""
    index = {name: number for number, name in enumerate(predictions.class_names)}
    unknown = [name for name in class_names if name not in index]
    if unknown:
        raise ValueError(f"{unknown} are not classes of task {predictions.task!r}: {list(index)[:20]}")
    return [index[name] for name in class_names]


def _group_numbers(predictions: Predictions, groups: Sequence[Collection[str]]) -> Indices:
    _check_single(predictions, "accuracy by group of classes")
    columns = [column for members in groups for column in class_columns(predictions, members)]
    if len(set(columns)) != len(columns):
        raise ValueError(f"a class stands in two groups: {[sorted(members) for members in groups]}")
    numbers = np.full(len(predictions.class_names), -1, dtype=np.int64)
    for number, members in enumerate(groups):
        numbers[class_columns(predictions, members)] = number
    alone = np.flatnonzero(numbers < 0)
    numbers[alone] = len(groups) + np.arange(len(alone))
    return numbers


def _check_single(predictions: Predictions, what: str) -> None:
    if predictions.kind != "single":
        raise ValueError(f"{what} needs a single-label task, and {predictions.task!r} is multi-label")


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
