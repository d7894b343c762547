"""One split of one run in the document of a report: metrics, intervals, classes, groups, wrong clips, what is missing.

`evaluate.summary` has the shape. The decision to question: accuracies of clips drawn one by one have Wilson's interval,
which also says something where every clip is right; all else has the bootstrap's.
"""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from cache.predictions import Predictions
from evaluate.analysis import confusion_matrix, per_class
from evaluate.clusters import cluster_of
from evaluate.coclassification import co_classification
from evaluate.coverage import coverage, remarks
from evaluate.groups import per_group, shown_groups, worst_value
from evaluate.metrics import BatchCard, evaluate
from evaluate.uncertainty import Draws, Interval, bootstrap, wilson
from evaluate.wrong_clips import clip_errors, most_wrong


def describe_split(
    predictions: Predictions, card: BatchCard, draws: Draws, *, headline: str, cluster: str | None
) -> dict[str, Any]:
    """The entry of one split.

    Args:
        predictions: of the split.
        card: of the predictions.
        draws: of the card.
        headline: the metric that stands first for the run.
        cluster: what was asked for; the entry names what was done.
    """
    group = cluster_of(predictions, cluster)
    metrics: dict[str, Any] = dict(evaluate(predictions, card=card))
    found = {
        **metrics,
        "remarks": remarks(metrics),
        "cluster": group,
        "num_clusters": draws.resamples.units()[1],
        "intervals": {name: _edges(item) for name, item in _intervals(draws, by_clip=group is None).items()},
        "per_class": [asdict(row) for row in per_class(predictions, headline=headline)],
        **_groups(predictions, headline, card),
        "worst_clips": [asdict(clip) for clip in most_wrong(predictions)],
        "skipped": dict(sorted(Counter(predictions.skipped.values()).items())),
        "num_official": predictions.num_official,
        "coverage": coverage(predictions),
    }
    if predictions.kind == "single":
        found["confusion"] = confusion_matrix(predictions).tolist()
        found["num_wrong"] = int(np.count_nonzero(clip_errors(predictions) > 0))
    else:
        found["co_classification"] = co_classification(predictions)
    return found


def _groups(predictions: Predictions, headline: str, card: BatchCard) -> dict[str, Any]:
    scores = {name: per_group(predictions, name, headline=headline, card=card) for name in shown_groups(predictions)}
    worst = {name: worst_value(values) for name, values in scores.items()}
    return {
        "groups": {name: {value: asdict(score) for value, score in values.items()} for name, values in scores.items()},
        "worst_groups": {name: value for name, value in worst.items() if value is not None},
    }


def _intervals(draws: Draws, *, by_clip: bool) -> dict[str, Interval]:
    if draws.resamples.units()[1] < 2:
        return {}  # one clip or one subject says nothing about another
    intervals = bootstrap(draws)
    if by_clip:
        num_clips = draws.resamples.num_clips
        for name in ("acc1", "acc5"):
            if name in intervals:
                intervals[name] = wilson(intervals[name].estimate * num_clips, num_clips)
    return {name: interval for name, interval in intervals.items() if interval.is_known}


def _edges(interval: Interval) -> dict[str, Any]:
    return {key: getattr(interval, key) for key in ("low", "high", "method", "bias", "endless")}
