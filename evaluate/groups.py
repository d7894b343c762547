"""The headline within every value of a group (a subject, a camera, a kitchen), and which value fares worst.

The decision to question: the worst is named among values of ten clips and more, where there are any such; the worst of
three clips is nearly always 0 %. mAP of few clips is too high (evaluate/uncertainty.py), and is the mean over those
classes that these clips have, so that small groups look better by it than they are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cache.predictions import Predictions
from evaluate.metrics import BatchCard, resampled_card

FEWEST_CLIPS = 10
_MOST_VALUES = 50
_FEW_CLIPS_EACH = 4


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """The headline of the clips of one value; None where no class has a positive."""

    num_clips: int
    value: float | None


def shown_groups(predictions: Predictions) -> Iterator[str]:
    """Groups that divide the clips: of two values and more, and not of next to none clips each."""
    for group, values in predictions.groups.items():
        num_values = len(set(values))
        if num_values > 1 and (num_values <= _MOST_VALUES or len(values) >= _FEW_CLIPS_EACH * num_values):
            yield group


def per_group(
    predictions: Predictions, group: str, *, headline: str, card: BatchCard | None = None
) -> dict[str, GroupScore]:
    """The headline metric within every value of a group.

    Args:
        predictions: of one split.
        group: its name.
        headline: a metric with an interval, the one that stands first for the run.
        card: of these predictions, where there is one already.

    Returns:
        value -> score, sorted by value.

    Raises:
        ValueError: the predictions do not know the group.
    """
    if group not in predictions.groups:
        raise ValueError(f"{predictions!r} has no group {group!r}; it has {sorted(predictions.groups)}")
    values = np.array(predictions.groups[group])
    counts = Counter(predictions.groups[group])
    names = sorted(counts)
    inside = (values == np.array(names)[:, None]).astype(np.float64)
    scores = (card or resampled_card(predictions)).many(inside)[headline]
    return {
        name: GroupScore(num_clips=counts[name], value=None if np.isnan(score) else float(score))
        for name, score in zip(names, scores, strict=True)
    }


def worst_value(scores: Mapping[str, GroupScore]) -> str | None:
    """The known value of the lowest score, of those with clips enough; None where there are not two to choose from."""
    known = {name: item for name, item in scores.items() if name and item.value is not None}
    large = {name: item for name, item in known.items() if item.num_clips >= FEWEST_CLIPS}
    if len(large) < 2:
        return None
    return min(large, key=lambda name: (large[name].value, name))
