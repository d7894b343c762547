"""Of a hundred 95 % intervals about 95 hold the truth: counted on synthetic test sets whose truth is known.

The truth is measured, on one very large test set (endless clips) and as the mean of many small ones (other test sets of
this size). Of 120 intervals that each hold it with 95 %, at least 106 do in all but one of a thousand trials; the band
is 88 % to 100 %, because reaching to both truths makes an interval of mAP wider than either needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from cache.predictions import Predictions
from evaluate import metrics, uncertainty
from evaluate.compare import compare
from evaluate.uncertainty import Draws, Interval, Resamples

NUM_WORLDS = 120
BAND = (0.88, 1.0)


@dataclass(frozen=True, kw_only=True)
class World:
    """Test sets of one kind; with subjects, each has a skill and a liking for some classes of its own."""

    num_clips: int
    num_classes: int = 8
    skill: float = 1.0
    prevalence: float = 0.0  # of each class; 0 makes a single-label task
    num_subjects: int = 0

    def draw(self, rng: np.random.Generator, *, times: int = 1) -> Predictions:
        """One test set, `times` as large."""
        n, num_classes = times * self.num_clips, self.num_classes
        num_subjects = times * self.num_subjects
        subjects = rng.integers(num_subjects, size=n) if num_subjects else np.arange(n)
        skills = np.full(n, self.skill)
        if num_subjects:
            skills = (self.skill + rng.normal(0.0, 0.6, size=num_subjects))[subjects]
        targets: npt.NDArray[np.int64] | npt.NDArray[np.uint8]
        if self.prevalence:
            targets = (rng.random((n, num_classes)) < self.prevalence).astype(np.uint8)
            truth = targets.astype(np.float64)
        else:
            targets = rng.integers(num_classes, size=n)
            truth = np.eye(num_classes)[targets]
        logits = (skills[:, None] * truth + rng.normal(size=truth.shape)).astype(np.float32)
        return Predictions(
            clip_ids=tuple(map(str, range(n))),
            logits=logits,
            targets=targets,
            task="t",
            kind="multi" if self.prevalence else "single",
            class_names=tuple(map(str, range(num_classes))),
            dataset="d",
            protocol="p",
            split="s",
            run_name="r",
            groups={"subject": tuple(map(str, subjects))},
        )

    def resamples(self, item: Predictions, seed: int) -> Resamples:
        clusters = item.groups["subject"] if self.num_subjects else None
        return Resamples(num_clips=self.num_clips, clusters=clusters, count=120, seed=seed)


WEAK = World(num_clips=60, skill=0.7, prevalence=0.3)
RARE = World(num_clips=120, num_classes=16, skill=1.5, prevalence=0.08)
GOOD = World(num_clips=100, skill=2.5, prevalence=0.3)
SINGLE = World(num_clips=80, skill=1.5)
SUBJECTS = World(num_clips=200, skill=1.5, num_subjects=8)
SUBJECTS_MULTI = World(num_clips=200, skill=1.5, prevalence=0.3, num_subjects=10)


@cache
def drawn(world: World) -> list[tuple[Draws, dict[str, Interval]]]:
    """Draws and intervals of all test sets of a world."""
    rng = np.random.default_rng(7)
    found = []
    for number in range(NUM_WORLDS):
        item = world.draw(rng)
        draws = Draws.of(metrics.resampled_card(item), world.resamples(item, number))
        found.append((draws, uncertainty.bootstrap(draws)))
    return found


@cache
def truth(world: World, *, endless: bool) -> dict[str, float]:
    rng = np.random.default_rng(8)
    items = [world.draw(rng, times=300 if endless else 1) for _ in range(1 if endless else 400)]
    cards = [metrics.resampled_card(item)(None) for item in items]
    return {name: float(np.mean([card[name] for card in cards])) for name in cards[0]}


def covered(intervals: Sequence[Interval], value: float) -> float:
    return sum(item.low <= value <= item.high for item in intervals) / len(intervals)


@pytest.mark.parametrize("endless", [True, False])
@pytest.mark.parametrize(
    ("world", "metric"),
    [
        (WEAK, "map_macro"),
        (WEAK, "map_micro"),
        (RARE, "map_macro"),
        (RARE, "map_charades"),
        (GOOD, "map_macro"),
        (SINGLE, "acc1"),
        (SINGLE, "mean_class_accuracy"),
        (SINGLE, "map_macro"),
        (SUBJECTS, "acc1"),
        (SUBJECTS, "mean_class_accuracy"),
        (SUBJECTS_MULTI, "map_macro"),
    ],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(world: World, metric: str, endless: bool) -> None:
    intervals = [found[metric] for _, found in drawn(world)]
    assert BAND[0] <= covered(intervals, truth(world, endless=endless)[metric]) <= BAND[1]


def test_quantiles_of_bootstrapped_map_miss_one_truth_and_mirrored_quantiles_the_other() -> None:
    draws = [item for item, _ in drawn(RARE)]
    values = [(item.estimates["map_macro"], item.values["map_macro"]) for item in draws]
    endless, same_size = (truth(RARE, endless=which)["map_macro"] for which in (True, False))
    quantiles = [np.quantile(resampled, [0.025, 0.975]) for _, resampled in values]
    assert np.mean([low <= endless <= high for low, high in quantiles]) < 0.6
    assert covered([uncertainty.basic_interval(*value) for value in values], same_size) < 0.85


def test_clips_of_one_subject_taken_for_independent_make_intervals_that_hold_the_truth_too_rarely() -> None:
    rng = np.random.default_rng(7)
    intervals = []
    for _ in range(NUM_WORLDS):
        item = SUBJECTS.draw(rng)
        hits = float(metrics.top_k_hits(item.logits, item.targets, 1).sum())
        intervals.append(uncertainty.wilson(hits, SUBJECTS.num_clips))
    assert covered(intervals, truth(SUBJECTS, endless=False)["acc1"]) < 0.8


def test_wilsons_interval_of_independent_clips_holds_the_truth_as_often_as_it_says() -> None:
    hits = [draws.estimates["acc1"] * SINGLE.num_clips for draws, _ in drawn(SINGLE)]
    intervals = [uncertainty.wilson(value, SINGLE.num_clips) for value in hits]
    assert BAND[0] <= covered(intervals, truth(SINGLE, endless=True)["acc1"]) <= BAND[1]


def _pairs(change: Callable[[np.random.Generator, Predictions], Predictions], world: World) -> list[Interval]:
    rng = np.random.default_rng(9)
    found = []
    for number in range(NUM_WORLDS):
        first = world.draw(rng)
        found.append(compare(first, change(rng, first), num_resamples=100, seed=number).differences["map_macro"])
    return found


def _other_noise(rng: np.random.Generator, item: Predictions) -> Predictions:
    labels = item.targets.astype(np.float64)
    return replace(item, logits=(1.5 * labels + rng.normal(size=labels.shape)).astype(np.float32))


def test_two_equal_models_differ_significantly_in_about_one_of_twenty_test_sets() -> None:
    gains = _pairs(_other_noise, RARE)
    false = [gain.p_value is not None and gain.p_value < 0.05 for gain in gains]
    assert np.mean(false) <= 0.1
    assert covered(gains, 0.0) >= BAND[0]
    for gain, is_false in zip(gains, false, strict=True):
        assert is_false == (not gain.low <= 0.0 <= gain.high)
