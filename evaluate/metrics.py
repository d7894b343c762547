"""Recognition metrics in float64 from raw logits, and the card of them that a task of each kind gets.

Every metric has its averaging in its name, because the papers do not say theirs. `map_macro` is the headline where no
benchmark has a rule of its own (evaluate/benchmarks.py): scikit-learn's tie-safe average precision per class, averaged
over the classes that have a positive; how many have none is part of the card. The decision to question: ties count by
chance, so that a collapsed model scores chance and not whatever the order of classes or clips gives. A target tied with
three others for the first place scores 1/4, and tied clips enter a ranking together, also by the Charades rule.

Scores are never squashed first: a float32 sigmoid that saturates makes ties, and ties move mAP by points.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cache.predictions import Predictions
from evaluate.ranking import Floats, RankedScores, Scores, Targets, check_scores

SIL = "SIL"
"""Breakfast's class for what is no action: nearly always there, so that it lifts a mean over the classes."""

Card = Callable[[Floats | None], dict[str, float]]
"""Metrics by name as a function of clip weights (n,), the form that a bootstrap needs; None means one each."""


@dataclass(frozen=True, kw_only=True)
class BatchCard:
    """A card that also takes many weightings at once, which costs far less than one after another.

    Attributes:
        num_clips: n.
        many: clip weights (B, n) -> metric -> (B,), NaN where a weighting leaves nothing to average.
        endless: the metrics that n clips make too high, as estimated for endless clips like these.
    """

    num_clips: int
    many: Callable[[Floats], dict[str, Floats]]
    endless: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, weights: Floats | None) -> dict[str, float]:
        """The metrics under one weighting (n,).

        Raises:
            ValueError: no class has a positive.
        """
        row = np.ones(self.num_clips) if weights is None else weights
        found = self.many(row[None])
        _known(found["map_macro"])
        return {name: float(values[0]) for name, values in found.items()}


def average_precision(scores: Scores, targets: Targets) -> Floats:
    """Average precision of every class, equal to scikit-learn's `average_precision_score`, ties included.

    Args:
        scores: (n, C) logits or any increasing function of them.
        targets: (n, C) of 0 and 1.

    Returns:
        (C,) float64; NaN for a class without positives.

    Raises:
        ValueError: the shapes differ, a score is NaN or infinite, a target is neither 0 nor 1.
    """
    return RankedScores(scores, targets).average_precision()


def map_macro(scores: Scores, targets: Targets) -> float:
    """Mean average precision over the classes with at least one positive.

    Raises:
        ValueError: as `average_precision`, or no class has a positive.
    """
    return _mean_of_present(average_precision(scores, targets))


def map_macro_all_zero(scores: Scores, targets: Targets) -> float:
    """The mean over all C classes, those without positives counting 0: scikit-learn's and Timeception's convention."""
    return float(np.nan_to_num(average_precision(scores, targets)).mean())


def map_weighted(scores: Scores, targets: Targets) -> float:
    """The mean weighted by each class's number of positives."""
    positives = targets.sum(axis=0, dtype=np.float64)
    return _known(_weighted_means(average_precision(scores, targets)[None], positives[None]))


def map_micro(scores: Scores, targets: Targets) -> float:
    """Average precision of all n x C decisions in one ranking: comparable over classes, as MSQNet's code reports."""
    return _mean_of_present(RankedScores(scores, targets, pooled=True).average_precision())


def map_charades(scores: Scores, targets: Targets) -> float:
    """The rule of the official Charades script: clips without any label rank last, whatever their scores.

    Such a clip is no class's positive and stands behind every positive, so that it cannot lower a precision: the value
    is the macro mean over the labelled clips. On distinct scores it equals the official one (Charades_v1_classify.m and
    its Python version by G. Sigurdsson), the mean precision at each positive. Those take ties in the order of the rows,
    which the benchmark does not fix; here ties enter together. Clips without logits are left out here and counted in
    the line on coverage; the official script ranks them last.
    """
    return _mean_of_present(RankedScores(scores, targets).average_precision(has_label(targets)))


