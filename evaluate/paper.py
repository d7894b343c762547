"""The figures that the three papers print, to stand beside a run of the same dataset, method and metric.

`paper_results.csv` holds every figure of the papers' tables (accuracies and mAP in percent); figures marked "secondary
summary" were not read in the paper itself. The decision to question: `published` offers rows of the full method alone,
those whose settings are the headline ones, and only to runs under the benchmark's rule that are the full method by
their resolved switches, whatever they are called. A row of an ablation differs from a run in more than a table can say;
who trained that very row asks for it by name, with `printed`.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cache.manifest import TaskKind
from evaluate.benchmarks import RULES, Rule, slug

_FILE = Path(__file__).parent / "paper_results.csv"
_HEADLINE_SETTINGS = {"vlm", "pretraining", "pretrimmed", "frames"}
_METRICS: dict[TaskKind, dict[str, tuple[str, ...]]] = {
    "single": {"acc1": ("acc1",), "acc5": ("acc5",), "mean_class_acc": ("mean_class_accuracy",)},
    # No paper says which average its mAP is, so that all stand beside it, the benchmark's own first.
    "multi": {"map": ("map_macro", "map_micro")},
}
_FULL_METHOD: dict[str, dict[str, Any]] = {
    "cmdcl": {
        "cmdcl.tci": True,
        "cmdcl.tci_b": "video",
        "cmdcl.vci": True,
        "cmdcl.temporal_control": False,
        "cmdcl.scene": "kept",
        "cmdcl.evidence": False,
    },
    "pcmci": {
        "pcmci.stages": ["ich", "ici", "ivc"],
        "pcmci.ich_weights": "plan",
        "pcmci.ich_b": "video",
        "pcmci.scene": "kept",
        "pcmci.ici_agg": "concat",
        "pcmci.mediator": "text",
        "pcmci.ivc": "relation",
    },
    "pevl": {
        "pevl.encoders": ["video", "pose", "text"],
        "pevl.adapters": ["video", "pose", "text"],
        "pevl.pose_input": "coordinates",
        "pevl.p2v": "key",
        "pevl.v2p": True,
        "pevl.lambda_r": 0.1,
        "pevl.fusion": "sgmc",
        "pevl.similarities": ["vs", "ps", "fw"],
        "pevl.strengths": "semantic",
    },
}
"""Switches under [train] that make a run the full method: those that an ablation turns, not sizes and schedules."""


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """One printed figure; `metric` is the paper's word, `settings` are the switches or inputs of its row."""

    paper: str
    table: str
    dataset: str
    method: str
    metric: str
    value: float
    settings: str
    source: str

    def metrics(self, kind: TaskKind) -> tuple[str, ...]:
        """The metrics of ours that this figure may be compared with, for a task of that kind."""
        ours = _METRICS[kind].get(self.metric, ())
        own: tuple[str, ...] = ()
        if self.metric == "map":
            own = next((rule.metrics for rule in RULES if rule.kind == kind and self.is_of(rule)), ())
        return tuple(dict.fromkeys((*own, *ours))) if ours else ()

    def is_of(self, rule: Rule) -> bool:
        """Whether what is judged by this rule is on the benchmark of this figure."""
        return slug(self.dataset) in rule.names


@cache
def paper_results() -> tuple[PaperResult, ...]:
    """All rows of `paper_results.csv`."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(PaperResult(value=float(row.pop("value")), **row) for row in rows)


def published(rule: Rule, *, method: str) -> tuple[PaperResult, ...]:
    """What the papers print for the full method on a benchmark, without repetitions.

    Args:
        rule: of the benchmark; under a default there is nothing. Accuracies belong to single-label tasks, mAP to
            multi-label ones.
        method: "cmdcl", "pcmci" or "pevl"; a backbone in the paper's row ("PeVL ViT-B/16") is kept in the row.
    """
    found: dict[tuple[str, float], PaperResult] = {}
    for row in paper_results():
        same_method = slug(row.method.split(" ")[0]) == slug(method) and _is_full_row(row)
        if same_method and row.is_of(rule) and row.metrics(rule.kind):
            found.setdefault((row.metric, row.value), row)
    return tuple(found.values())


def printed(*, paper: str, table: str, method: str, settings: str = "") -> tuple[PaperResult, ...]:
    """All figures of one row of one table, on every dataset and in every metric of that row.

    Args:
        paper: "CMDCL", "PCMCI" or "PeVL".
        table: as in `paper_results.csv`.
        method: the row's own words.
        settings: the row's switches, as in the file.

    Raises:
        ValueError: the file has no such row.
    """
    wanted = (paper, table, method, settings)
    found = tuple(row for row in paper_results() if (row.paper, row.table, row.method, row.settings) == wanted)
    if not found:
        raise ValueError(f"{_FILE.name} has no row {wanted}")
    return found


def is_full_method(method: str, config: Mapping[str, Any]) -> bool:
    """Whether a run's resolved configuration has the switches of the paper's full method; a missing key says no."""
    if method not in _FULL_METHOD:
        return False
    switches = {"variant": "", **_FULL_METHOD[method]}
    return all(_at(config, f"train.{key}") == value for key, value in switches.items())


def _at(config: Mapping[str, Any], dotted: str) -> Any:  # noqa: ANN401 (any JSON)
    value: Any = config
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_full_row(row: PaperResult) -> bool:
    names = {setting.split("=")[0] for setting in row.settings.split("; ") if setting}
    return names <= _HEADLINE_SETTINGS and "," not in row.method and not row.table.startswith("fig")
