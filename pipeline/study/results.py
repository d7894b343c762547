"""What one finished replicate says: scores of every row on every test split, and its probe of bias.

    Finished.scores[task, split]          a WorldScores: points and resampled values of all rows
    Finished.probes[row, task]            what is left of the model's evidence when the cause is covered

The probe asks of a trained model what the papers ask of CLIP: the same videos again, with person and object covered
(the cause gone, the scene stays) or before a grey wall (the scene gone). Its evidence is the logit of the true classes
minus the mean logit of the others, averaged over videos; `kept` is the share of the evidence on the videos as filmed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from cache.predictions import Predictions
from cache.run import Run
from pipeline.demo.scores import HEADLINE, card_of
from pipeline.demo.scripts import TEST_SPLITS
from pipeline.demo.world import PROBES
from pipeline.study.plan import Replicate
from pipeline.study.scores import WorldScores
from pipeline.study.variants import CLIP_ALONE


@dataclass(frozen=True, kw_only=True)
class ModelProbe:
    """A trained model under the conditions of the probe, averaged over heads: condition -> value."""

    score: Mapping[str, float]
    """Acc@1 or macro mAP."""
    kept: Mapping[str, float]
    """Evidence as a share of the evidence on the same videos as filmed."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A replicate whose runs are all there."""

    replicate: Replicate
    scores: Mapping[tuple[str, str], WorldScores]
    probes: Mapping[tuple[str, str], ModelProbe]


def read(replicate: Replicate, runs: Sequence[Run], reference: Callable[[Predictions], Predictions]) -> Finished:
    """Evaluates the runs of a replicate, and CLIP alone on the same videos.

    Args:
        replicate: where the runs stand.
        runs: all of its runs.
        reference: from any run's predictions to those of CLIP alone.
    """
    scores: dict[tuple[str, str], WorldScores] = {}
    for task in HEADLINE:
        for split in TEST_SPLITS:
            found = _by_row(runs, task, split)
            if found:
                alone = reference(next(iter(found.values()))[0])
                scores[task, split] = WorldScores({CLIP_ALONE: [alone], **found}, seed=replicate.seed)
    rows = {(run.info.variant, run.info.task) for run in runs}
    probes = {key: _probe(runs, *key) for key in sorted(rows) if _by_row(runs, key[1], "probe_covered")}
    return Finished(replicate=replicate, scores=scores, probes=probes)


def evidence(predictions: Predictions) -> float:
    """Mean over videos of: mean logit of the true classes minus mean logit of the others."""
    logits, targets = predictions.logits.astype(np.float64), predictions.targets
    true = targets > 0 if predictions.kind == "multi" else np.eye(logits.shape[1], dtype=bool)[targets]
    kept = true.any(axis=1) & ~true.all(axis=1)
    if not kept.any():
        raise ValueError("no video has both a true and another class: there is no evidence to measure")
    logits, true = logits[kept], true[kept]
    own = np.where(true, logits, 0).sum(axis=1) / true.sum(axis=1)
    other = np.where(true, 0, logits).sum(axis=1) / (~true).sum(axis=1)
    return float((own - other).mean())


def first(predictions: Predictions, count: int) -> Predictions:
    """The first videos alone."""
    return replace(
        predictions,
        clip_ids=predictions.clip_ids[:count],
        logits=predictions.logits[:count],
        targets=predictions.targets[:count],
        groups={name: values[:count] for name, values in predictions.groups.items()},
    )


def _by_row(runs: Iterable[Run], task: str, split: str) -> dict[str, list[Predictions]]:
    found: dict[str, list[Predictions]] = {}
    for run in runs:
        if run.info.task == task and split in run.splits:
            found.setdefault(run.info.variant, []).append(run.predictions(split))
    return found


def _probe(runs: Sequence[Run], row: str, task: str) -> ModelProbe:
    heads = [run for run in runs if (run.info.variant, run.info.task) == (row, task)]
    parts = [_conditions(run) for run in heads]
    cards = [{name: card_of(one)(None)[HEADLINE[task]] for name, one in part.items()} for part in parts]
    shares = [{name: evidence(one) / evidence(part["as filmed"]) for name, one in part.items()} for part in parts]
    return ModelProbe(
        score={name: fmean(card[name] for card in cards) for name in parts[0]},
        kept={name: fmean(share[name] for share in shares) for name in parts[0]},
    )


def _conditions(run: Run) -> dict[str, Predictions]:
    covered, neutral = (run.predictions(name) for name in PROBES)
    return {
        "as filmed": first(run.predictions("test_iid"), len(covered.clip_ids)),
        "cause covered": covered,
        "surroundings removed": neutral,
    }
