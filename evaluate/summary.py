"""Runs in, one JSON document out: every number that a report shows, computed here and nowhere else.

The decision to question: the report's page, its Markdown and its CSV are rendered from this document alone, so that
they cannot disagree with `metrics.json`. Values are fractions at full precision; only the renderers round.

    {"level", "num_resamples", "seed", "cluster", "headline": {task kind: metric, where no benchmark has its own},
     "runs": [{"label", "name", "method", "variant", "task", "kind", "dataset", "protocol", "seed", "recipe", "status",
               "notices", "fingerprints", "versions", "config", "curves": [row per epoch],
               "headline": metric, "main_metrics": [metric], "benchmark": null or {"name", "rule", "metrics"},
               "splits": {split: {<metric>: value, ..., "intervals": {metric: {"low", "high", "method", "bias"}},
                                  "per_class", "confusion" (single label), "groups", "skipped": {reason: clips},
                                  "num_official", "coverage"}},
               "published": [{"paper", "table", "method", "metric", "compare_with", "percent", "settings", "source"}]}],
     "comparisons": [{"first", "second", "split", "only_first_right", "only_second_right", "p_value", "p_value_holm",
                      "differences": {metric: {"estimate", "low", "high", "level", "method", "bias"}}}],
     "not_compared": [{"first", "second", "split", "reason"}],
     "over_seeds": [{"dataset", "task", "protocol", "method", "variant", "split", "metric", "runs": [label],
                     "num_seeds", "mean", "sd"}]}

The first of a run's `main_metrics` is its `headline`; both follow the `benchmark`'s rule where there is one.
`num_official` is how many clips the benchmark has in a split, null where that is not known; `coverage` says on how many
of them the numbers stand, and is empty where none is missing. A metric without an interval has the same value on every
resample, or there is a single cluster. An interval's `bias` is the mean of the resamples minus the value: a basic
interval corrects for it, and can lie beside the value. `p_value` is McNemar's; with a `cluster`, of the sign-flip test
over clusters.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cache.errors import ConfigError
from cache.manifest import TaskKind
from cache.predictions import Predictions
from cache.run import Run, RunInfo
from evaluate.analysis import confusion_matrix, per_class, per_group
from evaluate.benchmarks import DEFAULTS, rule_of
from evaluate.compare import compare, resamples_of, why_not_comparable
from evaluate.coverage import coverage
from evaluate.metrics import evaluate, resampled_card
from evaluate.paper import is_full_method, published
from evaluate.uncertainty import LEVEL, Interval, bootstrap, holm, wilson

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
    labels = _labels(runs)
    predictions = [{split: run.predictions(split) for split in run.splits} for run in runs]
    described = [
        _describe_run(run, label, splits, options) for run, label, splits in zip(runs, labels, predictions, strict=True)
    ]
    over_seeds = _over_seeds(described)
    comparisons, not_compared = _compare_all(list(zip(described, predictions, strict=True)), options)
    return _plain(
        {
            "level": LEVEL,
            **options,
            "headline": {name: rule.headline for name, rule in DEFAULTS.items()},
            "runs": described,
            "comparisons": comparisons,
            "not_compared": not_compared,
            "over_seeds": over_seeds,
        }
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Run names, numbered where several runs share one."""
    totals, seen = Counter(run.info.name for run in runs), Counter[str]()
    labels = []
    for run in runs:
        seen[run.info.name] += 1
        many = totals[run.info.name] > 1
        labels.append(f"{run.info.name} ({seen[run.info.name]})" if many else run.info.name)
    return labels


def _describe_run(
    run: Run, label: str, splits: Mapping[str, Predictions], options: Mapping[str, Any]
) -> dict[str, Any]:
    info = run.info
    kind = next((item.kind for item in splits.values()), None)
    notices = dict.fromkeys([*info.notices, *(notice for item in splits.values() for notice in item.notices)])
    if info.status != "finished":
        notices["the run is not finished: its predictions are those of an unfinished training"] = None
    for split in (split for split, item in splits.items() if _is_empty(item)):
        notices[f"split {split!r} holds nothing to evaluate: no clip, or no clip with a label"] = None
    if not splits:
        notices["the run has no predictions yet: it is listed and not evaluated"] = None
    return {
        "label": label,
        **{key: getattr(info, key) for key in ("name", "method", "variant", "task", "dataset", "protocol", "seed")},
        **{"kind": kind, "recipe": info.recipe, "status": info.status, "notices": list(notices)},
        **{"fingerprints": dict(info.fingerprints), "versions": dict(info.versions), "config": dict(run.config)},
        **_judged_by(info, kind),
        "curves": run.metrics(),
        "splits": {split: _describe_split(item, options) for split, item in splits.items() if not _is_empty(item)},
        "published": _published(run, kind) if kind else [],
    }


def _judged_by(info: RunInfo, kind: TaskKind | None) -> dict[str, Any]:
    """Which metrics stand first, and whose rule that is; nothing is known of the task of a run without predictions."""
    if kind is None:
        return {"headline": None, "main_metrics": [], "benchmark": None}
    rule = rule_of(dataset=info.dataset, protocol=info.protocol, task=info.task, kind=kind)
    benchmark = {"name": rule.title, "rule": rule.sentence, "metrics": rule.metrics} if rule.title else None
    return {"headline": rule.headline, "main_metrics": rule.metrics, "benchmark": benchmark}


