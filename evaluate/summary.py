"""Runs in, one JSON document out: every number that a report shows, computed here and nowhere else.

The decision to question: the report's page, its Markdown and its CSV are rendered from this document alone, so that
they cannot disagree with `metrics.json`. Values are fractions at full precision; only the renderers round.

    {"level", "num_resamples", "seed", "cluster": "auto", a group or null,
     "runs": [{"label", "name", "method", "variant", "task", "kind", "dataset", "protocol", "seed", "recipe", "status",
               "notices", "fingerprints", "versions", "config", "curves": [row per epoch], "costs": {what: number},
               "headline": metric, "main_metrics": [metric], "benchmark": null or {"name", "rule"},
               "splits": {split: {<metric>: value, ..., "cluster": group or null, "num_clusters",
                                  "intervals": {metric: {"low", "high", "method", "bias", "endless"}},
                                  "per_class", "confusion" (single label), "skipped": {reason: clips},
                                  "groups": {group: {value: {"num_clips", "value"}}}, "worst_groups": {group: value},
                                  "worst_clips": [{"clip_id", "error", "labels", "mistaken", "groups"}],
                                  "num_wrong" (single label), "num_official", "coverage", "remarks": [sentence],
                                  "co_classification" (multi label, see evaluate/coclassification.py)}},
               "explained": {split: what `predict --explain` stored, see evaluate/explained.py},
               "published": [{"paper", "table", "method", "metric", "compare_with", "percent", "settings", "source"}]}],
     "comparisons": [{"first", "second", "split", "cluster", "only_first_right", "only_second_right", "p_value",
                      "p_value_holm", "differences": {metric: {"estimate", "low", "high", "level", "method", "bias",
                                                               "endless", "p_value", "p_value_holm"}},
                      and from `compare`: "per_class": [row and "name"], "groups": {group: [row and "value"]}, where a
                      row is {"num_clips", "first", "second", "difference", "low", "high", "p_value", "p_value_holm"};
                      "changed": {"num_fixed", "num_broken", "fixed", "broken": [{"clip_id", "groups", and as "first"
                      and "second" what each run believed: "error", "labels", "num_labels", "mistaken"}]}}],
     "not_compared": [{"first", "second", "split", "reason"}],
     "over_seeds": [{"dataset", "task", "protocol", "method", "variant", "split", "metric", "runs": [label],
                     "num_seeds", "mean", "sd"}],
     "over_folds": [{"dataset", "task", "method", "variant", "split", "metric", "mean", "sd",
                     "folds": [{"protocol", "runs": [label], "value"}]}],
     "sweeps": [one curve over a setting, see evaluate/sweeps.py]}

A run's "dataset" and "protocol" are those of its predictions; where its splits disagree, those that it was trained on,
with a notice. The first of its `main_metrics` is its `headline`; both follow the `benchmark`'s rule where there is one.
The average precisions of `per_class` average to the headline where that is `map_charades`, else to `map_macro`.
`num_official` is how many clips the benchmark has in a split, null where that is not known; `coverage` says on how many
of them the numbers stand, and is empty where none is missing; `remarks` say how many classes are left out of means and
how many scores are tied. A metric without an interval has the same value on every resample, or there is a single
cluster. An interval's `bias` is the mean of the resamples minus the value, and `endless` what is estimated for endless
clips (evaluate/uncertainty.py). A comparison's `p_value` is McNemar's; with a `cluster`, of the sign-flip test over
clusters; that of a difference is by the bootstrap's standard error. Holm's is over all comparisons of the document.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cache.errors import ConfigError
from cache.predictions import Predictions
from cache.run import Run, RunInfo
from evaluate.across_runs import EvaluatedRun, compare_all, over_seeds
from evaluate.benchmarks import Rule, judge
from evaluate.clusters import AUTO, resamples_of
from evaluate.costs import costs
from evaluate.explained import explained
from evaluate.folds import over_folds
from evaluate.metrics import resampled_card
from evaluate.paper import is_full_method, published
from evaluate.split_summary import describe_split
from evaluate.sweeps import sweeps
from evaluate.uncertainty import LEVEL, Draws


def summarise(
    runs: Sequence[Run],
    *,
    cluster: str | None = AUTO,
    num_resamples: int = 1000,
    seed: int = 0,
    splits: Collection[str] | None = None,
    detailed: bool = False,
) -> dict[str, Any]:
    """Evaluates every predicted split of every run; the first run of a task is what the others are compared with.

    Args:
        runs: opened run directories, in the order in which the report shows them.
        cluster: a group (e.g. "subject") whose clips are resampled together; None for each clip alone, `AUTO` for
            subjects where predictions know five and more.
        num_resamples: of every bootstrap.
        seed: of every bootstrap.
        splits: those to evaluate; None for all that have predictions.
        detailed: add the differences of classes, groups and clips to every comparison.

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
    evaluated = [
        _evaluate_run(run, label, options, [name for name in run.splits if splits is None or name in splits])
        for run, label in zip(runs, labels_of(runs), strict=True)
    ]
    bodies = [run.body for run in evaluated]
    spreads = over_seeds(bodies)
    comparisons, not_compared = compare_all(evaluated, detailed=detailed)
    return _plain(
        {
            "level": LEVEL,
            **options,
            "runs": bodies,
            "comparisons": comparisons,
            "not_compared": not_compared,
            "over_seeds": spreads,
            "over_folds": over_folds(bodies),
            "sweeps": sweeps(bodies),
        }
    )


def labels_of(runs: Sequence[Run]) -> list[str]:
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


def _evaluate_run(run: Run, label: str, options: Mapping[str, Any], splits: Sequence[str]) -> EvaluatedRun:
    predictions = {split: run.predictions(split) for split in splits}
    full = {split: item for split, item in predictions.items() if not _is_empty(item)}
    rule, notice = judge(full or predictions) if predictions else (None, "")
    cards = {split: resampled_card(item) for split, item in full.items()}
    draws = {split: Draws.of(cards[split], resamples_of(item, **options)) for split, item in full.items()}
    body = {
        **_describe_run(run, label),
        **_place(run.info, full),
        **_judged_by(rule),
        "notices": list(dict.fromkeys([*_notices(run.info, predictions), *([notice] if notice else [])])),
        "splits": {},
        "explained": explained(run, full),
        "published": _published(run, rule) if rule else [],
    }
    for split, item in full.items():
        body["splits"][split] = describe_split(
            item, cards[split], draws[split], headline=body["headline"], cluster=options["cluster"]
        )
    return EvaluatedRun(body=body, predictions=full, draws=draws)


def _describe_run(run: Run, label: str) -> dict[str, Any]:
    keys = ("name", "method", "variant", "task", "seed", "recipe", "status", "fingerprints", "versions")
    facts = {key: getattr(run.info, key) for key in keys}
    return {"label": label, **facts, "config": dict(run.config), "curves": run.metrics(), "costs": costs(run)}


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


def _plain(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    """JSON without NaN: a value that does not exist is null; whole-numbered counts stay floats in the card."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
