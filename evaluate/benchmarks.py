"""The rules of the benchmarks: which metrics each is judged by, and which of them stands first.

Summary, tables, page and ablations ask `judge` or `rule_of` and nothing else, so that no two of them put another number
first. The decision to question: predictions are on a benchmark by the name of their dataset (in any spelling), the kind
of their task and its number of classes, all three: a folder of one's own that is called `coin` has other classes, and
is no benchmark. Protocol and task name one in FineGym alone, whose two sets of classes are two benchmarks. What is no
benchmark has the default of its kind, with no rule to quote and no printed figure beside it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cache.manifest import TaskKind
from cache.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a task is judged.

    Attributes:
        kind: of the task.
        metrics: what a table of results shows first; the first of them is the headline.
        names: of the benchmark, without case and signs; none for a default.
        num_classes: of the benchmark's task; 0 for a default.
        title: of the benchmark; empty for a default.
        text: the rule and where it comes from, in one or two sentences; empty for a default.
    """

    kind: TaskKind
    metrics: tuple[str, ...]
    names: tuple[str, ...] = ()
    num_classes: int = 0
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
    "single": Rule(kind="single", metrics=("acc1", "acc5", "mean_class_accuracy")),
    "multi": Rule(kind="multi", metrics=("map_macro", "map_micro", "map_charades")),
}
"""For a task of no benchmark."""

_GYM_TEXT = "Top-1 accuracy over all clips and its mean over the classes, as the FAQ of FineGym defines them."
RULES: tuple[Rule, ...] = (
    Rule(
        names=("breakfast",),
        kind="single",
        num_classes=10,
        title="Breakfast, activities",
        metrics=("acc1",),
        text=(
            "Acc@1 with every camera view a clip of its own; the test part of the default protocol, 355 views of the "
            "8 persons P47 to P54, is that of VideoGraph and MA-LMM."
        ),
    ),
    Rule(
        names=("breakfast",),
        kind="multi",
        num_classes=48,
        title="Breakfast, atomic actions",
        metrics=("map_macro", "map_macro_without_sil"),
        text=(
            "Macro mAP over the 48 coarse actions of a view, times ignored, with SIL as in VideoGraph; SIL is in "
            "nearly every view, so that the mean over the other 47 stands beside it."
        ),
    ),
    Rule(
        names=("coin",),
        kind="single",
        num_classes=180,
        title="COIN, tasks",
        metrics=("acc1", "acc5"),
        text="Acc@1 and Acc@5 over the 180 tasks of COIN.json, each video one clip.",
    ),
    Rule(
        names=("coin",),
        kind="multi",
        num_classes=778,
        title="COIN, steps",
        metrics=("map_macro", "map_macro_all_zero"),
        text=(
            "Macro mAP over those of the 778 steps that occur in the split, times ignored; no public code says what "
            "becomes of the others, so that the mean that counts them 0 stands beside it."
        ),
    ),
    Rule(
        names=("charades",),
        kind="multi",
        num_classes=157,
        title="Charades",
        metrics=("map_charades", "map_macro"),
        text=(
            "mAP over the 157 actions as in the official Charades_v1_classify.m, where videos without any action rank "
            "last; beside it the plain mAP, which ranks them by their scores, as SlowFast and Timeception do. Clips "
            "without logits are left out here and counted in the line on coverage; the official script ranks them last."
        ),
    ),
    Rule(
        names=("diving48",),
        kind="single",
        num_classes=48,
        title="Diving48",
        metrics=("acc1", "mean_class_accuracy"),
        text="Top-1 accuracy over the test clips, and its mean over the classes.",
    ),
    Rule(
        names=("haa500",),
        kind="single",
        num_classes=500,
        title="HAA500",
        metrics=("acc1",),
        text=(
            "Top-1 accuracy over the test clips, which are the rest of each of the 500 classes after 16 clips for "
            "training and one for validation."
        ),
    ),
    Rule(
        names=("gym99", "finegym"),
        kind="single",
        num_classes=99,
        title="FineGym, Gym99",
        metrics=("acc1", "mean_class_accuracy"),
        text=_GYM_TEXT,
    ),
    Rule(
        names=("gym288", "finegym"),
        kind="single",
        num_classes=288,
        title="FineGym, Gym288",
        metrics=("acc1", "mean_class_accuracy"),
        text=_GYM_TEXT,
    ),
    Rule(
        names=("toyotasmarthome", "toyota", "smarthome"),
        kind="single",
        num_classes=31,
        title="Toyota Smarthome",
        metrics=("mean_class_accuracy", "acc1"),
        text=(
            "Accuracy averaged over the classes that the test part holds, as the authors' code balances it; Acc@1, in "
            "which a few frequent classes decide, stands beside it."
        ),
    ),
)
"""One per task of a benchmark."""
_NAMED_BY_THE_TASK = {"gym99", "gym288"}


def rule_of(*, dataset: str, protocol: str, task: str, kind: TaskKind, num_classes: int) -> Rule:
    """How predictions are judged: by their benchmark's rule, or by the default for the kind of their task.

    Args:
        dataset: its name in the manifest.
        protocol: may be called Gym99 or Gym288; no other benchmark is found by it.
        task: the same.
        kind: of the task.
        num_classes: C; a benchmark's rule holds for the benchmark's own number alone.
    """
    names = {slug(dataset)} | ({slug(protocol), slug(task)} & _NAMED_BY_THE_TASK)
    fitting = (rule for rule in RULES if (rule.kind, rule.num_classes) == (kind, num_classes))
    return next((rule for rule in fitting if names & {*rule.names}), DEFAULTS[kind])


def judge(splits: Mapping[str, Predictions]) -> tuple[Rule, str]:
    """The one rule that all splits of a run are judged by, from what their predictions say.

    Args:
        splits: by name, at least one; all of one kind.

    Returns:
        The rule, and a notice: empty, or that the splits are of several datasets or protocols. Where these have several
        rules, the default of their kind takes the place of all.
    """
    rules = {name: _rule_of(item) for name, item in splits.items()}
    first = next(iter(rules.values()))
    places = {name: f"{item.dataset}, protocol {item.protocol}" for name, item in splits.items()}
    if len(set(places.values())) == 1:
        return first, ""
    listing = "; ".join(f"{name}: {place}" for name, place in places.items())
    notice = f"the splits are not of one dataset and protocol ({listing})"
    if len(set(rules.values())) == 1:
        return first, notice
    titles = ", ".join(dict.fromkeys(rule.title or "no benchmark" for rule in rules.values()))
    return DEFAULTS[first.kind], f"{notice}, nor under one rule ({titles}): the default metrics stand first for all"


def _rule_of(predictions: Predictions) -> Rule:
    names = {"dataset": predictions.dataset, "protocol": predictions.protocol, "task": predictions.task}
    return rule_of(**names, kind=predictions.kind, num_classes=len(predictions.class_names))


def slug(name: str) -> str:
    """A name without case and signs, in which the spellings of one benchmark are alike."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
