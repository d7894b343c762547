"""What the demo learnt: numbers with intervals, and every sentence about them, for the page and for summary.json."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cache.run import Run
from evaluate.report_text import beside_sentence
from evaluate.uncertainty import LEVEL_TEXT, Interval
from pipeline.demo.probe import ProbeRow
from pipeline.demo.scores import (
    HEADLINE,
    Comparison,
    card_of,
    ceiling_sentence,
    compare,
    difference_sentence,
    mean_card,
    percent,
)
from pipeline.demo.scripts import BAG_OF_FRAMES_CEILING, TEST_SPLITS, WorldConfig

_REFERENCES = ("baseline", "control")
_BROKEN = (("activity", "test_counterfactual"), ("atomic", "test_counterfactual"), ("atomic", "test_recombined"))
"""Tasks and splits where what used to come along no longer does."""


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """One run: split -> metric -> value."""

    name: str
    method: str
    task: str
    seed: int
    splits: dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """One method on one split, averaged over seeds, with intervals that resample the videos."""

    method: str
    task: str
    split: str
    num_videos: int
    num_seeds: int
    metrics: dict[str, Interval]
    seed_deviations: dict[str, float]
    """Standard deviation of each metric over seeds; empty with a single one."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that the page shows and summary.json holds."""

    quick: bool
    seeds: tuple[int, ...]
    world: WorldConfig
    runs: tuple[RunScores, ...]
    methods: tuple[MethodScores, ...]
    comparisons: tuple[Comparison, ...]
    probe: tuple[ProbeRow, ...]
    notices: tuple[str, ...]
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def statement(self) -> str:
        """What this demo can and cannot show."""
        count = len(self.seeds)
        heads = f"one seed ({self.seeds[0]})" if count == 1 else f"{count} seeds"
        return (
            f"This is an illustration: one world, one set of tiny frozen models, {heads} of the trained heads, "
            f"{self.world.num_train} training videos and {self.world.num_test} videos per test split. Intervals are of "
            f"{LEVEL_TEXT} and resample the test videos; they do not cover other worlds, other frozen models or other "
            f"seeds of the heads, and are not adjusted for the number of comparisons.{beside_sentence(self._intervals)}"
        )

    @property
    def _intervals(self) -> list[tuple[float, float, float]]:
        """(low, estimate, high) of every metric and every difference."""
        found = [interval for scores in self.methods for interval in scores.metrics.values()]
        found += [comparison.difference for comparison in self.comparisons]
        return [(interval.low, interval.estimate, interval.high) for interval in found]

    @property
    def findings(self) -> tuple[str, ...]:
        """A sentence per comparison, then per accuracy with a known ceiling, made from the intervals."""
        compared = [difference_sentence(comparison) for comparison in self.comparisons]
        ceilings = [
            ceiling_sentence(scores.method, scores.split, scores.metrics["acc1"], BAG_OF_FRAMES_CEILING)
            for scores in self.methods
            if scores.task == "activity" and scores.split == "test_counterfactual"
        ]
        return (*compared, *ceilings)

    @property
    def main_findings(self) -> tuple[str, ...]:
        """The sentences about CMDCL where its confounders are broken, then how far it is from the ceiling."""
        compared = [
            difference_sentence(comparison)
            for comparison in self.comparisons
            if comparison.method == "CMDCL" and (comparison.task, comparison.split) in _BROKEN
        ]
        return (*compared, *(text for text in self.findings if text.startswith("CMDCL, ")))

    @property
    def bias_findings(self) -> tuple[str, ...]:
        """What the probe says about the image-text encoder."""
        return tuple(_probe_sentence(row) for row in self.probe if row.condition != "as filmed")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `runs[].splits.<split>.<metric>` is what scripts may rely on."""
        body = dataclasses.asdict(self)
        return {
            "quick": self.quick,
            "seeds": list(self.seeds),
            **{name: list(body[name]) for name in ("runs", "methods", "comparisons", "probe")},
            "world": body["world"],
            "bag_of_frames_ceiling": BAG_OF_FRAMES_CEILING,
            "statement": self.statement,
            "findings": list(self.findings),
            "bias_findings": list(self.bias_findings),
            "notices": list(self.notices),
            "timings": dict(self.timings),
        }


def summarise(runs: Sequence[Run], world: WorldConfig, probe: Sequence[ProbeRow], *, quick: bool) -> Summary:
    """Evaluates the runs' predictions on every test split."""
    methods: list[MethodScores] = []
    comparisons: list[Comparison] = []
    for task in HEADLINE:
        for split in TEST_SPLITS:
            chosen = [run for run in runs if run.info.task == task and split in run.splits]
            if chosen:
                scores, differences = _split_scores(chosen, task, split)
                methods += scores
                comparisons += differences
    return Summary(
        quick=quick,
        seeds=tuple(sorted({run.info.seed for run in runs})),
        world=world,
        runs=tuple(_run_scores(run) for run in runs),
        methods=tuple(methods),
        comparisons=tuple(comparisons),
        probe=tuple(probe),
        notices=tuple(dict.fromkeys(notice for run in runs for notice in run.info.notices)),
    )


