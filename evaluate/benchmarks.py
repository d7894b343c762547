"""The rules of the benchmarks: which metrics each is judged by, and which of them stands first.

Summary, tables, page and ablations ask `rule_of` and nothing else, so that no two of them put another number first.
The decision to question: a run is on a benchmark by its names alone (dataset, protocol or task, in any spelling, as for
the papers' figures) and by the kind of its task. What is no benchmark has the default of its kind, with no rule to
quote. `published` figures of the papers do not follow these rules where they say none: see evaluate/paper.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cache.manifest import TaskKind


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a task is judged.

    Attributes:
        metrics: what a table of results shows first; the first of them is the headline.
        title: of the benchmark; empty where none applies.
        text: the rule and where it comes from, in one sentence; empty where none applies.
    """

    metrics: tuple[str, ...]
    title: str = ""
    text: str = ""

    @property
    def headline(self) -> str:
        """The metric that stands first."""
        return self.metrics[0]

    @property
    def sentence(self) -> str:
        """The rule under the benchmark's name; empty where none applies."""
        return f"Rule of {self.title}: {self.text}" if self.title else ""


DEFAULTS: Mapping[TaskKind, Rule] = {
    "single": Rule(metrics=("acc1", "acc5", "mean_class_accuracy")),
    "multi": Rule(metrics=("map_macro", "map_micro", "map_charades")),
}
"""For a task of no benchmark."""

_GYM = Rule(
    title="FineGym",
    metrics=("acc1", "mean_class_accuracy"),
    text="Top-1 accuracy over all clips and its mean over the classes, as the FAQ of FineGym defines them.",
)
_RULES: Mapping[tuple[str, TaskKind], Rule] = {
    ("breakfast", "single"): Rule(
        title="Breakfast, activities",
        metrics=("acc1",),
        text=(
            "Acc@1 with every camera view a clip of its own; the test part of the default protocol, 355 views of the "
            "8 persons P47 to P54, is that of VideoGraph and MA-LMM."
        ),
    ),
    ("breakfast", "multi"): Rule(
        title="Breakfast, atomic actions",
        metrics=("map_macro", "map_macro_without_sil"),
        text=(
            "Macro mAP over the 48 coarse actions of a view, times ignored, with SIL as in VideoGraph; SIL is in "
            "nearly every view, so that the mean over the other 47 stands beside it."
        ),
    ),
    ("coin", "single"): Rule(
        title="COIN, tasks",
        metrics=("acc1", "acc5"),
        text="Acc@1 and Acc@5 over the 180 tasks of COIN.json, each video one clip.",
    ),
    ("coin", "multi"): Rule(
        title="COIN, steps",
        metrics=("map_macro", "map_macro_all_zero"),
        text=(
            "Macro mAP over those of the 778 steps that occur in the split, times ignored; no public code says what "
            "becomes of the others, so that the mean that counts them 0 stands beside it."
        ),
    ),
    ("charades", "multi"): Rule(
        title="Charades",
        metrics=("map_charades", "map_macro"),
        text=(
            "mAP over the 157 actions as in the official Charades_v1_classify.m, where videos without any action rank "
            "last; beside it the plain mAP, which ranks them by their scores, as SlowFast and Timeception do."
        ),
    ),
    ("diving48", "single"): Rule(
        title="Diving48",
        metrics=("acc1", "mean_class_accuracy"),
        text="Top-1 accuracy over the test clips, and its mean over the classes as AIM evaluates it.",
    ),
    ("haa500", "single"): Rule(
        title="HAA500",
        metrics=("acc1",),
        text="Top-1 accuracy over the test clips, three of each of the 500 classes.",
    ),
    ("finegym", "single"): _GYM,
    ("gym99", "single"): _GYM,
    ("gym288", "single"): _GYM,
    ("toyotasmarthome", "single"): Rule(
        title="Toyota Smarthome",
        metrics=("mean_class_accuracy", "acc1"),
        text=(
            "Accuracy averaged over the classes that the test part holds, as the authors' code balances it; Acc@1, in "
            "which a few frequent classes decide, stands beside it."
        ),
    ),
}
_ALIASES = {"smarthome": "toyotasmarthome", "toyota": "toyotasmarthome"}


def rule_of(*, dataset: str, protocol: str, task: str, kind: TaskKind) -> Rule:
    """How a run is judged: by its benchmark's rule, or by the default for its kind of task.

    Args:
        dataset: its name in the manifest; the protocol or the task may carry the benchmark's name too (Gym99).
        protocol: of the run.
        task: of the run.
        kind: of the task.
    """
    names = benchmark_names(dataset, protocol, task)
    return next((_RULES[name, kind] for name in names if (name, kind) in _RULES), DEFAULTS[kind])


def benchmark_names(*names: str) -> tuple[str, ...]:
    """Names without case, signs and aliases, in which one benchmark has one name; empty ones are left out."""
    slugs = (re.sub(r"[^a-z0-9]", "", name.lower()) for name in names)
    return tuple(_ALIASES.get(slug, slug) for slug in slugs if slug)
