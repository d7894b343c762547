"""What several runs say together: paired differences on the same clips, and how much another seed changes a number.

The decision to question: the first run of a task is the reference of all later ones, and no other pair is formed. What
a run has drawn for its own intervals serves every pair that it is in, so that a comparison costs a subtraction.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cache.predictions import Predictions
from evaluate.compare import add_holm, compare_drawn, why_not_comparable
from evaluate.differences import Pair, describe_differences
from evaluate.uncertainty import Draws


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """A run as the document has it, with what its numbers were computed from.

    Attributes:
        body: its entry in the document; `evaluate.summary` has the shape.
        predictions: by split, those that are evaluated.
        draws: of the same splits.
    """

    body: dict[str, Any]
    predictions: Mapping[str, Predictions]
    draws: Mapping[str, Draws]


def compare_all(
    runs: Sequence[EvaluatedRun], *, detailed: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The document's `comparisons` and `not_compared`: the first run of every task with each later one, by split.

    Args:
        runs: in the order of the report.
        detailed: add the differences of classes, groups and clips.
    """
    compared: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for first, second, split in _pairs(runs):
        names = {"first": first.body["label"], "second": second.body["label"], "split": split}
        items = first.predictions[split], second.predictions[split]
        reason = why_not_comparable(*items)
        if reason:
            refused.append({**names, "reason": reason})
            continue
        found = compare_drawn(*items, first.draws[split], second.draws[split])
        compared.append(
            {
                **names,
                "cluster": first.body["splits"][split]["cluster"],
                "differences": {name: asdict(item) for name, item in found.differences.items()},
                "only_first_right": found.only_first_right,
                "only_second_right": found.only_second_right,
                "p_value": found.p_value,
                **(_details(first, items, split) if detailed else {}),
            }
        )
    add_holm(compared)
    for metric in dict.fromkeys(name for row in compared for name in row["differences"]):
        add_holm([row["differences"][metric] for row in compared if metric in row["differences"]])
    return compared, refused


def _details(first: EvaluatedRun, items: tuple[Predictions, Predictions], split: str) -> dict[str, Any]:
    pair = Pair(
        first=items[0],
        second=items[1],
        headline=first.body["headline"],
        resamples=first.draws[split].resamples,
        cluster=first.body["splits"][split]["cluster"],
    )
    return describe_differences(pair)


def _pairs(runs: Sequence[EvaluatedRun]) -> Iterator[tuple[EvaluatedRun, EvaluatedRun, str]]:
    """The first run of every task with each later one, on every split that both predicted."""
    references: dict[tuple[str, ...], EvaluatedRun] = {}
    for run in runs:
        reference = references.setdefault(question(run.body), run)
        if reference is not run:
            for split in sorted(reference.draws.keys() & run.draws.keys()):
                yield reference, run, split


def question(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run answers: runs of one dataset, task and protocol belong in one table."""
    return run["dataset"], run["task"], run["protocol"]


def over_seeds(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The document's `over_seeds`: the headline where one configuration was trained with several seeds."""
    keys = ("dataset", "task", "protocol", "method", "variant")
    rows = []
    for family in families([run for run in runs if run["splits"]]):
        members = _one_run_per_seed(family)
        for split in sorted(set(itertools.chain.from_iterable(run["splits"] for run in members))):
            inside = [run for run in members if split in run["splits"]]
            if len(inside) < 2:
                continue
            metric = inside[0]["headline"]
            values = [run["splits"][split][metric] for run in inside]
            row = {"split": split, "metric": metric, "runs": [run["label"] for run in inside], "num_seeds": len(inside)}
            rows.append({**{key: inside[0][key] for key in keys}, **row, **spread(values)})
    return rows


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation of a sample; one value has no deviation."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": deviation}


def families(runs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Runs that differ in their seed alone: the same resolved configuration on the same features."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        training = {key: value for key, value in run["config"].get("train", {}).items() if key != "seed"}
        made_of = json.dumps([{**run["config"], "train": training}, run["fingerprints"]], sort_keys=True)
        found.setdefault((*question(run), run["headline"], run["method"], run["variant"], made_of), []).append(run)
    return list(found.values())


def family_name(family: Sequence[Mapping[str, Any]]) -> str:
    """The labels of its runs; what stands before their numbers once, if it is the same: "tci/seed0, 1, 2"."""
    labels = [run["label"] for run in family]
    starts = {label.rstrip("0123456789") for label in labels}
    start = starts.pop() if len(starts) == 1 else ""
    return start + ", ".join(label.removeprefix(start) for label in labels)


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
