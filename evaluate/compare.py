"""Two models on the same clips: how much the second gains, and whether that could be chance.

The decision to question: runs are compared only where clips, their order, targets and classes are identical. Aligning
whatever happens to overlap would compare two test sets. With a cluster the test flips whole clusters: McNemar's takes
clips for independent. Of 400 simulated comparisons over 8 subjects, each subject with a liking of its own and no
difference on the whole, it called 50 % significant at .05, the flips 4.5 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import ConfigError
from cache.predictions import Predictions
from evaluate.clusters import resamples_of
from evaluate.metrics import resampled_card, top_k_hits
from evaluate.uncertainty import Draws, Interval, Resamples, holm, paired_differences, sign_flip_test


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Second minus first.

    Attributes:
        first: run name.
        second: run name.
        differences: metric -> difference with its interval, over the same resamples.
        only_first_right: clips that only the first gets right (single label, else None).
        only_second_right: the reverse.
        p_value: of the exact McNemar test on them; with a cluster, of the exact sign-flip test over clusters.
    """

    first: str
    second: str
    differences: dict[str, Interval]
    only_first_right: int | None = None
    only_second_right: int | None = None
    p_value: float | None = None


def why_not_comparable(first: Predictions, second: Predictions) -> str:
    """What keeps two sets of predictions from being compared clip by clip; empty where nothing does."""
    if (first.kind, first.class_names) != (second.kind, second.class_names):
        counts = f"{len(first.class_names)} of {first.task!r} and {len(second.class_names)} of {second.task!r}"
        return f"different classes: {counts}"
    if first.clip_ids != second.clip_ids:
        apart = set(first.clip_ids) ^ set(second.clip_ids)
        return f"different clips: {len(apart)} are in one alone" if apart else "the same clips in another order"
    if not np.array_equal(first.targets, second.targets):
        return "different targets for the same clips"
    return ""


def compare(
    first: Predictions,
    second: Predictions,
    *,
    cluster: str | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap of every metric, and for a single-label task a test of the clips that only one gets right.

    Args:
        first: the reference.
        second: the challenger, on the same clips.
        cluster: a group (a subject) whose clips are resampled together; clusters.AUTO for subjects where known.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ConfigError: clips, targets or classes differ, or the group is unknown.
    """
    _check_comparable(first, second)
    resamples = resamples_of(first, cluster=cluster, num_resamples=num_resamples, seed=seed)
    before, after = (Draws.of(resampled_card(item), resamples) for item in (first, second))
    return compare_drawn(first, second, before, after)


def compare_drawn(first: Predictions, second: Predictions, before: Draws, after: Draws) -> Comparison:
    """`compare` with the resamples that each has drawn already; the second draws again if its clusters are others.

    Args:
        first: the reference.
        second: the challenger, on the same clips.
        before: of the first.
        after: of the second.

    Raises:
        ConfigError: clips, targets or classes differ.
    """
    _check_comparable(first, second)
    if after.resamples != before.resamples:
        after = Draws.of(resampled_card(second), before.resamples)
    differences = paired_differences(before, after)
    comparison = Comparison(first=first.run_name, second=second.run_name, differences=differences)
    return comparison if first.kind != "single" else _with_test(comparison, first, second, before.resamples)


def _check_comparable(first: Predictions, second: Predictions) -> None:
    reason = why_not_comparable(first, second)
    if reason:
        raise ConfigError(f"cannot compare {first!r} with {second!r}: {reason}; predict both on the same split")


def right_clips(predictions: Predictions) -> npt.NDArray[np.bool_]:
    """(n,) whether the target alone has the first place; single label."""
    return top_k_hits(predictions.logits, predictions.targets, 1) == 1.0


def _with_test(comparison: Comparison, first: Predictions, second: Predictions, resamples: Resamples) -> Comparison:
    """Adds counts and p-value; a clip whose first place is tied counts as wrong."""
    gains = right_clips(second).astype(np.int64) - right_clips(first)
    units, num_units = resamples.units()
    gained, lost = (np.bincount(units[gains == sign], minlength=num_units) for sign in (1, -1))
    return replace(
        comparison,
        only_first_right=int(lost.sum()),
        only_second_right=int(gained.sum()),
        p_value=sign_flip_test(gained - lost),
    )


def add_holm(rows: Sequence[dict[str, Any]]) -> None:
    """Gives each row of a family of tests its p-value adjusted for their number; none where there is no test."""
    tested = [row for row in rows if row["p_value"] is not None]
    adjusted = iter(holm([row["p_value"] for row in tested]))
    for row in rows:
        row["p_value_holm"] = None if row["p_value"] is None else next(adjusted)
