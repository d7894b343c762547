"""Numbers of many worlds: means, deviations and paired differences that count worlds and videos as random.

    replicate (world, frozen models) -> variant -> heads -> Predictions
                                            └ mean over heads ┘
    one difference = mean over replicates of (variant - reference) on the same videos

The decision to question: resampling has two levels. Worlds are drawn with replacement, and within each drawn world its
videos; a difference that one world alone shows then has a wide interval. Means of W redrawn worlds spread less than
means of W worlds, by sqrt((W - 1) / W), which is put right; the tails of few worlds are still too thin, so that fewer
than five show nothing here. Intervals are basic and p-values follow from the same mirrored draws, so that both say the
same.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.predictions import Predictions
from evaluate.metrics import Card
from evaluate.ranking import Floats
from evaluate.uncertainty import Interval, Resamples, basic_interval, draw, holm
from pipeline.demo.scores import card_of, mean_card

RESAMPLES_OF_VIDEOS = 400
"""Of each world; the second level combines them."""
FEWEST_WORLDS = 5
"""With fewer no difference counts as shown."""
RESAMPLES = 20_000
"""Of worlds and videos together: the smallest p-value is 1 / 10,000, before Holm's correction."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A metric over replicates."""

    mean: float
    deviation: float | None
    """Standard deviation over replicates (each a mean over its heads); None with a single one."""
    values: tuple[float, ...]
    """One a replicate."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A variant minus a reference, on the same worlds, heads and videos."""

    strength: float
    variant: str
    reference: str
    task: str
    split: str
    metric: str
    interval: Interval
    per_world: tuple[float, ...]
    p_value: float
    p_holm: float = 1.0

    @property
    def verdict(self) -> str:
        """`more`, `less`, or `open` where the corrected test cannot tell, or worlds are too few for one."""
        if self.p_holm >= 0.05 or len(self.per_world) < FEWEST_WORLDS:
            return "open"
        return "more" if self.interval.estimate > 0 else "less"


class WorldScores:
    """All variants on one split of one world: points and resampled values of every metric."""

    def __init__(self, predictions: Mapping[str, Sequence[Predictions]], *, seed: int) -> None:
        """Evaluate.

        Args:
            predictions: variant -> one set of predictions for every head, all on the same videos.
            seed: of the resamples.
        """
        self._cards = {name: mean_card([card_of(one) for one in heads]) for name, heads in predictions.items()}
        num_videos = {len(one.clip_ids) for heads in predictions.values() for one in heads}
        if len(num_videos) != 1:
            raise ValueError(f"the variants were tested on {sorted(num_videos)} videos: they must be the same")
        resamples = Resamples(num_clips=num_videos.pop(), count=RESAMPLES_OF_VIDEOS, seed=seed)
        self.points = {name: card(None) for name, card in self._cards.items()}
        self.draws = _draw_once(self._cards, resamples)


def _draw_once(cards: Mapping[str, Card], resamples: Resamples) -> dict[str, dict[str, Floats]]:
    return draw(cards, resamples)


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of one value per replicate."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), deviation=deviation, values=tuple(values))


def combined(estimates: Sequence[float], draws: Sequence[Floats], *, seed: int = 0) -> tuple[Interval, float]:
    """The mean over worlds with its two-level interval and p-value against zero.

    Args:
        estimates: one a world.
        draws: one array a world, of the same length: values on resampled videos.
        seed: of the second level.

    Returns:
        A basic interval, and the two-sided p-value of the same mirrored draws, at least 2 / (RESAMPLES + 1).
    """
    table = np.stack(draws)  # (worlds, resamples of videos)
    rng = np.random.default_rng(seed)
    worlds = rng.integers(len(table), size=(RESAMPLES, len(table)))
    videos = rng.integers(table.shape[1], size=worlds.shape)
    totals = table[worlds, videos].mean(axis=1)
    estimate, count = float(np.mean(estimates)), len(table)
    if count > 1:
        totals = estimate + math.sqrt(count / (count - 1)) * (totals - estimate)
    mirrored = 2 * estimate - totals
    tail = min(int((mirrored <= 0).sum()), int((mirrored >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (len(mirrored) + 1))
    return basic_interval(estimate, totals, bounds=(-1.0, 1.0)), p_value


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences with Holm's correction for their number."""
    adjusted = holm([one.p_value for one in differences])
    return [replace(one, p_holm=value) for one, value in zip(differences, adjusted, strict=True)]


def difference(
    worlds: Sequence[WorldScores], variant: str, reference: str, metric: str, *, share: float = 0.0, of: str = ""
) -> tuple[Interval, float, tuple[float, ...]]:
    """Variant minus reference, or minus more than that.

    Args:
        worlds: the same split of several worlds.
        variant: a row.
        reference: another.
        metric: one of both.
        share: with `of`, what is subtracted lies this far on the way from the reference to that row: 0.5 asks whether
            the variant has half of its gain.
        of: a third row.

    Returns:
        The interval over worlds and videos, its p-value, and the difference in every world.
    """

    def combine(values: Mapping[str, Mapping[str, float]] | Mapping[str, Mapping[str, Floats]]) -> Floats:
        bar = np.asarray(values[reference][metric])
        if of:
            bar = bar + share * (np.asarray(values[of][metric]) - bar)
        return np.asarray(values[variant][metric]) - bar

    per_world = tuple(float(combine(world.points)) for world in worlds)
    interval, p_value = combined(per_world, [combine(world.draws) for world in worlds])
    return interval, p_value, per_world


def rows(worlds: Sequence[WorldScores]) -> Iterator[tuple[str, dict[str, Spread]]]:
    """Every variant that all worlds have, with the spread of its metrics."""
    for name in worlds[0].points:
        if all(name in world.points for world in worlds):
            metrics = worlds[0].points[name]
            yield name, {metric: spread([world.points[name][metric] for world in worlds]) for metric in metrics}
