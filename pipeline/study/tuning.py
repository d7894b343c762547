"""Learning rates: the same grid for every row and task, chosen on i.i.d. validation videos of a world of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cache.run import Run
from pipeline.demo.scores import HEADLINE, card_of

Key = tuple[str, str]
"""A row and a task."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What was tried and what was taken."""

    scores: Mapping[Key, Mapping[float, float]]
    """(row, task) -> learning rate -> headline metric on validation videos, mean over heads, in the order of trying."""
    only: float | None = None
    """The learning rate of all rows, where one was given and nothing was tried."""

    def of(self, row: str, task: str) -> float:
        """The learning rate of the best score; of equal ones the first tried."""
        if self.only is not None:
            return self.only
        tried = self.scores[row, task]
        return max(tried, key=lambda rate: tried[rate])

    def to_json(self) -> list[dict[str, Any]]:
        """One object a row and task."""
        return [
            {"row": row, "task": task, "chosen": self.of(row, task), "validation": [[*pair] for pair in tried.items()]}
            for (row, task), tried in self.scores.items()
        ]


def read_rates(runs: Sequence[Run]) -> Rates:
    """The scores of the tuning world's runs."""
    scores: dict[Key, dict[float, list[float]]] = {}
    for run in runs:
        task, rate = run.info.task, run.config["train"]["optimizer"]["learning_rate"]
        value = card_of(run.predictions("validation"))(None)[HEADLINE[task]]
        scores.setdefault((run.info.variant, task), {}).setdefault(rate, []).append(value)
    return Rates(scores={key: {rate: fmean(values) for rate, values in tried.items()} for key, tried in scores.items()})
