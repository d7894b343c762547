"""Where two models on the same clips differ: class by class, group by group, clip by clip.

The decision to question: every table corrects its own p-values for its own length (Holm), because a reader who looks
through 48 classes for the one that gained will find one. Of a single-label task a class is judged by its recall and the
exact test of its clips; of a multi-label one by its average precision and the paired bootstrap, with degrees of freedom
for the clips (or subjects) that have the class: two clips of a rare class say next to nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.predictions import Predictions
from evaluate.clusters import resamples_of
from evaluate.compare import add_holm, right_clips
from evaluate.groups import shown_groups
from evaluate.metrics import class_recalls, has_label, resampled_card
from evaluate.ranking import Floats, Indices, RankedScores
from evaluate.uncertainty import (
    Draws,
    Interval,
    Resamples,
    paired_differences,
    sign_flip_test,
    student_interval,
)
from evaluate.wrong_clips import MOST_CLIPS, clip_errors, describe


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two predictions that `compare` accepts, and how they are compared.

    Attributes:
        first: the reference.
        second: the challenger.
        headline: the metric that stands first.
        resamples: of the clips.
        cluster: the group that is drawn together; None for each clip alone.
    """

    first: Predictions
    second: Predictions
    headline: str
    resamples: Resamples
    cluster: str | None


def describe_differences(pair: Pair) -> dict[str, Any]:
    """What `deconfound compare` adds to a comparison: `per_class`, `groups`, `changed`."""
    return {"per_class": _per_class(pair), "groups": _per_group(pair), "changed": _changed(pair)}


def _per_class(pair: Pair) -> list[dict[str, Any]]:
    """A row per class that has a positive, the largest gain first."""
    single = pair.first.kind == "single"
    rows = _by_recall(pair) if single else _by_precision(pair)
    add_holm(rows)
    return sorted(rows, key=lambda row: (-row["difference"], row["name"]))


def _by_recall(pair: Pair) -> list[dict[str, Any]]:
    targets = pair.first.targets
    before, after = (class_recalls(item.logits, targets) for item in (pair.first, pair.second))
    gains = right_clips(pair.second).astype(np.int64) - right_clips(pair.first)
    rows = []
    for number, name in enumerate(pair.first.class_names):
        inside = targets == number
        if inside.any():
            row = _row(before[number], after[number], num_clips=int(inside.sum()))
            rows.append({"name": name, **row, "p_value": _count_test(gains[inside], pair.resamples, inside)})
    return rows


def _by_precision(pair: Pair) -> list[dict[str, Any]]:
    labels = pair.first.targets
    weigh = has_label(labels) if pair.headline == "map_charades" else np.ones(len(labels))
    ranked = [RankedScores(item.logits, labels) for item in (pair.first, pair.second)]
    before, after = (item.average_precision(weigh) for item in ranked)
    drawn = np.concatenate(
        [
            ranked[1].average_precisions(weights * weigh) - ranked[0].average_precisions(weights * weigh)
            for weights in pair.resamples.blocks()
        ]
    )
    units, _ = pair.resamples.units()
    rows = []
    for number, name in enumerate(pair.first.class_names):
        inside = labels[:, number] == 1
        if inside.any():
            row = _row(before[number], after[number], num_clips=int(inside.sum()))
            num_units = len(set(units[inside].tolist()))
            rows.append({"name": name, **row, **_class_interval(row["difference"], drawn[:, number], num_units)})
    return rows


def _row(before: float, after: float, *, num_clips: int) -> dict[str, Any]:
    values = {"first": float(before), "second": float(after), "difference": float(after - before)}
    return {"num_clips": num_clips, **values, "low": None, "high": None, "p_value": None}


def _class_interval(gain: float, draws: Floats, num_units: int) -> dict[str, Any]:
    if num_units < 2:
        return {}
    return _edges(student_interval(gain, draws, num_units=num_units, bounds=(-1.0, 1.0)))