def top_k_hits(logits: Scores, targets: Targets, k: int) -> Floats:
    """The chance of each clip's target to be among its k best classes, ties broken at random.

    Args:
        logits: (n, C), finite.
        targets: (n,) class indices.
        k: at least 1, at most C.

    Returns:
        (n,) float64: 0 or 1 where the target's score is not tied across the k-th place.

    Raises:
        ValueError: k > C, no clip, a NaN or infinite logit, a target outside [0, C).
    """
    _check_single(logits, targets)
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"top-{k} accuracy needs 1 <= k <= C, and C is {logits.shape[1]}")
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    better = (logits > own).sum(axis=1)
    tied = (logits == own).sum(axis=1)
    return np.clip((k - better) / tied, 0.0, 1.0)


def acc1(logits: Scores, targets: Targets) -> float:
    """The fraction of clips whose best class is the target."""
    return float(top_k_hits(logits, targets, 1).mean())


def acc5(logits: Scores, targets: Targets) -> float:
    """The fraction of clips whose target is among the five best classes; ValueError where C < 5."""
    return float(top_k_hits(logits, targets, 5).mean())


def class_recalls(logits: Scores, targets: Targets) -> Floats:
    """Acc@1 within each class: (C,) float64, NaN for a class that no clip has as target."""
    counts = np.bincount(targets, minlength=logits.shape[1])
    hits = np.bincount(targets, weights=top_k_hits(logits, targets, 1), minlength=logits.shape[1])
    return np.divide(hits, counts, out=np.full(len(hits), np.nan), where=counts > 0)


def mean_class_accuracy(logits: Scores, targets: Targets) -> float:
    """Recall averaged over the classes that are present in the targets."""
    return _mean_of_present(class_recalls(logits, targets))


def mean_class_accuracy_mmaction2(logits: Scores, targets: Targets) -> float:
    """The same, but a class that is predicted and never present counts 0: the rule of mmaction2 and torchmetrics."""
    recalls = class_recalls(logits, targets)
    seen = np.bincount(logits.argmax(axis=1), minlength=len(recalls)) > 0
    return float(np.nan_to_num(recalls)[seen | ~np.isnan(recalls)].mean())


def resampled_card(predictions: Predictions) -> BatchCard:
    """The metrics that get an interval, as one function of clip weights; everything is sorted once, here.

    Single label: acc1, acc5 (where C >= 5), mean_class_accuracy, map_macro. Multi label: map_macro, map_micro,
    map_weighted, map_charades, and map_macro_without_sil where a class is called SIL. A class that a resample leaves
    without positives is left out of that resample's mean; map_macro_all_zero would count it 0, which says nothing about
    the model, and has no interval.
    """
    if predictions.kind == "single":
        return _single_card(predictions.logits, predictions.targets)
    return _multi_card(predictions.logits, predictions.targets, predictions.class_names)


def evaluate(predictions: Predictions, *, card: BatchCard | None = None) -> dict[str, float]:
    """The card: every metric that suits the task's kind, fractions in [0, 1], and the counts behind them.

    Single label: acc1, acc5 (where C >= 5), mean_class_accuracy, mean_class_accuracy_mmaction2, map_macro.
    Multi label: map_macro, map_micro, map_weighted, map_charades, map_macro_all_zero, and map_macro_without_sil where a
    class is called SIL and another one has a positive.
    Both: num_clips, num_classes, num_classes_dropped (without a positive, so absent from the means) and num_ties
    (scores that equal another one of the same ranking: 0 unless a model saturates).

    Args:
        predictions: of one split.
        card: of `resampled_card`, where there is one already: its sorted scores are used again.

    Raises:
        ValueError: no clips, or no class with a positive.
    """
    logits, targets = predictions.logits, predictions.targets
    found = (card or resampled_card(predictions))(None)
    if predictions.kind == "single":
        found["mean_class_accuracy_mmaction2"] = mean_class_accuracy_mmaction2(logits, targets)
        present = one_hot(targets, logits.shape[1]).any(axis=0)
        rankings = logits
    else:
        found["map_macro_all_zero"] = map_macro_all_zero(logits, targets)
        present = targets.any(axis=0)
        rankings = logits.T
    counts = {
        "num_clips": len(logits),
        "num_classes": logits.shape[1],
        "num_classes_dropped": np.count_nonzero(~present),
        "num_ties": _num_ties(rankings),
    }
    return found | {name: float(count) for name, count in counts.items()}


