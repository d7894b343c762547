"""How CLIP matches frames with class texts before and after the intervention, over a whole split (CMDCL, Fig. 1c, 5c).

The papers print the picture and no formula. Here a frame's probabilities are CLIP's own: the softmax over the class
texts of cosine / temperature. Three texts are compared with the same frames: CLIP's from the cache, T after training,
and T' (T*) of each clip, so that what training did is not taken for the intervention. Nothing trains T' to be matched
so; the picture says which frames it has come nearer to, and no more.

Axis letters: n clips, L frames used, C classes, D joint width, R rows, S stages.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from cache.explanation import Matching
from cache.manifest import Clip, Dataset, Task
from train.causal.joint_space import frame_cosines, unit_prompts
from train.clip_set import ClipSet
from train.experiment import Experiment
from train.models.cmdcl import CMDCL
from train.models.pcmci import PCMCI
from train.sampling import segment_centres

_CLIPS_AT_ONCE = 32
_ALL = "all clips"


def match_texts(experiment: Experiment, clip_set: ClipSet, model: CMDCL | PCMCI, device: torch.device) -> Matching:
    """Matching probabilities of every clip of a split, averaged by the class of a single-label task."""
    temperature = model.config.tau_t
    probabilities = torch.cat(
        [
            _of_clips(experiment, clip_set.clips[start : start + _CLIPS_AT_ONCE], model, temperature, device)
            for start in range(0, len(clip_set), _CLIPS_AT_ONCE)
        ],
        dim=1,
    ).double()  # (S, n, C)
    row_task, labels = _rows(experiment.dataset, experiment.task, clip_set.clips)
    rows = [name for name in _row_names(experiment.dataset, row_task) if name in labels]
    members = [[number for number, label in enumerate(labels) if label == name] for name in rows]
    return Matching(
        rows=tuple(rows),
        row_task=row_task,
        counts=np.array([len(numbers) for numbers in members], np.int64),
        probabilities=torch.stack([probabilities[:, numbers].mean(dim=1) for numbers in members], dim=1)
        .float()
        .numpy(),
        on_own=_on_own(probabilities, clip_set),
        temperature=temperature,
    )


def _of_clips(
    experiment: Experiment, clips: Sequence[Clip], model: CMDCL | PCMCI, temperature: float, device: torch.device
) -> Tensor:
    """(S, n, C): mean over frames of the softmax over classes."""
    rows = [experiment.store.visual_prompts[clip.id] for clip in clips]
    chosen = [prompts[segment_centres(len(prompts), model.num_frames)] for prompts in rows]
    visual_prompts = torch.from_numpy(np.stack(chosen).astype(np.float32)).to(device)
    frames = unit_prompts(visual_prompts, num_frames=model.num_frames, dim=model.config.dim)
    cached = F.normalize(torch.from_numpy(experiment.method.text.sentence.copy()).to(device), dim=-1)
    stages = (cached, model.text, model.debias_text(visual_prompts))
    matched = [(frame_cosines(text, frames) / temperature).softmax(dim=1).mean(dim=2) for text in stages]
    return torch.stack(matched).cpu()


def _rows(dataset: Dataset, task: Task, clips: Sequence[Clip]) -> tuple[str, list[str]]:
    """The single-label task whose classes are the rows, and each clip's class; "" for a clip without a label of it."""
    singles = [task] if task.kind == "single" else [other for other in dataset.tasks if other.kind == "single"]
    for other in singles:
        labels = [clip.labels.get(other.name, ("",))[0] for clip in clips]
        if any(labels):
            return other.name, labels
    return "", [_ALL] * len(clips)


def _row_names(dataset: Dataset, row_task: str) -> tuple[str, ...]:
    return dataset.task(row_task).class_names if row_task else (_ALL,)


def _on_own(probabilities: Tensor, clip_set: ClipSet) -> np.ndarray | None:
    """(S,): probability on a clip's own classes, mean over the clips that have any; None where none has."""
    targets = torch.from_numpy(clip_set.targets)
    own = F.one_hot(targets, probabilities.shape[-1]) if targets.ndim == 1 else targets
    labelled = own.bool().any(dim=1)
    if not labelled.any():
        return None
    return (probabilities * own).sum(dim=2)[:, labelled].mean(dim=1).float().numpy()
