"""What the study repeats and how much of it: worlds, frozen models, heads, strengths, learning rates, videos.

A replicate varies all seeds at once: its world, the set of frozen models that sees it, and the heads trained on it. The
decision to question: learning rates are tuned on one further world, for every variant and task alike, by the headline
metric of i.i.d. validation videos; no world that is reported ever chooses anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cache.errors import ConfigError
from pipeline.demo.scripts import WorldConfig
from pipeline.seeds import parse_seeds
from pipeline.study.variants import ROWS

MAIN_STRENGTH = 0.7
"""The strength at which learning rates are tuned, slow variants are trained and success is judged."""
FIRST_WORLDS = 5
"""Slow variants, and strengths beside the main one, take the first worlds alone."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of a world is filmed and how long heads are trained."""

    num_train: int
    num_validation: int
    num_test: int
    num_probes: int
    epochs: int | None
    """None: the recipe's, or for a slow variant its own."""


FULL = Size(num_train=240, num_validation=40, num_test=400, num_probes=80, epochs=None)
QUICK = Size(num_train=96, num_validation=24, num_test=96, num_probes=24, epochs=12)


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One world at one strength, the frozen models that see it, and the seeds of the heads trained on it."""

    seed: int
    strength: float
    frozen_set: int
    head_seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its folder."""
        return f"rho{self.strength:g}-world{self.seed}-frozen{self.frozen_set}"


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """All that a call of the study decides; ConfigError for what cannot be done."""

    seeds: tuple[int, ...] = tuple(range(33, 39))
    """Of the worlds that are reported; those below 33 were looked at while rows of ours and their tuning were."""
    strengths: tuple[float, ...] = (0.7, 0.5, 0.9)
    """rho of all three confounders, the main one first."""
    heads: int = 1
    """Trainings of every variant on every world; each world has initial heads and orders of videos of its own."""
    frozen_sets: int = 3
    """Sets of frozen models, which take turns over the worlds; set 0 is shipped, others are trained first."""
    tuning_seed: int = 0
    """Of the world on whose i.i.d. validation videos learning rates are chosen."""
    learning_rates: tuple[float, ...] = (1e-3, 3e-4, 3e-3)
    """Tried for every variant and task; the first one wins a tie."""
    tuning_heads: int = 3
    """Trainings of each rate, of whose scores the mean counts; of slow variants one."""
    rows: tuple[str, ...] = ()
    """Of the table, by name; none: all of them."""
    size: Size = FULL
    """How much of everything."""

    def __post_init__(self) -> None:
        for name in ("seeds", "strengths", "learning_rates"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{name} of the study are {list(values)}: give one or more, none twice")
        if self.tuning_seed in self.seeds:
            raise ConfigError(f"world {self.tuning_seed} tunes learning rates, so it cannot be one that is reported")
        if not all(0 <= strength <= 1 for strength in self.strengths):
            raise ConfigError(f"strengths are {list(self.strengths)}: each is a probability")
        unknown = [name for name in self.rows if name not in ROWS]
        if unknown:
            raise ConfigError(f"the study has no row {unknown[0]!r}: its rows are {'; '.join(ROWS)}")
        if min(self.heads, self.tuning_heads, self.frozen_sets) < 1:
            raise ConfigError(f"heads = {self.heads}, frozen sets = {self.frozen_sets}: give 1 or more of each")

    @property
    def replicates(self) -> Iterator[Replicate]:
        """Strength by strength, so that a study that is stopped has a whole table of the first ones."""
        for strength in self.strengths:
            seeds = self.seeds if strength == MAIN_STRENGTH else self.seeds[:FIRST_WORLDS]
            for number, seed in enumerate(seeds):
                yield self._replicate(seed, strength, number % self.frozen_sets)

    @property
    def tuning(self) -> Replicate:
        """Where learning rates are chosen."""
        return Replicate(seed=self.tuning_seed, strength=MAIN_STRENGTH, frozen_set=0, head_seeds=(0,))

    def world(self, replicate: Replicate) -> WorldConfig:
        """What is filmed of a replicate; of the tuning world training and validation alone, and more of the latter."""
        size, is_tuning = self.size, replicate == self.tuning
        return WorldConfig(
            seed=replicate.seed,
            num_train=size.num_train,
            num_validation=size.num_test if is_tuning else size.num_validation,
            num_test=1 if is_tuning else size.num_test,
            num_probes=0 if is_tuning else size.num_probes,
            rho_background=replicate.strength,
            rho_distractor=replicate.strength,
            rho_co_occurring=replicate.strength,
        )

    def _replicate(self, seed: int, strength: float, frozen_set: int) -> Replicate:
        heads = tuple(100 * seed + head for head in range(self.heads))
        return Replicate(seed=seed, strength=strength, frozen_set=frozen_set, head_seeds=heads)


QUICK_PLAN = StudyPlan(
    seeds=(33, 34),
    strengths=(MAIN_STRENGTH,),
    frozen_sets=1,
    learning_rates=StudyPlan.learning_rates[:1],
    size=QUICK,
)
"""Of the study that shows in minutes that everything works; it chooses no learning rate."""


def plan_of(
    *,
    quick: bool = False,
    seeds: str | None = None,
    strengths: str | None = None,
    heads: int | None = None,
    frozen_sets: int | None = None,
    rows: str | None = None,
) -> StudyPlan:
    """The plan of a command line; what is None is the full study's, or the quick one's.

    Raises:
        ConfigError: a text that is none of the accepted forms, or a row that does not exist.
    """
    plan = QUICK_PLAN if quick else StudyPlan()
    if seeds is not None:
        plan = replace(plan, seeds=parse_seeds(seeds))
    if strengths is not None:
        plan = replace(plan, strengths=_parse_strengths(strengths))
    if heads is not None:
        plan = replace(plan, heads=heads)
    if frozen_sets is not None:
        plan = replace(plan, frozen_sets=frozen_sets)
    return plan if rows is None else replace(plan, rows=tuple(name.strip() for name in rows.split(";")))


def _parse_strengths(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--strengths {text!r}: give probabilities with commas, like 0.7,0.5") from None