def _run_scores(run: Run) -> RunScores:
    info = run.info
    return RunScores(
        name=info.name,
        method=info.variant,
        task=info.task,
        seed=info.seed,
        splits={split: card_of(run.predictions(split))(None) for split in TEST_SPLITS if split in run.splits},
    )


def _split_scores(runs: Sequence[Run], task: str, split: str) -> tuple[list[MethodScores], list[Comparison]]:
    names = list(dict.fromkeys(run.info.variant for run in runs))
    by_method = {name: [run for run in runs if run.info.variant == name] for name in names}
    cards = {
        name: mean_card([card_of(run.predictions(split)) for run in members]) for name, members in by_method.items()
    }
    num_videos = len(runs[0].predictions(split).clip_ids)
    pairs = [(name, reference) for name in names for reference in _REFERENCES if _is_compared(name, reference, names)]
    single, differences = compare(cards, num_videos, pairs=pairs)
    scores = [
        MethodScores(
            method=name,
            task=task,
            split=split,
            num_videos=num_videos,
            num_seeds=len(by_method[name]),
            metrics=metrics,
            seed_deviations=_deviations([card_of(run.predictions(split))(None) for run in by_method[name]]),
        )
        for name, metrics in single.items()
    ]
    metric = HEADLINE[task]
    comparisons = [
        Comparison(
            method=name,
            reference=reference,
            task=task,
            split=split,
            metric=metric,
            num_videos=num_videos,
            num_seeds=len(by_method[name]),
            difference=intervals[metric],
        )
        for (name, reference), intervals in differences.items()
    ]
    return scores, comparisons


def _deviations(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    if len(scores) < 2:
        return {}
    return {metric: statistics.stdev([score[metric] for score in scores]) for metric in scores[0]}


def _is_compared(name: str, reference: str, names: Sequence[str]) -> bool:
    """Everything against the baseline, and the interventions also against the control."""
    return reference in names and name != reference and name != "baseline"


def _probe_sentence(row: ProbeRow) -> str:
    chance = {"activity": "12.5", "atomic": "6.3"}[row.question]
    return (
        f"{row.condition.capitalize()}, {row.question}: zero-shot accuracy {percent(row.top1)} % (chance {chance}); "
        f"{percent(row.kept)} % of the matching score as filmed remains{_verdict(row.kept)}."
    )


def _verdict(kept: Interval) -> str:
    if kept.low > 0 and kept.high < 1:
        return ", some and not all"
    if kept.high < 1:
        return ", none that these frames can show"
    return ", all that these frames can show" if kept.low > 0 else ", too uncertain to say"
