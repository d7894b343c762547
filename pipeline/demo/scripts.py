"""The grammar of the controlled world: what happens in a video and what only comes along with it.

An activity is a script: levels of causal actions, shuffled inside a level, in order between levels. Three pairs of
activities have the same actions in another order, so a model that sees a bag of frames cannot tell them apart and ends
at `BAG_OF_FRAMES_CEILING`. Around the script stand three confounders, each tied to the activity with its own strength
rho: Z (background, and the shirt with it), D (an object in the corner) and B (a co-occurring action). A reader will ask
why the recombined split has no activity: its action sequences are random, so no activity describes them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "validation", "test_iid", "test_counterfactual", "test_recombined"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test_iid", "test_counterfactual", "test_recombined")
TEST_SPLITS: tuple[Split, ...] = ("test_iid", "test_counterfactual", "test_recombined")

CAUSAL_ACTIONS = (
    "crack egg",
    "add butter",
    "sprinkle salt",
    "stir",
    "pour milk",
    "boil kettle",
    "spoon sugar",
    "toast bread",
    "spread jam",
    "cut fruit",
    "fill bowl",
    "flip pan",
)
CO_OCCURRING_ACTIONS = ("answer phone", "wave", "stretch", "drink water")
ACTIONS = CAUSAL_ACTIONS + CO_OCCURRING_ACTIONS

Script = tuple[tuple[str, ...], ...]
SCRIPTS: dict[str, Script] = {
    "fried egg": (("add butter",), ("crack egg",), ("sprinkle salt", "stir")),
    "scrambled egg": (("crack egg",), ("stir", "sprinkle salt"), ("add butter",)),
    "milk coffee": (("boil kettle",), ("pour milk", "spoon sugar"), ("stir",)),
    "milk tea": (("pour milk", "spoon sugar"), ("boil kettle",), ("stir",)),
    "jam toast": (("toast bread",), ("spread jam", "add butter"), ("cut fruit",)),
    "jam sandwich": (("cut fruit",), ("spread jam", "add butter"), ("toast bread",)),
    "pancake": (("crack egg", "pour milk"), ("stir",), ("flip pan",)),
    "fruit salad": (("cut fruit",), ("fill bowl",), ("spoon sugar", "pour milk")),
}
ACTIVITIES = tuple(SCRIPTS)
ORDER_PAIRS = (("fried egg", "scrambled egg"), ("milk coffee", "milk tea"), ("jam toast", "jam sandwich"))
BAG_OF_FRAMES_CEILING = (len(ACTIVITIES) - len(ORDER_PAIRS)) / len(ACTIVITIES)
"""Best accuracy without order: half of each pair's videos, all of the rest."""

BACKGROUNDS = (
    "brown stripes",
    "teal tiles",
    "navy tiles",
    "tan weave",
    "plum stripes",
    "olive planks",
    "sand",
    "night",
)
SHIRTS = ("red", "cyan", "blue", "yellow", "purple", "green", "pink", "orange")
DISTRACTORS = ("cone", "post", "star", "ball", "stone", "cross", "ring", "kite")
# Confounders belong to the activity by number: the k-th background, shirt and (in another bijection) corner object.
# The two activities of a pair have different co-occurring actions.
DISTRACTOR_OF = (3, 6, 1, 4, 7, 0, 5, 2)
CO_OCCURRING_OF = (0, 1, 2, 3, 1, 2, 3, 0)

