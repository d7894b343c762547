"""What the demo learnt: numbers with intervals, and every sentence about them, for the page and for summary.json."""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache.manifest import Dataset
from cache.predictions import Predictions
from cache.run import Run
from evaluate.uncertainty import LEVEL_TEXT, Interval
from pipeline.demo import background
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
from pipeline.demo.variants import METHODS, VARIANTS
from pipeline.demo.world import ACTIVITY

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

    @property
    def has_ceiling(self) -> bool:
        """Whether this is where a model without order can come so far and no further."""
        return (self.task, self.split) == (ACTIVITY.name, "test_counterfactual")

    @property
    def ceiling_sentence(self) -> str:
        """How the Acc@1 compares with the best that is possible without order."""
        return ceiling_sentence(self.method, self.split, self.metrics["acc1"], BAG_OF_FRAMES_CEILING)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that the page shows and summary.json holds."""

    quick: bool
    seeds: tuple[int, ...]
    world: WorldConfig
    runs: tuple[RunScores, ...]
    methods: tuple[MethodScores, ...]
    background: tuple[MethodScores, ...]
    """The guess from the background alone, on the splits that have activities; of no seed, as nothing is drawn."""
    comparisons: tuple[Comparison, ...]
    probe: tuple[ProbeRow, ...]
    notices: tuple[str, ...]
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def statement(self) -> str:
        """What this demo can and cannot show."""
        count = len(self.seeds)
        seeds = f"one seed ({self.seeds[0]})" if count == 1 else f"{count} seeds"
        return (
            f"This is an illustration: one world, one set of tiny frozen models, {seeds} of what is trained on them, "
            f"{self.world.num_train} training videos and {self.world.num_test} videos per test split. Intervals are of "
            f"{LEVEL_TEXT}: Wilson's for shares of videos, else over resamples of the test videos. They do not cover "
            "other worlds, other frozen models or other seeds, and are not adjusted for the number of comparisons."
        )

    @property
    def findings(self) -> tuple[str, ...]:
        """A sentence per comparison, then per accuracy with a known ceiling, made from the intervals."""
        compared = [difference_sentence(comparison) for comparison in self.comparisons]
        return (*compared, *(scores.ceiling_sentence for scores in self.methods if scores.has_ceiling))

    @property
    def main_findings(self) -> dict[str, tuple[str, ...]]:
        """Findings about each full method where its confounders are broken, then against a background that tells."""
        found = {name: self._findings_about(name) for name in METHODS}
        found[f"Against the {background.NAME}"] = tuple(
            difference_sentence(comparison)
            for comparison in self.comparisons
            if (comparison.reference, comparison.split) == (background.NAME, "test_iid")
            and comparison.method in METHODS
        )
        return {title: sentences for title, sentences in found.items() if sentences}

    def _findings_about(self, method: str) -> tuple[str, ...]:
        compared = [
            difference_sentence(comparison)
            for comparison in self.comparisons
            if comparison.method == method
            and comparison.reference != background.NAME
            and (comparison.task, comparison.split) in _BROKEN
        ]
        ceilings = [
            scores.ceiling_sentence for scores in self.methods if scores.method == method and scores.has_ceiling
        ]
        return (*compared, *ceilings)

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
            "background": {
                "description": background.DESCRIPTION,
                "splits": {row["split"]: row["metrics"] for row in body["background"]},
                "expected_acc1": background.expected_accuracy(self.world),
            },
            "world": body["world"],
            "bag_of_frames_ceiling": BAG_OF_FRAMES_CEILING,
            "statement": self.statement,
            "findings": list(self.findings),
            "bias_findings": list(self.bias_findings),
            "notices": list(self.notices),
            "timings": dict(self.timings),
        }


def summarise(
    runs: Sequence[Run], world: WorldConfig, dataset: Dataset, probe: Sequence[ProbeRow], *, quick: bool
) -> Summary:
    """Evaluates the runs' predictions on every test split, and the guess from the background beside them."""
    scores: list[MethodScores] = []
    comparisons: list[Comparison] = []
    for task in HEADLINE:
        for split in TEST_SPLITS:
            chosen = [run for run in runs if run.info.task == task and split in run.splits]
            if chosen:
                found, differences = _split_scores(chosen, dataset, task, split)
                scores += found
                comparisons += differences
    return Summary(
        quick=quick,
        seeds=tuple(sorted({run.info.seed for run in runs})),
        world=world,
        runs=tuple(_run_scores(run) for run in runs),
        methods=tuple(row for row in scores if row.method != background.NAME),
        background=tuple(row for row in scores if row.method == background.NAME),
        comparisons=tuple(comparisons),
        probe=tuple(probe),
        notices=_notices(runs),
    )


def _notices(runs: Sequence[Run]) -> tuple[str, ...]:
    """Every notice of a run, once, with the variants that it is about unless it is about all."""
    about: dict[str, list[str]] = {}
    for run in runs:
        for notice in run.info.notices:
            about.setdefault(notice, []).append(run.info.variant)
    everyone = {run.info.variant for run in runs}
    return tuple(
        notice if set(names) == everyone else f"{', '.join(dict.fromkeys(names))}: {notice}"
        for notice, names in about.items()
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


def _split_scores(
    runs: Sequence[Run], dataset: Dataset, task: str, split: str
) -> tuple[list[MethodScores], list[Comparison]]:
    """Scores of every variant and of the background, and the differences that are told."""
    predictions: dict[str, list[Predictions]] = {}
    for run in runs:
        predictions.setdefault(run.info.variant, []).append(run.predictions(split))
    num_seeds = {name: len(members) for name, members in predictions.items()}
    first = runs[0].predictions(split)
    if task == ACTIVITY.name:
        predictions[background.NAME] = [background.guess(dataset, first)]
    cards = {name: [card_of(one) for one in members] for name, members in predictions.items()}
    references = {(name, reference): caveat for name, reference, caveat in _pairs(cards)}
    single, differences = compare(
        {name: mean_card(members) for name, members in cards.items()}, len(first.clip_ids), pairs=list(references)
    )
    place: dict[str, Any] = {"task": task, "split": split, "num_videos": len(first.clip_ids)}
    scores = [
        MethodScores(
            method=name,
            num_seeds=num_seeds.get(name, 0),
            metrics=metrics,
            seed_deviations=_deviations([card(None) for card in cards[name]]),
            **place,
        )
        for name, metrics in single.items()
    ]
    comparisons = [
        Comparison(
            method=name,
            reference=reference,
            metric=HEADLINE[task],
            num_seeds=num_seeds[name],
            difference=intervals[HEADLINE[task]],
            caveat=references[name, reference],
            **place,
        )
        for (name, reference), intervals in differences.items()
    ]
    return scores, comparisons


def _pairs(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(variant, what is subtracted from it, caveat), as far as both are there."""
    present = list(names)
    for name in present:
        if name == background.NAME:
            continue
        variant = VARIANTS[name]
        yield from ((name, reference, variant.caveat) for reference in variant.references if reference in present)
        if background.NAME in present:
            yield name, background.NAME, ""


def _deviations(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    if len(scores) < 2:
        return {}
    return {metric: statistics.stdev([score[metric] for score in scores]) for metric in scores[0]}


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
