"""The numbers of the controlled world, each as a function of clip weights, and sentences made from their intervals.

Activities: acc1, pair_accuracy (the right set of actions), order_accuracy (the right order within the set). Atomic
actions: map_macro over all, map_causal over the 12 of scripts, map_co_occurring over the 4 that come along. The
decision to question: no sentence about an outcome is ever written by hand. `difference_sentence` reads the interval,
and where it holds zero it says that this test set shows no difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.predictions import Predictions
from evaluate.metrics import Card, top_k_hits
from evaluate.ranking import Floats, RankedScores
from evaluate.uncertainty import Interval, Resamples, draw, student_interval, wilson
from pipeline.demo.scripts import ACTIONS, ACTIVITIES, CAUSAL_ACTIONS, ORDER_PAIRS

HEADLINE = {"activity": "acc1", "atomic": "map_macro"}
METRIC_NAMES = {
    "acc1": "Acc@1",
    "pair_accuracy": "right set of actions",
    "order_accuracy": "right order in the set",
    "map_macro": "mAP, all 16",
    "map_causal": "mAP, 12 causal",
    "map_co_occurring": "mAP, 4 co-occurring",
}


_SHARES_OF_VIDEOS = ("acc1", "pair_accuracy")
_ROUNDING = 1e-9  # a smaller difference is none: shares of videos are subtracted in floating point


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method minus another on one split and metric, on the same videos."""

    method: str
    reference: str
    task: str
    split: str
    metric: str
    num_videos: int
    num_seeds: int
    difference: Interval
    caveat: str = ""
    """Said after the verdict."""


def card_of(predictions: Predictions) -> Card:
    """The metrics of one run on one split."""
    return _activity_card(predictions) if predictions.kind == "single" else _atomic_card(predictions)


def mean_card(cards: Sequence[Card]) -> Card:
    """The metrics of runs that differ in their seed, averaged."""

    def card(weights: Floats | None) -> dict[str, float]:
        values = [one(weights) for one in cards]
        return {metric: float(np.mean([value[metric] for value in values])) for metric in values[0]}

    return card


def compare(
    cards: Mapping[str, Card], num_videos: int, *, pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, dict[str, Interval]], dict[tuple[str, str], dict[str, Interval]]]:
    """Intervals of every method, and of the differences of some, all on the same resamples of videos.

    Args:
        cards: method -> card, over the same videos in the same order.
        num_videos: n.
        pairs: (method, reference) to subtract.

    Returns:
        method -> metric -> interval, and (method, reference) -> metric -> interval of the difference. Shares of videos
        have Wilson's interval, a little wide for a mean over seeds; other metrics have none where all resamples agree.
    """
    draws = draw(cards, Resamples(num_clips=num_videos))
    points = {name: card(None) for name, card in cards.items()}
    single = {
        name: {metric: _interval(metric, value, draws[name][metric], num_videos) for metric, value in metrics.items()}
        for name, metrics in points.items()
    }
    differences = {
        (one, other): {
            metric: student_interval(
                value - points[other][metric],
                draws[one][metric] - draws[other][metric],
                num_units=num_videos,
                bounds=(-1.0, 1.0),
            )
            for metric, value in points[one].items()
        }
        for one, other in pairs
    }
    return single, differences


def _interval(metric: str, value: float, draws: Floats, num_videos: int) -> Interval:
    if metric in _SHARES_OF_VIDEOS:
        return wilson(value * num_videos, num_videos)
    return student_interval(value, draws, num_units=num_videos)


