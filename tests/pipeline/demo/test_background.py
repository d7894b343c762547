import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cache.manifest import Clip, Dataset
from cache.predictions import Predictions
from evaluate.metrics import acc1
from pipeline.demo import background
from pipeline.demo.scripts import ACTIVITIES, BACKGROUNDS, SPLITS, Split, WorldConfig, draw_recording
from pipeline.demo.world import ACTIVITY, ATOMIC, PROTOCOL

EGG, TEA = "fried egg", "milk tea"
TRAIN = [("sand", EGG), ("sand", EGG), ("sand", TEA), ("night", TEA), ("night", TEA), ("night", EGG)]
TRAIN += [("teal tiles", EGG), ("teal tiles", TEA)]


def _dataset(**splits: Sequence[tuple[str, str]]) -> Dataset:
    """A manifest of (background, activity) by split."""
    clips = [
        Clip(
            id=f"{split}-{number}",
            video=f"{split}/{number}.mp4",
            splits={PROTOCOL: split},
            labels={ACTIVITY.name: (activity,)},
            groups={"background": kitchen},
        )
        for split, rows in splits.items()
        for number, (kitchen, activity) in enumerate(rows)
    ]
    return Dataset(
        name="by hand",
        version="1",
        tasks=(ACTIVITY, ATOMIC),
        protocols={PROTOCOL: SPLITS},
        clips=tuple(clips),
        video_root=Path(),
    )


def _predictions(dataset: Dataset, split: str) -> Predictions:
    """Those of a run that knows nothing."""
    clips = dataset.select(PROTOCOL, split)
    return Predictions(
        clip_ids=tuple(clip.id for clip in clips),
        logits=np.zeros((len(clips), len(ACTIVITIES)), dtype=np.float32),
        targets=np.array([ACTIVITIES.index(clip.labels[ACTIVITY.name][0]) for clip in clips], dtype=np.int64),
        task=ACTIVITY.name,
        kind="single",
        class_names=ACTIVITIES,
        dataset=dataset.name,
        protocol=PROTOCOL,
        split=split,
        run_name="run",
        notices=("a notice of the run",),
    )


def _world(num_videos: int, rho: float) -> Dataset:
    """(background, activity) as the world draws them, without a video."""
    world = WorldConfig(num_train=num_videos, num_validation=1, num_test=num_videos, rho_background=rho)
    splits: tuple[Split, ...] = ("train", "test_iid", "test_counterfactual")
    drawn = {split: [draw_recording(world, split, number) for number in range(num_videos)] for split in splits}
    return _dataset(
        **{split: [(BACKGROUNDS[one.background], str(one.activity)) for one in rows] for split, rows in drawn.items()}
    )


def _accuracy(dataset: Dataset, split: str) -> float:
    predictions = background.guess(dataset, _predictions(dataset, split))
    return acc1(predictions.logits, predictions.targets)


@pytest.mark.parametrize(
    ("kitchen", "activity", "chance"),
    [
        ("sand", EGG, 1.0),
        ("sand", TEA, 0.0),
        ("night", TEA, 1.0),
        ("teal tiles", EGG, 0.5),
        ("olive planks", EGG, 0.125),
    ],
)
def test_the_guess_is_the_commonest_training_activity_of_the_kitchen_and_ties_are_chance(
    kitchen: str, activity: str, chance: float
) -> None:
    assert _accuracy(_dataset(train=TRAIN, test_iid=[(kitchen, activity)]), "test_iid") == chance


@pytest.mark.parametrize("rho", [0.4, 0.7])
def test_it_reaches_rho_and_a_share_of_chance_where_kitchens_tell_and_chance_where_they_do_not(rho: float) -> None:
    dataset, expected = _world(1600, rho), background.expected_accuracy(WorldConfig(rho_background=rho))
    assert expected == pytest.approx({"test_iid": rho + (1 - rho) / 8, "test_counterfactual": 1 / 8})
    for split, value in expected.items():
        assert _accuracy(dataset, split) == pytest.approx(value, abs=0.035)  # three standard deviations


def test_it_reads_neither_the_labels_of_the_test_nor_the_run_whose_videos_it_guesses() -> None:
    dataset = _dataset(train=TRAIN, test_iid=[("sand", EGG), ("night", EGG)])
    other = _dataset(train=TRAIN, test_iid=[("sand", TEA), ("night", "pancake")])
    run = _predictions(dataset, "test_iid")
    guessed = background.guess(dataset, run)
    sure = dataclasses.replace(run, logits=np.eye(2, len(ACTIVITIES), dtype=np.float32), targets=run.targets[::-1])
    assert np.array_equal(guessed.logits, background.guess(other, sure).logits)
    assert (guessed.clip_ids, guessed.split) == (run.clip_ids, run.split)
    assert (guessed.run_name, guessed.notices) == ("background alone", ())
    assert np.array_equal(guessed.targets, run.targets)


def test_actions_are_not_guessed() -> None:
    dataset = _dataset(train=TRAIN, test_iid=[("sand", EGG)])
    with pytest.raises(ValueError, match="activities, got predictions of 'atomic'"):
        background.guess(dataset, dataclasses.replace(_predictions(dataset, "test_iid"), task="atomic"))
