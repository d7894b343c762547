"""One number of a benchmark whose protocol is several folds: the mean over the folds of one configuration.

Folds are protocols that are called split or fold and a number, as Breakfast's split1 to split4. The decision to
question: there is a mean only where every fold has a run; the mean of three folds of four is a number that nobody else
reports. Several seeds of a fold count as their mean. No interval stands beside the mean: training sets of folds
overlap, and what the folds differ by is not what another set of folds would.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_FOLD = re.compile(r"(?:split|fold)[ _-]?(\d+)", re.IGNORECASE)
NUM_FOLDS: Mapping[str, int] = {"breakfast": 4}
"""By dataset, where the benchmark says how many there are; else they must be numbered from 1 without a gap."""


def over_folds(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The document's `over_folds`: the headline of every split of every configuration that all folds have a run of."""
    keys = ("dataset", "task", "method", "variant")
    rows = []
    for family in _families(runs):
        by_fold = _by_fold(family)
        if not _is_complete(family[0]["dataset"], list(by_fold)):
            continue
        for split in sorted(set.intersection(*({*run["splits"]} for run in family))):
            metric = family[0]["headline"]
            folds = [_fold(members, split, metric) for _, members in sorted(by_fold.items())]
            values = [fold["value"] for fold in folds]
            spread = {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
            rows.append(
                {**{key: family[0][key] for key in keys}, "split": split, "metric": metric, **spread, "folds": folds}
            )
    return rows


def fold_number(protocol: str) -> int | None:
    """The number of a fold; None where the protocol is none."""
    found = _FOLD.fullmatch(protocol)
    return int(found[1]) if found else None


def _fold(runs: Sequence[Mapping[str, Any]], split: str, metric: str) -> dict[str, Any]:
    value = float(np.mean([run["splits"][split][metric] for run in runs]))
    return {"protocol": runs[0]["protocol"], "runs": [run["label"] for run in runs], "value": value}


def _by_fold(family: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for run in family:
        number = fold_number(run["protocol"])
        assert number is not None
        found.setdefault(number, []).append(run)
    return found


def _is_complete(dataset: str, numbers: Sequence[int]) -> bool:
    expected = NUM_FOLDS.get(dataset.lower(), max(2, *numbers, len(numbers)))
    return sorted(numbers) == list(range(1, expected + 1))


def _families(runs: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Evaluated runs on folds that differ in fold and seed alone: the same configuration on the same features."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        if run["splits"] and fold_number(run["protocol"]) is not None:
            training = {
                key: value for key, value in run["config"].get("train", {}).items() if key not in ("seed", "protocol")
            }
            made_of = json.dumps([{**run["config"], "train": training}, run["fingerprints"]], sort_keys=True)
            key = (run["dataset"], run["task"], run["headline"], run["method"], run["variant"], made_of)
            found.setdefault(key, []).append(run)
    return list(found.values())