def one_hot(targets: Targets, num_classes: int) -> npt.NDArray[np.uint8]:
    """Class indices (n,) as (n, C) of 0 and 1."""
    return (targets[:, None] == np.arange(num_classes)).astype(np.uint8)


def has_label(targets: Targets) -> Floats:
    """(n,) 1.0 for clips with a label among the targets (n, C), 0.0 for others."""
    found: Floats = np.any(targets, axis=1).astype(np.float64)
    return found


def _single_card(logits: Scores, targets: Targets) -> BatchCard:
    num_classes = logits.shape[1]
    ranked = RankedScores(logits, one_hot(targets, num_classes))
    hits = {f"acc{k}": top_k_hits(logits, targets, k) for k in (1, 5) if k <= num_classes}
    own = one_hot(targets, num_classes).astype(np.float64)

    def many(weights: Floats) -> dict[str, Floats]:
        found = {name: weights @ hit / weights.sum(axis=1) for name, hit in hits.items()}
        counts = weights @ own
        recalls = np.divide((weights * hits["acc1"]) @ own, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
        found["mean_class_accuracy"] = _means_of_present(recalls)
        found["map_macro"] = _means_of_present(ranked.average_precisions(weights))
        return found

    endless = {"map_macro": _mean_of_present(ranked.endless_precision())}
    return BatchCard(num_clips=len(logits), many=many, endless=endless)


def _multi_card(logits: Scores, targets: Targets, class_names: Sequence[str]) -> BatchCard:
    ranked = RankedScores(logits, targets)
    decisions = RankedScores(logits, targets, pooled=True)
    labels = targets.astype(np.float64)
    labelled = has_label(targets)
    is_action = np.array([name != SIL for name in class_names])
    names_sil = not is_action.all() and bool(targets[:, is_action].any())

    def averages(values: Floats, by_charades: Floats, micro: Floats, positives: Floats) -> dict[str, Floats]:
        found = {
            "map_macro": _means_of_present(values),
            "map_micro": micro[:, 0],
            "map_weighted": _weighted_means(values, positives),
            "map_charades": _means_of_present(by_charades),
        }
        if names_sil:
            found["map_macro_without_sil"] = _means_of_present(values[:, is_action])
        return found

    def many(weights: Floats) -> dict[str, Floats]:
        values = ranked.average_precisions(weights)
        by_charades = values if labelled.all() else ranked.average_precisions(weights * labelled)
        return averages(values, by_charades, decisions.average_precisions(weights), weights @ labels)

    inside = labelled > 0
    by_charades = RankedScores(logits[inside], targets[inside]) if inside.any() else ranked
    macro, official, micro = (item.endless_precision()[None] for item in (ranked, by_charades, decisions))
    endless = averages(macro, official, micro, labels.sum(axis=0)[None])
    return BatchCard(
        num_clips=len(logits), many=many, endless={name: float(value[0]) for name, value in endless.items()}
    )


def _mean_of_present(values: Floats) -> float:
    return _known(_means_of_present(values[None]))


def _means_of_present(values: Floats) -> Floats:
    """(B,) means of (B, C) over the classes that are no NaN; NaN where all are."""
    present = ~np.isnan(values)
    counts = present.sum(axis=1)
    sums = np.where(present, values, 0.0).sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _weighted_means(values: Floats, positives: Floats) -> Floats:
    """(B,) means of (B, C) weighted by the positives (B, C); NaN where there is none."""
    totals = positives.sum(axis=1)
    sums = (np.nan_to_num(values) * positives).sum(axis=1)
    return np.divide(sums, totals, out=np.full(len(values), np.nan), where=totals > 0)


def _known(values: Floats) -> float:
    """The one value of an array (1,).

    Raises:
        ValueError: it is NaN.
    """
    if np.isnan(values[0]):
        raise ValueError("no class has a positive clip: there is nothing to average")
    return float(values[0])


def _num_ties(rankings: Scores) -> int:
    ordered = np.sort(rankings, axis=1)
    return int(np.count_nonzero(ordered[:, 1:] == ordered[:, :-1]))


def _check_single(logits: Scores, targets: Targets) -> None:
    check_scores(logits)
    if targets.shape != logits.shape[:1]:
        raise ValueError(f"targets have shape {targets.shape}, expected (n,) = {logits.shape[:1]}")
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise ValueError(f"targets must be class indices in [0, {logits.shape[1]})")
