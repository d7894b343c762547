"""The activity, guessed from the kitchen alone: how far a model comes that looks at nothing else.

It is a reference and no run: nothing is trained, and the kitchen is read off the world's ground truth and not off
pixels, which makes it the best that a background can do. A reader will ask why it counts training videos when the
world's rules are known: training videos are all that a method has to learn from.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from cache.manifest import Dataset
from cache.predictions import Predictions
from pipeline.demo.scripts import ACTIVITIES, Split, WorldConfig
from pipeline.demo.world import ACTIVITY, PROTOCOL

NAME = "background alone"
DESCRIPTION = (
    "a guess at the activity from the kitchen and nothing else: the most frequent activity of the training videos with "
    "the same background, as the world knows it; a reference, not a trained model"
)
_GROUP = "background"


def expected_accuracy(world: WorldConfig) -> dict[Split, float]:
    """Acc@1 over endless videos: the kitchen is the activity's own with probability rho, and otherwise by chance."""
    chance = 1 / len(ACTIVITIES)
    return {
        "test_iid": world.rho_background + (1 - world.rho_background) * chance,
        "test_counterfactual": chance,
    }


def guess(dataset: Dataset, predictions: Predictions) -> Predictions:
    """Guesses the videos of some predictions.

    Args:
        dataset: the world's manifest, with `background` among the groups of every clip.
        predictions: of a run on activities; tells which videos, and their targets.

    Returns:
        Predictions on the same videos whose logits (n, C) count the training videos of each activity before the same
        background. Equal counts stay tied, as those of a background without a training video: Acc@1 gives them chance.

    Raises:
        ValueError: predictions of another task.
    """
    if predictions.task != ACTIVITY.name:
        raise ValueError(f"the background is a guess at activities, got predictions of {predictions.task!r}")
    train = dataset.select(PROTOCOL, "train")
    seen = Counter((clip.groups[_GROUP], clip.labels[ACTIVITY.name][0]) for clip in train)
    backgrounds = {clip.id: clip.groups[_GROUP] for clip in dataset.clips}
    counts = [
        [seen[backgrounds[clip_id], name] for name in predictions.class_names] for clip_id in predictions.clip_ids
    ]
    return replace(
        predictions,
        logits=np.array(counts, dtype=np.float32),
        run_name=NAME,
        fingerprints={},
        notices=(),
    )
