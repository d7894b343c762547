"""Predictions of imagined rows on imagined worlds, for the arithmetic of the study's tables."""

import numpy as np

from cache.predictions import Predictions
from pipeline.demo.scripts import ACTIONS, ACTIVITIES
from pipeline.study.plan import Replicate
from pipeline.study.results import Finished
from pipeline.study.scores import WorldScores
from pipeline.study.variants import CLIP_ALONE, ROWS

VIDEOS = 48


def activities(*, seed: int, skill: float, split: str = "test_counterfactual") -> Predictions:
    """Logits of noise plus `skill` at the true activity; equal seeds give equal noise."""
    targets = np.arange(VIDEOS, dtype=np.int64) % len(ACTIVITIES)
    logits = np.random.default_rng(seed).standard_normal((VIDEOS, len(ACTIVITIES))) + skill * np.eye(8)[targets]
    return _predictions(logits, targets, "activity", "single", ACTIVITIES, split)


def actions(*, seed: int, skill: float, split: str = "test_recombined") -> Predictions:
    """The same for atomic actions, of which a third are there."""
    rng = np.random.default_rng([seed, 1])
    targets = (rng.random((VIDEOS, len(ACTIONS))) < 1 / 3).astype(np.uint8)
    logits = rng.standard_normal(targets.shape) + skill * targets
    return _predictions(logits, targets, "atomic", "multi", ACTIONS, split)


def _predictions(logits, targets, task, kind, names, split) -> Predictions:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return Predictions(
        clip_ids=tuple(f"{number}" for number in range(len(logits))),
        logits=logits.astype(np.float32),
        targets=targets,
        task=task,
        kind=kind,
        class_names=tuple(names),
        dataset="world",
        protocol="default",
        split=split,
        run_name="run",
    )


def finished(seed: int, skills: dict[str, float]) -> Finished:
    """A replicate whose rows have these skills on every task and split."""
    scores = {}
    for split in ("test_iid", "test_counterfactual", "test_recombined"):
        if split != "test_recombined":
            rows = {row: [activities(seed=seed, skill=skill, split=split)] for row, skill in skills.items()}
            scores["activity", split] = WorldScores(rows, seed=seed)
        rows = {row: [actions(seed=seed, skill=skill, split=split)] for row, skill in skills.items() if _is_atomic(row)}
        scores["atomic", split] = WorldScores(rows, seed=seed)
    replicate = Replicate(seed=seed, strength=0.7, frozen_set=0, head_seeds=(100 * seed,))
    return Finished(replicate=replicate, scores=scores, probes={})


def _is_atomic(row: str) -> bool:
    return row == CLIP_ALONE or "atomic" in ROWS[row].tasks