def difference_sentence(comparison: Comparison) -> str:
    """What a difference shows, in words that depend on its interval alone."""
    interval = comparison.difference
    name = METRIC_NAMES[comparison.metric]
    edges = f" [{points(interval.low)}, {points(interval.high)}]" if interval.is_known else ""
    amount = f"{points(interval.estimate)}{edges} points"
    head = (
        f"{comparison.method} minus {comparison.reference}, {comparison.task}, {split_name(comparison.split)}, {name}"
    )
    if interval.low > _ROUNDING:
        verdict = f"{comparison.method} is better on these {comparison.num_videos} videos"
    elif interval.high < -_ROUNDING:
        verdict = f"{comparison.method} is worse on these {comparison.num_videos} videos"
    else:
        verdict = f"no difference that these {comparison.num_videos} videos can show"
    return f"{head}: {amount}: {verdict}.{comparison.caveat and ' '}{comparison.caveat}"


def ceiling_sentence(method: str, split: str, accuracy: Interval, ceiling: float) -> str:
    """Whether an activity accuracy goes beyond what a bag of frames can reach."""
    limit = f"a ceiling of {100 * ceiling:.1f} % without order"
    text = f"{method}, {split_name(split)}: Acc@1 {percent(accuracy)} against {limit}"
    if accuracy.low > ceiling:
        return f"{text}: above it, so something beyond the set of actions was read (order, or a shortcut)."
    if accuracy.high < ceiling:
        return f"{text}: below it."
    return f"{text}: not distinguishable from it."


def points(fraction: float) -> str:
    """A signed difference in percentage points; small ones get more digits, so that their sign can be believed."""
    value = 0.0 if abs(fraction) < _ROUNDING else 100 * fraction
    return f"{value:+.2f}" if 0 < abs(value) < 0.05 else f"{value:+.1f}"


def percent(interval: Interval) -> str:
    """An estimate with its interval, where there is one."""
    edges = f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]" if interval.is_known else ""
    return f"{100 * interval.estimate:.1f}{edges}"


def split_name(split: str) -> str:
    """A split as a reader says it."""
    return {
        "test_iid": "i.i.d.",
        "test_counterfactual": "counterfactual",
        "test_recombined": "recombined",
        "validation": "validation",
        "train": "training",
    }[split]


def _activity_card(predictions: Predictions) -> Card:
    logits, targets = predictions.logits, predictions.targets
    hits = top_k_hits(logits, targets, 1)
    partner = _partners()[targets]
    in_pair = (partner != targets).astype(np.float64)
    best = logits.argmax(axis=1)
    set_hits = ((best == targets) | (best == partner)).astype(np.float64)
    rows = np.arange(len(targets))
    lead = logits[rows, targets] - logits[rows, partner]
    order_hits = np.where(lead == 0, 0.5, lead > 0)

    def card(weights: Floats | None) -> dict[str, float]:
        weight = np.ones(len(targets)) if weights is None else weights
        return {
            "acc1": float(np.average(hits, weights=weight)),
            "pair_accuracy": float(np.average(set_hits, weights=weight)),
            "order_accuracy": _average(order_hits, weight * in_pair),
        }

    return card


def _atomic_card(predictions: Predictions) -> Card:
    ranked = RankedScores(predictions.logits, predictions.targets)
    causal = np.array([name in CAUSAL_ACTIONS for name in ACTIONS])

    def card(weights: Floats | None) -> dict[str, float]:
        values = ranked.average_precision(weights)
        groups = {"map_macro": values, "map_causal": values[causal], "map_co_occurring": values[~causal]}
        return {name: _mean_of_present(group) for name, group in groups.items()}

    return card


def _partners() -> npt.NDArray[np.int64]:
    """(8,) the activity with the same actions, or the activity itself."""
    partner = {name: name for name in ACTIVITIES}
    for one, other in ORDER_PAIRS:
        partner |= {one: other, other: one}
    return np.array([ACTIVITIES.index(partner[name]) for name in ACTIVITIES], dtype=np.int64)


def _average(values: npt.NDArray[np.float64], weights: Floats) -> float:
    if not weights.any():
        raise ValueError("no video of an activity pair: order accuracy has nothing to average")
    return float(np.average(values, weights=weights))


def _mean_of_present(values: Floats) -> float:
    if np.isnan(values).all():
        raise ValueError("no class has a positive video: there is nothing to average")
    return float(np.nanmean(values))
