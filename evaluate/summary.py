"""Runs in, one JSON document out: every number that a report shows, computed here and nowhere else.

The decision to question: the report's page, its Markdown and its CSV are rendered from this document alone, so that
they cannot disagree with `metrics.json`. Values are fractions at full precision; only the renderers round.

    {"level", "num_resamples", "seed", "cluster",
     "runs": [{"label", "name", "method", "variant", "task", "kind", "dataset", "protocol", "seed", "recipe", "status",
               "notices", "fingerprints", "versions", "config", "curves": [row per epoch],
               "headline": metric, "main_metrics": [metric], "benchmark": null or {"name", "rule"},
               "splits": {split: {<metric>: value, ..., "intervals": {metric: {"low", "high", "method", "bias"}},
                                  "per_class", "confusion" (single label), "groups", "skipped": {reason: clips},
                                  "num_official", "coverage", "remarks": [sentence],
                                  "co_classification" (multi label, see evaluate/coclassification.py)}},
               "explained": {split: what `predict --explain` stored, see evaluate/explained.py},
               "published": [{"paper", "table", "method", "metric", "compare_with", "percent", "settings", "source"}]}],
     "comparisons": [{"first", "second", "split", "only_first_right", "only_second_right", "p_value", "p_value_holm",
                      "differences": {metric: {"estimate", "low", "high", "level", "method", "bias"}}}],
     "not_compared": [{"first", "second", "split", "reason"}],
     "over_seeds": [{"dataset", "task", "protocol", "method", "variant", "split", "metric", "runs": [label],
                     "num_seeds", "mean", "sd"}],
     "sweeps": [one curve over a setting, see evaluate/sweeps.py]}

A run's "dataset" and "protocol" are those of its predictions; where its splits disagree, those that it was trained on,
with a notice. The first of its `main_metrics` is its `headline`; both follow the `benchmark`'s rule where there is one.
The average precisions of `per_class` average to the headline where that is `map_charades`, else to `map_macro`.
`num_official` is how many clips the benchmark has in a split, null where that is not known; `coverage` says on how many
of them the numbers stand, and is empty where none is missing; `remarks` say how many classes are left out of means and
how many scores are tied. A metric without an interval has the same value on every resample, or there is a single
cluster. An interval's `bias` is the mean of the resamples minus the value: a basic interval corrects for it, and can
lie beside the value. `p_value` is McNemar's; with a `cluster`, of the sign-flip test over clusters.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cache.errors import ConfigError
from cache.predictions import Predictions
from cache.run import Run, RunInfo
from evaluate.across_runs import EvaluatedRun, compare_all, over_seeds
from evaluate.analysis import confusion_matrix, per_class, per_group
from evaluate.benchmarks import Rule, judge
from evaluate.coclassification import co_classification
from evaluate.compare import resamples_of
from evaluate.coverage import coverage, remarks
from evaluate.explained import explained
from evaluate.metrics import evaluate, resampled_card
from evaluate.paper import is_full_method, published
from evaluate.sweeps import sweeps
from evaluate.uncertainty import LEVEL, Draws, Interval, bootstrap, wilson

_MOST_GROUPS = 50


def summarise(
    runs: Sequence[Run], *, cluster: str | None = None, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Evaluates every predicted split of every run; the first run of a task is what the others are compared with.

    Args:
        runs: opened run directories, in the order in which the report shows them.
        cluster: a group (e.g. "subject") whose clips are resampled together.
        num_resamples: of every bootstrap.
        seed: of every bootstrap.

    Raises:
        ConfigError: no runs, no predictions in any of them, or the group is unknown.
    """
    if not runs:
        raise ConfigError("a report needs at least one run directory")
    if not any(run.splits for run in runs):
        raise ConfigError(
            f"none of the runs {[str(run.path) for run in runs]} has predictions; run `deconfound predict`"
        )
    options: dict[str, Any] = {"cluster": cluster, "num_resamples": num_resamples, "seed": seed}
    evaluated = [_evaluate_run(run, label, options) for run, label in zip(runs, _labels(runs), strict=True)]
    bodies = [run.body for run in evaluated]
    spreads = over_seeds(bodies)
    comparisons, not_compared = compare_all(evaluated)
    return _plain(
        {
            "level": LEVEL,
            **options,
            "runs": bodies,
            "comparisons": comparisons,
            "not_compared": not_compared,
            "over_seeds": spreads,
            "sweeps": sweeps(bodies),
        }
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Run names; with their folder where a run of it shares its name with another, numbered if that is not enough."""
    names = Counter(run.info.name for run in runs)
    folders = [run.path.resolve().parent for run in runs]
    shared = {folder for run, folder in zip(runs, folders, strict=True) if names[run.info.name] > 1}
    found = [
        f"{folder.name}/{run.info.name}" if folder in shared else run.info.name
        for run, folder in zip(runs, folders, strict=True)
    ]
    totals, seen = Counter(found), Counter[str]()
    labels = []
    for label in found:
        seen[label] += 1
        labels.append(f"{label} ({seen[label]})" if totals[label] > 1 else label)
    return labels


def _evaluate_run(run: Run, label: str, options: Mapping[str, Any]) -> EvaluatedRun:
    predictions = {split: run.predictions(split) for split in run.splits}
    full = {split: item for split, item in predictions.items() if not _is_empty(item)}
    rule, notice = judge(full or predictions) if predictions else (None, "")
    draws = {split: Draws.of(resampled_card(item), resamples_of(item, **options)) for split, item in full.items()}
    body = {
        **_describe_run(run, label),
        **_place(run.info, full),
        **_judged_by(rule),
        "notices": list(dict.fromkeys([*_notices(run.info, predictions), *([notice] if notice else [])])),
        "splits": {},
        "explained": explained(run, full),
        "published": _published(run, rule) if rule else [],
    }
    by_clip = options["cluster"] is None
    for split, item in full.items():
        body["splits"][split] = _describe_split(item, draws[split], body["headline"], by_clip=by_clip)
    return EvaluatedRun(body=body, predictions=full, draws=draws)


def _describe_run(run: Run, label: str) -> dict[str, Any]:
    keys = ("name", "method", "variant", "task", "seed", "recipe", "status", "fingerprints", "versions")
    facts = {key: getattr(run.info, key) for key in keys}
    return {"label": label, **facts, "config": dict(run.config), "curves": run.metrics()}


def _place(info: RunInfo, splits: Mapping[str, Predictions]) -> dict[str, str]:
    """Dataset and protocol of the predictions where all agree, else of the training."""
    places = {(item.dataset, item.protocol) for item in splits.values()}
    dataset, protocol = places.pop() if len(places) == 1 else (info.dataset, info.protocol)
    return {"dataset": dataset, "protocol": protocol}


def _notices(info: RunInfo, predictions: Mapping[str, Predictions]) -> Iterator[str]:
    """What training and predicting noted, and what the state of the run adds."""
    yield from info.notices
    for item in predictions.values():
        yield from item.notices
    if info.status != "finished":
        yield "the run is not finished: its predictions are those of an unfinished training"
    if predictions and all(item.dataset != info.dataset for item in predictions.values()):
        yield f"trained on dataset {info.dataset}, predicted on {next(iter(predictions.values())).dataset}"
    for split in (split for split, item in predictions.items() if _is_empty(item)):
        yield f"split {split!r} holds nothing to evaluate: no clip, or no clip with a label"
    if not predictions:
        yield "the run has no predictions yet: it is listed and not evaluated"


def _judged_by(rule: Rule | None) -> dict[str, Any]:
    """Which metrics stand first, and whose rule that is; nothing is known of the task of a run without predictions."""
    if rule is None:
        return {"kind": None, "headline": None, "main_metrics": [], "benchmark": None}
    benchmark = {"name": rule.title, "rule": rule.sentence} if rule.title else None
    return {"kind": rule.kind, "headline": rule.headline, "main_metrics": rule.metrics, "benchmark": benchmark}


def _is_empty(predictions: Predictions) -> bool:
    return not len(predictions.clip_ids) or (predictions.kind == "multi" and not predictions.targets.any())


def _describe_split(predictions: Predictions, draws: Draws, headline: str, *, by_clip: bool) -> dict[str, Any]:
    card: dict[str, Any] = dict(evaluate(predictions))
    groups = {
        name: _group(predictions, name, headline)
        for name, values in predictions.groups.items()
        if 1 < len(set(values)) <= _MOST_GROUPS
    }
    card |= {
        "remarks": remarks(card),
        "intervals": {name: _edges(interval) for name, interval in _intervals(draws, by_clip=by_clip).items()},
        "per_class": [asdict(row) for row in per_class(predictions, headline=headline)],
        "groups": groups,
        "skipped": dict(sorted(Counter(predictions.skipped.values()).items())),
        "num_official": predictions.num_official,
        "coverage": coverage(predictions),
    }
    if predictions.kind == "single":
        card["confusion"] = confusion_matrix(predictions).tolist()
    else:
        card["co_classification"] = co_classification(predictions)
    return card


def _group(predictions: Predictions, name: str, headline: str) -> dict[str, Any]:
    found = per_group(predictions, name, headline=headline)
    return {value: {"num_clips": num_clips, "value": score} for value, (num_clips, score) in found.items()}


def _intervals(draws: Draws, *, by_clip: bool) -> dict[str, Interval]:
    """Bootstrap for means over classes, where it says anything; Wilson for accuracies of clips drawn one by one."""
    if draws.resamples.units()[1] < 2:
        return {}  # one clip or one subject says nothing about another
    intervals = bootstrap(draws)
    if by_clip:
        num_clips = draws.resamples.num_clips
        for name in ("acc1", "acc5"):
            if name in intervals:
                intervals[name] = wilson(intervals[name].estimate * num_clips, num_clips)
    return {name: interval for name, interval in intervals.items() if interval.is_known}


def _published(run: Run, rule: Rule) -> list[dict[str, Any]]:
    """The papers' figures of a benchmark for a full method; none for splits that are under no rule of a benchmark."""
    if not is_full_method(run.info.method, run.config):
        return []
    return [
        {
            **{key: getattr(row, key) for key in ("paper", "table", "method", "metric", "settings", "source")},
            "percent": row.value,
            "compare_with": list(row.metrics(rule.kind)),
        }
        for row in published(rule, method=run.info.method)
    ]


def _edges(interval: Interval) -> dict[str, Any]:
    return {key: getattr(interval, key) for key in ("low", "high", "method", "bias")}


def _plain(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    """JSON without NaN: a value that does not exist is null; whole-numbered counts stay floats in the card."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
