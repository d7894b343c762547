"""How far a number could move with another test set: bootstrap intervals, Wilson intervals, exact McNemar.

Resampled are videos, or whole groups of them (all clips of a subject), never frames. The decision to question: the
interval is basic (reverse percentile, 2 x estimate - quantile) or BCa and never the plain percentile one, because
bootstrapped mAP is biased upwards: repeated clips rank together. Two models are compared on the same resamples, which
takes out what is common to both. Seeds are fixed, so that equal predictions give equal intervals.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Wilson, JASA 1927; Dietterich, Neural Computation 1998.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from evaluate.metrics import Card
from evaluate.ranking import Floats, Indices

Method = Literal["basic", "bca"]
_NORMAL = NormalDist()
_JACKKNIFE_BLOCKS = 200


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and the interval that holds the true value in `level` of all test sets like this one."""

    estimate: float
    low: float
    high: float
    level: float
    method: str

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"the level of an interval lies between 0 and 1, got {self.level}")


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """What is drawn: n clips, or whole clusters of them, with replacement, `count` times.

    Attributes:
        num_clips: n.
        clusters: one value per clip (a subject); clips of one value are drawn together. None: each clip alone.
        count: number of resamples.
        seed: of the draws.
    """

    num_clips: int
    clusters: Sequence[Hashable] | None = None
    count: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_clips < 1 or self.count < 2:
            raise ValueError(f"need at least one clip and two resamples, got {self.num_clips} and {self.count}")
        if self.clusters is not None and len(self.clusters) != self.num_clips:
            raise ValueError(f"{len(self.clusters)} clusters given for {self.num_clips} clips; give one per clip")

    def units(self) -> tuple[Indices, int]:
        """(n,) the number of each clip's unit, and how many units there are."""
        if self.clusters is None:
            return np.arange(self.num_clips), self.num_clips
        numbers: dict[Hashable, int] = {}
        units = np.array([numbers.setdefault(value, len(numbers)) for value in self.clusters], dtype=np.int64)
        return units, len(numbers)

    def weights(self) -> Iterator[Floats]:
        """How often each clip counts, (n,), for one resample after another."""
        units, num_units = self.units()
        rng = np.random.default_rng(self.seed)
        for _ in range(self.count):
            drawn = np.bincount(rng.integers(num_units, size=num_units), minlength=num_units)
            yield drawn[units].astype(np.float64)

    def jackknife_weights(self) -> Iterator[Floats]:
        """All clips but one block of units, in turn; at most 200 blocks, so that BCa stays affordable."""
        units, num_units = self.units()
        blocks = min(num_units, _JACKKNIFE_BLOCKS)
        block = np.random.default_rng(self.seed).permutation(num_units) % blocks
        for left_out in range(blocks):
            yield (block[units] != left_out).astype(np.float64)


def draw(cards: Mapping[str, Card], resamples: Resamples) -> dict[str, dict[str, Floats]]:
    """Every metric of every card on the same resamples.

    Args:
        cards: by name (of a run), all over the same clips in the same order.
        resamples: what to draw.

    Returns:
        name -> metric -> (count,) values. A resample that leaves a card nothing to average is NaN in all cards.
    """
    rows = [_card_values(cards, weights) for weights in resamples.weights()]
    names = {name: list(card(None)) for name, card in cards.items()}
    return {
        name: {metric: np.array([row[name][metric] if row else math.nan for row in rows]) for metric in metrics}
        for name, metrics in names.items()
    }


def _card_values(cards: Mapping[str, Card], weights: Floats) -> dict[str, dict[str, float]] | None:
    try:
        return {name: card(weights) for name, card in cards.items()}
    except ValueError:  # no class kept a positive clip: possible in tiny test sets only
        return None