def _is_empty(predictions: Predictions) -> bool:
    return not len(predictions.clip_ids) or (predictions.kind == "multi" and not predictions.targets.any())


def _describe_split(predictions: Predictions, options: Mapping[str, Any]) -> dict[str, Any]:
    card: dict[str, Any] = dict(evaluate(predictions))
    groups = {
        name: {value: {"num_clips": n, "value": score} for value, (n, score) in per_group(predictions, name).items()}
        for name, values in predictions.groups.items()
        if 1 < len(set(values)) <= _MOST_GROUPS
    }
    card |= {
        "intervals": {name: _edges(interval) for name, interval in _intervals(predictions, options).items()},
        "per_class": [asdict(row) for row in per_class(predictions)],
        "groups": groups,
        "skipped": dict(sorted(Counter(predictions.skipped.values()).items())),
        "num_official": predictions.num_official,
        "coverage": coverage(predictions),
    }
    if predictions.kind == "single":
        card["confusion"] = confusion_matrix(predictions).tolist()
    return card


def _intervals(predictions: Predictions, options: Mapping[str, Any]) -> dict[str, Interval]:
    """Bootstrap for means over classes, where it says anything; Wilson for accuracies of clips drawn one by one."""
    resamples = resamples_of(predictions, **options)
    if resamples.units()[1] < 2:
        return {}  # one clip or one subject says nothing about another
    intervals = bootstrap(resampled_card(predictions), resamples)
    if options["cluster"] is None:
        num_clips = len(predictions.clip_ids)
        for name in ("acc1", "acc5"):
            if name in intervals:
                intervals[name] = wilson(intervals[name].estimate * num_clips, num_clips)
    return {name: interval for name, interval in intervals.items() if interval.is_known}


def _published(run: Run, kind: TaskKind) -> list[dict[str, Any]]:
    info = run.info
    if not is_full_method(info.method, run.config):
        return []
    rows = published(dataset=info.dataset, protocol=info.protocol, task=info.task, method=info.method, kind=kind)
    return [
        {
            **{key: getattr(row, key) for key in ("paper", "table", "method", "metric", "settings", "source")},
            "percent": row.value,
            "compare_with": list(row.metrics(kind)),
        }
        for row in rows
    ]


def _compare_all(
    runs: Sequence[tuple[dict[str, Any], Mapping[str, Predictions]]], options: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    compared: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for (first, before), (second, after), split in _pairs(runs):
        names = {"first": first["label"], "second": second["label"], "split": split}
        reason = why_not_comparable(before[split], after[split])
        if reason:
            refused.append({**names, "reason": reason})
            continue
        found = compare(before[split], after[split], **options)
        compared.append(
            {
                **names,
                "differences": {name: asdict(item) for name, item in found.differences.items()},
                "only_first_right": found.only_first_right,
                "only_second_right": found.only_second_right,
                "p_value": found.p_value,
            }
        )
    tested = [row for row in compared if row["p_value"] is not None]
    for row, adjusted in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_value_holm"] = adjusted
    return compared, refused


def _pairs(
    runs: Sequence[tuple[dict[str, Any], Mapping[str, Predictions]]],
) -> Iterator[tuple[Any, Any, str]]:
    """The first run of every task with each later one, on every split that both predicted."""
    references: dict[tuple[str, ...], tuple[dict[str, Any], Mapping[str, Predictions]]] = {}
    for run in runs:
        reference = references.setdefault(question(run[0]), run)
        if reference is not run:
            for split in sorted(reference[0]["splits"].keys() & run[0]["splits"].keys()):
                yield reference, run, split


def question(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run answers: runs of one dataset, task and protocol belong in one table."""
    return run["dataset"], run["task"], run["protocol"]


def _over_seeds(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation of the headline where one configuration was trained with several seeds."""
    keys = ("dataset", "task", "protocol", "method", "variant")
    rows = []
    for family in _families(runs):
        members = _one_run_per_seed(family)
        for split in sorted(set(itertools.chain.from_iterable(run["splits"] for run in members))):
            inside = [run for run in members if split in run["splits"]]
            if len(inside) < 2:
                continue
            metric = inside[0]["headline"]
            values = [run["splits"][split][metric] for run in inside]
            row = {"split": split, "metric": metric, "runs": [run["label"] for run in inside], "num_seeds": len(inside)}
            spread = {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
            rows.append({**{key: inside[0][key] for key in keys}, **row, **spread})
    return rows


def _families(runs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Evaluated runs that differ in their seed alone: the same resolved configuration on the same features."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for run in (run for run in runs if run["splits"]):
        training = {key: value for key, value in run["config"].get("train", {}).items() if key != "seed"}
        made_of = json.dumps([{**run["config"], "train": training}, run["fingerprints"]], sort_keys=True)
        found.setdefault((*question(run), run["method"], run["variant"], made_of), []).append(run)
    return list(found.values())


def _one_run_per_seed(family: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first run of every seed; the others get a notice."""
    first: dict[int, Mapping[str, Any]] = {}
    for run in family:
        counted = first.setdefault(run["seed"], run)
        if counted is not run:
            run["notices"].append(
                f"the same configuration and seed as {counted['label']}: over seeds that run alone counts"
            )
    return list(first.values())


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
