"""What is asked of the numbers: which rows are subtracted where, and what would count as success.

The success of a row of ours was fixed before any reported world was filmed: better than the temporal control on
counterfactual scenes AND at least half of TCI's gain over the baseline on recombined labels. Both by the paired
two-level bootstrap, Holm-corrected over all such tests of a strength; it is judged at the main one. The decision to
question: all other differences of a strength share one family of Holm's correction, which is strict with many rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.demo.scores import HEADLINE
from pipeline.demo.variants import BASELINE, CONTROL
from pipeline.study.results import Finished
from pipeline.study.scores import Difference, corrected, difference
from pipeline.study.variants import OURS, ROWS

Place = tuple[str, str]
"""A task and a split."""
SCENES, LABELS = ("activity", "test_counterfactual"), ("atomic", "test_recombined")
BROKEN: tuple[Place, ...] = (SCENES, ("atomic", "test_counterfactual"), LABELS)
"""Where what used to come along no longer does, and rows are compared."""
GAIN_OF, SHARE = "TCI", 0.5


@dataclass(frozen=True, kw_only=True)
class Success:
    """The two tests of one row of ours, corrected."""

    row: str
    scenes: Difference
    """Against the control on counterfactual activities."""
    labels: Difference
    """Against the baseline plus half of TCI's gain on recombined actions: zero is exactly half."""

    @property
    def is_reached(self) -> bool:
        """Whether both were shown."""
        return self.scenes.verdict == self.labels.verdict == "more"


def differences(strength: float, finished: Sequence[Finished]) -> list[Difference]:
    """Every row against its references where something is broken, corrected for their number."""
    return corrected(
        [
            _difference(strength, finished, place, row, reference)
            for place in BROKEN
            for row, reference in _pairs(finished, place)
        ]
    )


def successes(strength: float, finished: Sequence[Finished]) -> list[Success]:
    """The two tests of each row of ours that is there, corrected for the number of all."""
    rows = [
        row
        for row in OURS
        if having(finished, SCENES, row, CONTROL) and having(finished, LABELS, row, BASELINE, GAIN_OF)
    ]
    tests = corrected(
        [_difference(strength, finished, SCENES, row, CONTROL) for row in rows]
        + [_difference(strength, finished, LABELS, row, BASELINE, share=SHARE, of=GAIN_OF) for row in rows]
    )
    scenes, labels = tests[: len(rows)], tests[len(rows) :]
    return [Success(row=row, scenes=one, labels=other) for row, one, other in zip(rows, scenes, labels, strict=True)]


def having(finished: Iterable[Finished], place: Place, *rows: str) -> list[Finished]:
    """The replicates that have scores of all these rows there."""
    return [one for one in finished if place in one.scores and one.scores[place].points.keys() >= set(rows)]


def _pairs(finished: Sequence[Finished], place: Place) -> Iterator[tuple[str, str]]:
    for row, variant in ROWS.items():
        yield from ((row, other) for other in variant.references if having(finished, place, row, other))


def _difference(
    strength: float,
    finished: Sequence[Finished],
    place: Place,
    row: str,
    reference: str,
    *,
    share: float = 0.0,
    of: str = "",
) -> Difference:
    task, split = place
    worlds = [one.scores[place] for one in having(finished, place, row, reference, *filter(None, [of]))]
    interval, p_value, per_world = difference(worlds, row, reference, HEADLINE[task], share=share, of=of)
    return Difference(
        strength=strength,
        variant=row,
        reference=f"{reference} + {share:.0%} of {of}'s gain" if of else reference,
        task=task,
        split=split,
        metric=HEADLINE[task],
        interval=interval,
        per_world=per_world,
        p_value=p_value,
    )
