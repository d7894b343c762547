import dataclasses

import numpy as np
import pytest

from pipeline.study.results import evidence, first
from tests.pipeline.study.worlds_of import actions, activities


def test_evidence_is_the_true_class_minus_the_mean_of_the_others() -> None:
    logits = np.zeros((48, 8), dtype=np.float32)
    logits[:, 0] = 7.0
    found = dataclasses.replace(activities(seed=0, skill=0.0), logits=logits)
    own = np.where(found.targets == 0, 7.0, 0.0 - 7.0 / 7)
    assert evidence(found) == pytest.approx(own.mean())


def test_evidence_of_several_true_classes_is_their_mean_minus_that_of_the_others() -> None:
    found = actions(seed=0, skill=1.0)
    by_hand = [
        float(logits[targets > 0].mean() - logits[targets == 0].mean())
        for logits, targets in zip(found.logits, found.targets, strict=True)
        if 0 < targets.sum() < 16
    ]
    assert evidence(found) == pytest.approx(np.mean(by_hand), abs=1e-6)


def test_evidence_does_not_change_with_a_constant_and_needs_two_kinds_of_classes() -> None:
    found = activities(seed=0, skill=1.0)
    shifted = dataclasses.replace(found, logits=found.logits + 3)
    assert evidence(shifted) == pytest.approx(evidence(found), abs=1e-5)
    everything = actions(seed=0, skill=1.0)
    with pytest.raises(ValueError, match="no evidence to measure"):
        evidence(dataclasses.replace(everything, targets=np.ones_like(everything.targets)))


def test_the_first_videos_are_those_that_were_filmed_again() -> None:
    found = first(activities(seed=0, skill=1.0), 5)
    assert found.clip_ids == ("0", "1", "2", "3", "4")
    assert (len(found.logits), len(found.targets)) == (5, 5)
