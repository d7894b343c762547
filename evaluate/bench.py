"""How fast average precision is here, against scikit-learn, with how far the two are apart.

    deconfound bench evaluate --json

Two questions of a test set of Charades' size: the average precision of all classes once, and all of them on every
resample of a bootstrap. scikit-learn answers each in two ways: a loop over the classes, with a contiguous column of
each made before the clock starts, and its own single call for all of them (`average=None`). Every round runs all three,
in turned order every other time, and medians of the rounds' ratios are given, so that a machine that slows down
meanwhile slows down all. The decision to question: scikit-learn repeats few resamples and is compared per resample,
while ours sorts once and then takes all of them in one product; the sort is in its time.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from evaluate.metrics import average_precision
from evaluate.ranking import Floats, Indices, RankedScores, Scores, Targets

_LABELS_PER_CLIP = 6.8
"""As in Charades; here each class is as likely as any other."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds in every round: ours, the loop over scikit-learn, and scikit-learn's single call."""

    ours: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)
    call: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """How many times as fast as the loop ours was, by round."""
        return [theirs / mine for mine, theirs in zip(self.ours, self.loop, strict=True)]

    @property
    def call_ratios(self) -> list[float]:
        """How many times as fast as the single call ours was, by round."""
        return [theirs / mine for mine, theirs in zip(self.ours, self.call, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Medians, and the ratios of every round."""
        return {
            "ratio_to_scikit_learn": median(self.ratios),
            "ratios": self.ratios,
            "ratio_to_scikit_learn_call": median(self.call_ratios),
            "call_ratios": self.call_ratios,
            "seconds": median(self.ours),
            "scikit_learn_seconds": median(self.loop),
            "scikit_learn_call_seconds": median(self.call),
        }


@dataclass(frozen=True, kw_only=True)
class EvaluateBench:
    """What was measured.

    Attributes:
        sizes: clips, classes, rounds, resamples of ours and of scikit-learn, seed.
        once: average precision of all classes.
        resample: the same on one resample, the sort divided among all.
        max_difference: the largest absolute difference of any class, over both questions.
    """

    sizes: dict[str, int]
    once: Timing
    resample: Timing
    max_difference: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; on top are the ratios of all classes once, to the loop and to the single call."""
        return {
            **self.sizes,
            **self.once.to_json(),
            "max_abs_difference": self.max_difference,
            "bootstrap": self.resample.to_json(),
        }


def bench_evaluate(
    *,
    num_clips: int = 1863,
    num_classes: int = 157,
    repeats: int = 5,
    num_resamples: int = 200,
    seed: int = 0,
) -> EvaluateBench:
    """Measures all three on a made-up test set.

    Args:
        num_clips: n.
        num_classes: C.
        repeats: rounds.
        num_resamples: of our bootstrap; scikit-learn does a hundredth of them.
        seed: of scores, labels and resamples.
    """
    scores, targets = synthetic(num_clips, num_classes, seed)
    few = max(1, num_resamples // 100)
    once, resample, apart = Timing(), Timing(), [0.0]
    for number in range(repeats):
        rows = np.random.default_rng([seed, number]).integers(num_clips, size=(num_resamples, num_clips))
        drawn = [(scores[one], targets[one]) for one in rows[:few]]
        is_turned = number % 2 == 1
        apart += [
            _compare(once, partial(_once, scores, targets), [(scores, targets)], is_turned=is_turned),
            _compare(resample, partial(_bootstrap, scores, targets, rows), drawn, is_turned=is_turned),
        ]
    sizes = {"clips": num_clips, "classes": num_classes, "repeats": repeats, "resamples": num_resamples, "seed": seed}
    return EvaluateBench(
        sizes=sizes | {"scikit_learn_resamples": few}, once=once, resample=resample, max_difference=max(apart)
    )


def synthetic(num_clips: int, num_classes: int, seed: int) -> tuple[Scores, Targets]:
    """Seeded float32 scores (n, C) that tell something about labels (n, C), about as rare as Charades' are."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((num_clips, num_classes)) < min(0.5, _LABELS_PER_CLIP / num_classes)).astype(np.uint8)
    targets[rng.integers(num_clips, size=num_classes), np.arange(num_classes)] = 1
    return (rng.normal(size=targets.shape) + targets).astype(np.float32), targets


def _compare(
    timing: Timing, ours: Callable[[], list[Floats]], samples: Sequence[tuple[Scores, Targets]], *, is_turned: bool
) -> float:
    """Runs all three, notes the seconds for each value that they return, and says how far these are apart."""
    columns = [_columns(scores, targets) for scores, targets in samples]
    functions: dict[str, Callable[[], list[Floats]]] = {
        "ours": ours,
        "loop": partial(_loop, columns),
        "call": partial(_call, samples),
    }
    found: dict[str, list[Floats]] = {}
    for name in reversed(functions) if is_turned else functions:
        start = time.perf_counter()
        values = functions[name]()
        getattr(timing, name).append((time.perf_counter() - start) / len(values))
        found[name] = values[: len(samples)]
    return max(largest_difference(found["ours"], found[name]) for name in ("loop", "call"))


def _once(scores: Scores, targets: Targets) -> list[Floats]:
    return [average_precision(scores, targets)]


def _bootstrap(scores: Scores, targets: Targets, rows: Indices) -> list[Floats]:
    weights = np.array([np.bincount(one, minlength=len(scores)) for one in rows], dtype=np.float64)
    return list(RankedScores(scores, targets).average_precisions(weights))


def _columns(scores: Scores, targets: Targets) -> list[tuple[Scores, Targets]]:
    """Scores and labels of every class, each contiguous."""
    return [(np.ascontiguousarray(scores[:, c]), np.ascontiguousarray(targets[:, c])) for c in range(scores.shape[1])]


def _loop(samples: Sequence[Sequence[tuple[Scores, Targets]]]) -> list[Floats]:
    return [np.array([_by_scikit_learn(scores, targets) for scores, targets in columns]) for columns in samples]


def _by_scikit_learn(scores: Scores, targets: Targets) -> float:
    """NaN where there is no positive: scikit-learn would say 0, and warn."""
    return float(average_precision_score(targets, scores)) if targets.any() else np.nan


def _call(samples: Sequence[tuple[Scores, Targets]]) -> list[Floats]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No positive class found")
        found = [np.atleast_1d(average_precision_score(targets, scores, average=None)) for scores, targets in samples]
    return [np.where(targets.any(axis=0), values, np.nan) for values, (_, targets) in zip(found, samples, strict=True)]


def largest_difference(first: Sequence[Floats], second: Sequence[Floats]) -> float:
    """Over all classes; infinite where one of the two has no value."""
    ours, theirs = np.array(first), np.array(second)
    apart = np.where(np.isnan(ours) & np.isnan(theirs), 0.0, np.abs(ours - theirs))
    return float(np.nan_to_num(apart, nan=np.inf).max())
