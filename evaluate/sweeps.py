"""The headline against the number of frames or of temporal layers (CMDCL, Fig. 7), over runs that differ in it alone.

Runs with several seeds count as one point with a spread. The decision to question: whatever else differs in the
resolved configuration or in the features, seed and label apart, makes another sweep, so that no point owes its place to
a second change. Pooled tokens are the exception: their fingerprint knows the number of frames.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluate.across_runs import question
from evaluate.benchmarks import rule_of
from evaluate.paper import PaperResult, paper_results


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A key under [train] that is varied, what it is called, and where the paper prints the same curve."""

    key: str
    label: str
    table: str
    setting: str


AXES = (
    Axis(key="num_frames", label="frames", table="fig7b", setting="frames"),
    Axis(key="cmdcl.sta_layers", label="temporal layers", table="fig7a", setting="sta_layers"),
)


def sweeps(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The document's `sweeps`: one entry per family of runs, axis and split.

    Args:
        runs: the document's.

    Returns:
        [{"key", "label", "dataset", "task", "protocol", "method", "split", "metric", "points": [{"x", "mean", "sd"
        (null with one seed), "runs"}], "published": [{"x", "percent", "metric", "source"}]}], x in ascending order.
    """
    return [
        sweep
        for axis in AXES
        for family in _families(runs, axis)
        for split in sorted({name for run in family for name in run["splits"]})
        if (sweep := _sweep(family, axis, split)) is not None
    ]


def _families(runs: Sequence[Mapping[str, Any]], axis: Axis) -> list[list[Mapping[str, Any]]]:
    """Evaluated runs of one question and configuration but for the axis, the seed and the label."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        training = run["config"].get("train", {})
        if run["splits"] and _at(training, axis.key) is not None:
            rest = _without(training, axis.key)
            rest = {key: value for key, value in rest.items() if key not in ("seed", "variant")}
            others = {key: value for key, value in run["config"].items() if key != "train"}
            made_of = {stream: digest for stream, digest in run["fingerprints"].items() if stream != "video_tokens"}
            mark = json.dumps([question(run), run["method"], run["headline"], others, rest, made_of], sort_keys=True)
            found.setdefault(mark, []).append(run)
    return list(found.values())


def _sweep(family: Sequence[Mapping[str, Any]], axis: Axis, split: str) -> dict[str, Any] | None:
    """One curve; None where the axis has a single value."""
    inside = [run for run in family if split in run["splits"]]
    values: dict[int, list[Mapping[str, Any]]] = {}
    for run in inside:
        values.setdefault(_at(run["config"]["train"], axis.key), []).append(run)
    if len(values) < 2:
        return None
    first = inside[0]
    facts = {key: first[key] for key in ("dataset", "task", "protocol", "method")}
    points = [_point(x, values[x], split) for x in sorted(values)]
    published = [
        {"x": x, "percent": row.value, "metric": row.metric, "source": row.source}
        for x, row in _printed(first, axis, split)
    ]
    head = {"key": f"train.{axis.key}", "label": axis.label, **facts, "split": split, "metric": first["headline"]}
    return {**head, "points": points, "published": published}


def _point(x: int, runs: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    scores = [run["splits"][split][run["headline"]] for run in runs]
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return {"x": x, "mean": float(np.mean(scores)), "sd": sd, "runs": [run["label"] for run in runs]}


def _printed(run: Mapping[str, Any], axis: Axis, split: str) -> list[tuple[int, PaperResult]]:
    """The paper's curve on the same benchmark, in a metric that the headline may be compared with."""
    if run["method"] != "cmdcl":
        return []
    names = {key: run[key] for key in ("dataset", "protocol", "task", "kind")}
    rule = rule_of(**names, num_classes=len(run["splits"][split]["per_class"]))
    prefix = f"{axis.setting}="
    rows = [row for row in paper_results() if row.paper == "CMDCL" and row.table == axis.table]
    fitting = [row for row in rows if row.is_of(rule) and run["headline"] in row.metrics(rule.kind)]
    found = [(int(row.settings.removeprefix(prefix)), row) for row in fitting if row.settings.startswith(prefix)]
    return sorted(found, key=lambda item: item[0])


def _at(training: Mapping[str, Any], dotted: str) -> Any:  # noqa: ANN401 (any JSON)
    value: Any = training
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _without(training: Mapping[str, Any], dotted: str) -> dict[str, Any]:
    """The configuration without one key."""
    head, _, tail = dotted.partition(".")
    if not tail:
        return {key: value for key, value in training.items() if key != head}
    return {key: _without(value, tail) if key == head else value for key, value in training.items()}
