"""Explanations of a trained run, split by split: RUN/explanations/<split>.h5.

Nothing here touches a logit: predictions are written first, by the code that always writes them, and an explanation
looks at the same weights and the same test views once more, one clip at a time.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from cache.explanation import Explanation
from cache.explanation_file import write_explanation
from cache.run import Run
from train.data import BatchSource
from train.experiment import Experiment
from train.explanations.causal import CausalExplainer
from train.explanations.parts import Explainer, SeenClip, stacked
from train.sampling import Indices


def explain_splits(
    run: Run,
    experiment: Experiment,
    sources: Mapping[str, BatchSource[Any]],
    model: nn.Module,
    device: torch.device,
    chosen: Mapping[str, Indices],
) -> list[Explanation]:
    """Explains clips of each split and writes what was found into the run.

    Args:
        run: where it goes.
        experiment: what the run was trained with.
        sources: batches of the splits.
        model: with the run's weights, on the device.
        device: where it is.
        chosen: split -> numbers of its clips.

    Raises:
        WeightsError: a frozen encoder is needed again, and its weights are absent.
        FingerprintMismatch: they are not those of the run.
    """
    model.eval()
    explanations = []
    with torch.no_grad():
        explainer = _explainer(experiment, model, device)
        for split, numbers in chosen.items():
            explanation = _explain(run, experiment, sources[split], explainer, numbers)
            write_explanation(explanation, run.explanation_path(split))
            explanations.append(explanation)
    return explanations


def _explainer(experiment: Experiment, model: nn.Module, device: torch.device) -> Explainer[Any, Any]:
    if experiment.config.method == "pevl":
        from train.explanations.pose import PeVLExplainer  # open_clip takes seconds to import

        return PeVLExplainer.of(experiment, model, device)
    return CausalExplainer.of(experiment, model, device)


def _explain(
    run: Run,
    experiment: Experiment,
    source: BatchSource[Any],
    explainer: Explainer[Any, SeenClip],
    numbers: Indices,
) -> Explanation:
    clip_set, task = source.clip_set, experiment.task
    targets = clip_set.multi_hot(task.num_classes)[numbers]
    ids = tuple(clip_set.clips[number].id for number in numbers)
    batches = source.batches([np.array([number]) for number in numbers], None)
    seen = [explainer.see(*facts) for facts in zip(ids, batches, targets, strict=True)]
    parts = explainer.parts(clip_set.split, ids, seen)
    times = [explainer.times(clip_id) for clip_id in ids]
    return Explanation(
        method=run.info.method,
        task=task.name,
        kind=task.kind,
        dataset=experiment.dataset.name,
        protocol=experiment.config.protocol,
        split=clip_set.split,
        run_name=run.info.name,
        clip_ids=ids,
        class_names=task.class_names,
        logits=stacked(clip.logits for clip in seen),
        targets=targets,
        shown=np.stack([clip.shown for clip in seen]),
        pts_seconds=stacked(seconds for seconds, _ in times),
        frame_index=stacked(indices for _, indices in times),
        pictures=tuple(picture for clip in seen for picture in clip.pictures),
        **vars(parts),
    )