def basic_interval(
    estimate: float, draws: Floats, *, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """The reverse-percentile interval: the draws' quantiles mirrored at the estimate, cut at the metric's bounds.

    Raises:
        ValueError: fewer than half of the resamples gave a value.
    """
    draws = _usable(draws)
    tail = (1 - level) / 2
    mirrored = (2 * estimate - np.quantile(draws, share) for share in (1 - tail, tail))
    low, high = (float(np.clip(edge, *bounds)) for edge in mirrored)
    return Interval(estimate=estimate, low=low, high=high, level=level, method="basic bootstrap")


def bca_interval(estimate: float, draws: Floats, jackknife: Floats, *, level: float = 0.95) -> Interval:
    """The bias-corrected and accelerated interval of Efron (1987).

    Args:
        estimate: the metric on all clips.
        draws: (count,) the metric on resamples.
        jackknife: the metric with one unit (or block of them) left out at a time.
        level: the coverage aimed at.

    Raises:
        ValueError: fewer than half of the resamples gave a value.
    """
    draws, jackknife = _usable(draws), _usable(jackknife)
    below = (np.count_nonzero(draws < estimate) + np.count_nonzero(draws == estimate) / 2) / len(draws)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(draws)), 1 - 0.5 / len(draws)))
    gaps = jackknife.mean() - jackknife
    spread = float((gaps**2).sum())
    acceleration = float((gaps**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    edges = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + _NORMAL.inv_cdf(share)
        edges.append(float(np.quantile(draws, _NORMAL.cdf(bias + shifted / (1 - acceleration * shifted)))))
    return Interval(estimate=estimate, low=edges[0], high=edges[1], level=level, method="BCa bootstrap")


def bootstrap(
    card: Card, resamples: Resamples, *, level: float = 0.95, method: Method = "basic"
) -> dict[str, Interval]:
    """An interval for every metric of a card.

    Raises:
        ValueError: an unknown method, or fewer than half of the resamples gave a value.
    """
    if method not in ("basic", "bca"):
        raise ValueError(f"the bootstrap interval is 'basic' or 'bca', got {method!r}")
    estimates = card(None)
    draws = draw({"": card}, resamples)[""]
    if method == "basic":
        return {name: basic_interval(value, draws[name], level=level) for name, value in estimates.items()}
    rows = [_card_values({"": card}, weights) for weights in resamples.jackknife_weights()]
    return {
        name: bca_interval(
            value, draws[name], np.array([row[""][name] if row else math.nan for row in rows]), level=level
        )
        for name, value in estimates.items()
    }


def paired_differences(first: Card, second: Card, resamples: Resamples, *, level: float = 0.95) -> dict[str, Interval]:
    """Second minus first, metric by metric, each on the same resamples: the interval of the gain."""
    draws = draw({"first": first, "second": second}, resamples)
    before, after = first(None), second(None)
    return {
        name: basic_interval(
            after[name] - before[name],
            draws["second"][name] - draws["first"][name],
            level=level,
            bounds=(-1.0, 1.0),
        )
        for name in before
        if name in after
    }


def wilson(hits: float, num_clips: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a fraction hits / n: for accuracies of independent clips.

    Raises:
        ValueError: hits outside [0, n], or no clips.
    """
    if num_clips < 1 or not 0 <= hits <= num_clips:
        raise ValueError(f"need 0 <= hits <= n and n >= 1, got {hits} of {num_clips}")
    z = _NORMAL.inv_cdf((1 + level) / 2)
    share, widen = hits / num_clips, z * z / num_clips
    centre = (share + widen / 2) / (1 + widen)
    half = z * math.sqrt(share * (1 - share) / num_clips + widen / (4 * num_clips)) / (1 + widen)
    return Interval(
        estimate=share,
        low=min(max(0.0, centre - half), share),
        high=max(min(1.0, centre + half), share),
        level=level,
        method="Wilson",
    )


def mcnemar(first_hits: npt.NDArray[np.bool_], second_hits: npt.NDArray[np.bool_]) -> float:
    """The exact two-sided McNemar test: the chance of so uneven a split of the clips that only one model gets right.

    Args:
        first_hits: (n,) whether the first model is right.
        second_hits: (n,) the second, on the same clips.

    Returns:
        The p-value; 1.0 where the models never differ.

    Raises:
        ValueError: the shapes differ.
    """
    if first_hits.shape != second_hits.shape:
        raise ValueError(f"the models saw different clips: {first_hits.shape} and {second_hits.shape}")
    only_first = int(np.count_nonzero(first_hits & ~second_hits))
    only_second = int(np.count_nonzero(second_hits & ~first_hits))
    total, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**total)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, running = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        running = max(running, min(1.0, p_values[index] * (len(p_values) - place)))
        adjusted[index] = running
    return adjusted


def _usable(draws: Floats) -> Floats:
    kept = draws[~np.isnan(draws)]
    if 2 * len(kept) < len(draws) or not len(kept):
        raise ValueError(
            f"only {len(kept)} of {len(draws)} resamples kept a positive clip: too few clips for an interval"
        )
    return kept
