"""What the frozen CLIP knows by itself: each class's match with the frames that it chooses, nothing trained.

It is a reference and no run. A reader will ask why the study needs it: whatever reads CLIP's frames may owe its gain to
the intervention or to CLIP, and this is what CLIP gives for nothing.
"""

from dataclasses import replace

import numpy as np
import torch

from cache.manifest import Task
from cache.predictions import Predictions
from cache.store import FeatureStore
from train.causal.evidence import match_and_evidence
from train.causal.joint_space import unit_prompts
from train.config import TrainConfig
from train.sampling import segment_centres

NAME = "CLIP alone"


def clip_alone(store: FeatureStore, task: Task, predictions: Predictions, config: TrainConfig) -> Predictions:
    """Scores the videos of some predictions by their matches.

    Args:
        store: the cache with their visual prompts and the task's texts.
        task: of the predictions.
        predictions: of a CMDCL run; tells which videos, and their targets.
        config: of that run; tells how many frames, and the temperature of their choice.

    Returns:
        Predictions on the same videos whose logits (n, C) are cosines.
    """
    reader, num_frames = store.visual_prompts, config.num_frames
    rows = [reader[clip_id][segment_centres(reader.num_rows(clip_id), num_frames)] for clip_id in predictions.clip_ids]
    prompts = unit_prompts(torch.from_numpy(np.stack(rows)), num_frames=num_frames, dim=config.cmdcl.dim)
    text = torch.from_numpy(store.text(task).sentence.copy())
    match, _ = match_and_evidence(text, prompts, config.cmdcl.tau_t)
    return replace(predictions, logits=match.numpy(), run_name=NAME)
