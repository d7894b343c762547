"""Which clips of a split are explained, and which classes of a clip have maps of their own.

The decision to question: clips are spread over the classes and not drawn by how well they went. Whoever wants the worst
ones names them; eight cherries say nothing about a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import ConfigError
from train.clip_set import ClipSet
from train.sampling import Indices, segment_centres

MOST_SHOWN = 3
"""Classes of a clip that have maps of their own."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How many clips of every split, or exactly these."""

    count: int = 8
    clip_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count = {self.count}: it must be at least 1")

    def numbers(self, clip_sets: Mapping[str, ClipSet]) -> dict[str, Indices]:
        """Split -> numbers of its clips, in ascending order; without a split that has none of the named clips.

        Raises:
            ConfigError: a named clip is in none of the splits, or has no features.
        """
        if not self.clip_ids:
            return {split: spread(clip_set, self.count) for split, clip_set in clip_sets.items()}
        found = {split: _named(clip_set, self.clip_ids) for split, clip_set in clip_sets.items()}
        known = {clip_set.clips[number].id for split, clip_set in clip_sets.items() for number in found[split]}
        for clip_id in self.clip_ids:
            if clip_id not in known:
                _refuse(clip_id, clip_sets)
        return {split: numbers for split, numbers in found.items() if len(numbers)}


def choice_of(count: int | None, clip_ids: tuple[str, ...]) -> Choice | None:
    """What the command line says: a number, or clips, or neither.

    Raises:
        ConfigError: both.
    """
    if count is not None and clip_ids:
        raise ConfigError("--explain N chooses clips, --clip names them: give one of the two")
    if clip_ids:
        return Choice(clip_ids=clip_ids)
    return None if count is None else Choice(count=count)


def spread(clip_set: ClipSet, count: int) -> Indices:
    """Clips at equal steps over the split, sorted by class where a clip has one: (at most count,) ascending."""
    order = np.arange(len(clip_set), dtype=np.int64)
    if clip_set.targets.ndim == 1:
        order = np.lexsort((order, clip_set.targets))
    return np.sort(order[segment_centres(len(order), min(count, len(order)))])


def shown_classes(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The classes of one clip that are shown: true ones by their logit, and the best other one at least.

    Args:
        logits: (C,).
        targets: (C,), 1 at true classes.

    Returns:
        (k,), k the smaller of C and MOST_SHOWN.
    """
    order = np.argsort(-logits, kind="stable")
    true, others = order[targets[order] > 0], order[targets[order] == 0]
    best = np.concatenate([true[: MOST_SHOWN - 1], others, true[MOST_SHOWN - 1 :]])
    return best[:MOST_SHOWN].astype(np.int64)


def _named(clip_set: ClipSet, clip_ids: tuple[str, ...]) -> Indices:
    wanted = set(clip_ids)
    return np.array([number for number, clip in enumerate(clip_set.clips) if clip.id in wanted], dtype=np.int64)


def _refuse(clip_id: str, clip_sets: Mapping[str, ClipSet]) -> None:
    for split, clip_set in clip_sets.items():
        if clip_id in clip_set.skipped:
            raise ConfigError(f"clip {clip_id!r} of split {split!r} has no logits: {clip_set.skipped[clip_id]}")
    splits = ", ".join(repr(split) for split in clip_sets)
    raise ConfigError(f"clip {clip_id!r} is in none of the splits that are predicted ({splits}): give another --split")