def _edges(interval: Interval) -> dict[str, Any]:
    return {key: getattr(interval, key) for key in ("low", "high", "p_value")} if interval.is_known else {}


def _count_test(gains: Indices, resamples: Resamples, inside: npt.NDArray[np.bool_] | None = None) -> float:
    """The exact test of clips that one model gets right and another does not, whole units flipped."""
    units, num_units = resamples.units()
    chosen = units if inside is None else units[inside]
    return sign_flip_test(np.bincount(chosen, weights=gains, minlength=num_units).astype(np.int64))


def _per_group(pair: Pair) -> dict[str, list[dict[str, Any]]]:
    """Group -> a row per value, the largest gain first: the comparison of the clips of that value alone."""
    found = {}
    for group in shown_groups(pair.first):
        values = np.array(pair.first.groups[group])
        rows = []
        for value in sorted(set(values.tolist())):
            inside = np.flatnonzero(values == value)
            if pair.first.kind == "single" or pair.first.targets[inside].any():
                rows.append({"value": value, **_group_row(pair, group, inside)})
        add_holm(rows)
        found[group] = sorted(rows, key=lambda row: (-row["difference"], row["value"]))
    return found


def _group_row(pair: Pair, group: str, rows: Indices) -> dict[str, Any]:
    cluster = None if group == pair.cluster else pair.cluster  # within one subject, clips are what is drawn
    first, second = (_subset(item, rows) for item in (pair.first, pair.second))
    drawn = pair.resamples
    resamples = resamples_of(first, cluster=cluster, num_resamples=drawn.count, seed=drawn.seed)
    cards = [resampled_card(item) for item in (first, second)]
    before, after = (card(None)[pair.headline] for card in cards)
    row = _row(before, after, num_clips=len(rows))
    if resamples.units()[1] >= 2:
        draws = [Draws.of(card, resamples) for card in cards]
        row |= _edges(paired_differences(*draws)[pair.headline])
    if pair.headline == "acc1":
        gains = right_clips(second).astype(np.int64) - right_clips(first)
        row["p_value"] = _count_test(gains, resamples)
    return row


def _subset(predictions: Predictions, rows: Indices) -> Predictions:
    return replace(
        predictions,
        clip_ids=tuple(predictions.clip_ids[row] for row in rows.tolist()),
        logits=predictions.logits[rows],
        targets=predictions.targets[rows],
        groups={name: tuple(values[row] for row in rows.tolist()) for name, values in predictions.groups.items()},
        skipped={},
    )


def _changed(pair: Pair) -> dict[str, Any]:
    """Clips that the second gets right and the first does not (multi label: whose error fell most), and the reverse."""
    errors = [clip_errors(item) for item in (pair.first, pair.second)]
    fell = errors[0] - errors[1]
    fixed, broken = fell > 0, fell < 0
    if pair.first.kind == "single":
        before, after = right_clips(pair.first), right_clips(pair.second)
        fixed, broken = after & ~before, before & ~after
    return {
        "num_fixed": int(fixed.sum()),
        "num_broken": int(broken.sum()),
        "fixed": _clips(pair, errors, np.argsort(-np.where(fixed, fell, -np.inf), kind="stable"), int(fixed.sum())),
        "broken": _clips(pair, errors, np.argsort(np.where(broken, fell, np.inf), kind="stable"), int(broken.sum())),
    }


def _clips(pair: Pair, errors: Sequence[Floats], order: Indices, num_clips: int) -> list[dict[str, Any]]:
    found = []
    for row in order[: min(num_clips, MOST_CLIPS)].tolist():
        first, second = (
            asdict(describe(item, row, error[row]))
            for item, error in zip((pair.first, pair.second), errors, strict=True)
        )
        about = {key: first[key] for key in ("clip_id", "groups")}
        found.append({**about, "first": _told(first), "second": _told(second)})
    return found


def _told(clip: Mapping[str, Any]) -> dict[str, Any]:
    return {key: clip[key] for key in ("error", "labels", "num_labels", "mistaken")}
