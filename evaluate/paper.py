"""The figures that the three papers print, to stand beside a run of the same dataset, method and metric.

`paper_results.csv` holds every figure of the papers' tables (accuracies and mAP in percent); figures marked "secondary
summary" were not read in the paper itself. The decision to question: only rows of the full method are offered, those
whose settings are the headline ones, and only to runs that are the full method by their resolved switches, whatever
they are called. A row of an ablation differs from a run in more than a table can say.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cache.manifest import TaskKind

_FILE = Path(__file__).parent / "paper_results.csv"
_HEADLINE_SETTINGS = {"vlm", "pretraining", "pretrimmed", "frames"}
_METRICS: dict[TaskKind, dict[str, tuple[str, ...]]] = {
    "single": {"acc1": ("acc1",), "acc5": ("acc5",), "mean_class_acc": ("mean_class_accuracy",)},
    # No paper says which average its mAP is, so that both stand beside it.
    "multi": {"map": ("map_macro", "map_micro")},
}
_FULL_METHOD: dict[str, dict[str, Any]] = {
    "cmdcl": {"variant": "", "cmdcl.tci": True, "cmdcl.vci": True, "cmdcl.temporal_control": False},
}
"""Keys under [train] that make a run the full method; a method that is not listed gets no figures beside it."""
_ALIASES = {"smarthome": "toyotasmarthome", "toyota": "toyotasmarthome"}


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
        return _METRICS[kind].get(self.metric, ())


@cache
def paper_results() -> tuple[PaperResult, ...]:
    """All rows of `paper_results.csv`."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(PaperResult(value=float(row.pop("value")), **row) for row in rows)


def published(*, dataset: str, protocol: str, task: str, method: str, kind: TaskKind) -> tuple[PaperResult, ...]:
    """What the papers print for the full method on this dataset, without repetitions.

    Args:
        dataset: its name in the manifest; the protocol or the task may carry the benchmark's name too (Gym99).
        protocol: of the run.
        task: of the run.
        method: "cmdcl", "pcmci" or "pevl"; a backbone in the paper's row ("PeVL ViT-B/16") is kept in the row.
        kind: accuracies belong to single-label tasks, mAP to multi-label ones.
    """
    benchmarks = {_ALIASES.get(slug, slug) for slug in map(_slug, (dataset, protocol, task))} - {""}
    found: dict[tuple[str, float], PaperResult] = {}
    for row in paper_results():
        same_method = _slug(row.method.split(" ")[0]) == _slug(method) and _is_full_row(row)
        if same_method and _slug(row.dataset) in benchmarks and row.metrics(kind):
            found.setdefault((row.metric, row.value), row)
    return tuple(found.values())


def is_full_method(method: str, config: Mapping[str, Any]) -> bool:
    """Whether a run's resolved configuration has the switches of the paper's full method; a missing key says no."""
    switches = _FULL_METHOD.get(method, {})
    return bool(switches) and all(_at(config, f"train.{key}") == value for key, value in switches.items())


def _at(config: Mapping[str, Any], dotted: str) -> Any:  # noqa: ANN401 (any JSON)
    value: Any = config
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_full_row(row: PaperResult) -> bool:
    names = {setting.split("=")[0] for setting in row.settings.split("; ") if setting}
    return names <= _HEADLINE_SETTINGS and "," not in row.method and not row.table.startswith("fig")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