NUM_FRAMES = 80
FRAMES_PER_SECOND = 8
_MIN_SEGMENT = 10  # frames: every segment meets one of 8 instants spread over the video


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """How strongly the world misleads, and how much of it is made."""

    seed: int = 0
    """Everything drawn is a function of this seed, the split and the video's number."""
    num_train: int = 240
    """Videos to train on."""
    num_validation: int = 150
    """Videos of the i.i.d. validation split."""
    num_test: int = 150
    """Videos of each of the three test splits."""
    num_probes: int = 0
    """Of the first i.i.d. test videos, how many are filmed again for each of the two probes of bias."""
    rho_background: float = 0.7
    """Probability that Z, background and shirt, is the activity's own; otherwise it is drawn at random."""
    rho_distractor: float = 0.7
    """The same for D, the object in the corner."""
    rho_co_occurring: float = 0.7
    """The same for B, the co-occurring action."""
    shirt_follows: float = 0.85
    """Probability that the shirt belongs to the background, in every split."""
    co_occurring_probability: float = 0.8
    """Probability that a video has a co-occurring action at all."""

    def __post_init__(self) -> None:
        for name in ("num_train", "num_validation", "num_test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.num_probes <= self.num_test:
            raise ValueError(f"num_probes is {self.num_probes}: it must lie between 0 and num_test, {self.num_test}")
        for name in (
            "rho_background",
            "rho_distractor",
            "rho_co_occurring",
            "shirt_follows",
            "co_occurring_probability",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}: a probability lies in [0, 1]")

    def num_videos(self, split: Split) -> int:
        """Videos of one split."""
        return {"train": self.num_train, "validation": self.num_validation}.get(split, self.num_test)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One action from frame `start` up to, not including, frame `stop`."""

    action: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """Nuisances that mean nothing: where the person stands, how fast they move, how the camera shakes."""

    skin: int
    trousers: int
    centre_x: float
    feet_y: float
    scale: float
    speed: float
    phase: float
    shake_seed: int
    distractor_right: bool


@dataclass(frozen=True, kw_only=True)
class Recording:
    """All that a video shows. Indices point into BACKGROUNDS, SHIRTS, DISTRACTORS and CO_OCCURRING_ACTIONS."""

    activity: str | None
    segments: tuple[Segment, ...]
    background: int
    shirt: int
    distractor: int
    co_occurring: int | None
    look: Look

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions shown, in the order of ACTIONS."""
        shown = {segment.action for segment in self.segments}
        return tuple(action for action in ACTIONS if action in shown)

    def action_at(self, frame: int) -> str:
        """The action that frame `frame` shows."""
        return next(segment.action for segment in self.segments if segment.start <= frame < segment.stop)


def draw_recording(config: WorldConfig, split: Split, number: int) -> Recording:
    """Video `number` of a split; the same arguments give the same recording."""
    rng = np.random.default_rng([config.seed, SPLITS.index(split), number])
    if split == "test_recombined":
        return recombined_recording(config, rng)
    activity = number % len(ACTIVITIES)  # classes in equal numbers
    return activity_recording(config, rng, activity, confounded=split != "test_counterfactual")


def activity_recording(
    config: WorldConfig, rng: np.random.Generator, activity: int, *, confounded: bool = True
) -> Recording:
    """An activity in its own surroundings with probability rho, or (not confounded) in any."""
    name = ACTIVITIES[activity]
    actions = [str(action) for level in SCRIPTS[name] for action in rng.permutation(level)]
    strength = 1.0 if confounded else 0.0
    return _in_surroundings(
        config,
        rng,
        actions,
        activity=name,
        background=_tied(rng, activity, len(BACKGROUNDS), strength * config.rho_background),
        distractor=_tied(rng, DISTRACTOR_OF[activity], len(DISTRACTORS), strength * config.rho_distractor),
        co_occurring=_tied(
            rng, CO_OCCURRING_OF[activity], len(CO_OCCURRING_ACTIONS), strength * config.rho_co_occurring
        ),
    )


def recombined_recording(config: WorldConfig, rng: np.random.Generator) -> Recording:
    """Four random causal actions in random surroundings: no activity."""
    actions = [str(action) for action in rng.choice(CAUSAL_ACTIONS, size=4, replace=False)]
    return _in_surroundings(
        config,
        rng,
        actions,
        activity=None,
        background=int(rng.integers(len(BACKGROUNDS))),
        distractor=int(rng.integers(len(DISTRACTORS))),
        co_occurring=int(rng.integers(len(CO_OCCURRING_ACTIONS))),
    )


def _tied(rng: np.random.Generator, own: int, num_values: int, rho: float) -> int:
    """`own` with probability rho, else uniform; always two draws, so that rho changes nothing drawn later."""
    follows, other = rng.random() < rho, int(rng.integers(num_values))
    return own if follows else other


def _in_surroundings(
    config: WorldConfig,
    rng: np.random.Generator,
    actions: list[str],
    *,
    activity: str | None,
    background: int,
    distractor: int,
    co_occurring: int,
) -> Recording:
    shirt = _tied(rng, background, len(SHIRTS), config.shirt_follows)
    has_co_occurring = rng.random() < config.co_occurring_probability
    if has_co_occurring:
        actions.insert(int(rng.integers(len(actions) + 1)), CO_OCCURRING_ACTIONS[co_occurring])
    return Recording(
        activity=activity,
        segments=_timed(rng, actions),
        background=background,
        shirt=shirt,
        distractor=distractor,
        co_occurring=co_occurring if has_co_occurring else None,
        look=_draw_look(rng),
    )


def _timed(rng: np.random.Generator, actions: list[str]) -> tuple[Segment, ...]:
    """Random durations of at least _MIN_SEGMENT frames that fill the video."""
    weights = rng.uniform(0.5, 1.5, size=len(actions))
    spare = NUM_FRAMES - _MIN_SEGMENT * len(actions)
    edges = np.cumsum(_MIN_SEGMENT + spare * weights / weights.sum()).round().astype(int)
    starts = [0, *edges[:-1].tolist()]
    return tuple(
        Segment(action=action, start=start, stop=int(stop))
        for action, start, stop in zip(actions, starts, edges, strict=True)
    )


def _draw_look(rng: np.random.Generator) -> Look:
    return Look(
        skin=int(rng.integers(5)),
        trousers=int(rng.integers(4)),
        centre_x=float(rng.uniform(27.0, 37.0)),
        feet_y=float(rng.uniform(57.0, 62.0)),
        scale=float(rng.uniform(0.88, 1.08)),
        speed=float(rng.uniform(0.7, 1.4)),
        phase=float(rng.uniform(0.0, 1.0)),
        shake_seed=int(rng.integers(2**31)),
        distractor_right=bool(rng.random() < 0.5),
    )
