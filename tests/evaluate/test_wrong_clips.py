"""Which clips went most wrong: by hand, and with everything that a reader is told of them."""

from collections.abc import Sequence

import numpy as np
import pytest

from cache.manifest import TaskKind
from cache.predictions import Predictions
from evaluate.wrong_clips import clip_errors, most_wrong
from tests.evaluate import toy_runs


def _predictions(kind: TaskKind, logits: list[list[float]], targets: Sequence[int | list[int]]) -> Predictions:
    as_array = np.array(targets)
    return Predictions(
        clip_ids=tuple("abcdefgh"[: len(logits)]),
        logits=np.array(logits, dtype=np.float32),
        targets=as_array if kind == "single" else as_array.astype(np.uint8),
        task="t",
        kind=kind,
        class_names=("x", "y", "z"),
        dataset="d",
        protocol="p",
        split="s",
        run_name="r",
        groups={"subject": tuple("1234567"[: len(logits)]), "camera": ("",) * len(logits)},
    )


def test_a_confident_mistake_comes_before_an_undecided_one_and_right_clips_do_not_appear() -> None:
    item = _predictions("single", [[0.0, 0.5, 0.0], [9.0, 1.0, 0.0], [0.0, 8.0, 1.0], [1.0, 1.0, 0.0]], [0, 0, 2, 0])
    assert clip_errors(item) == pytest.approx([0.5, -8.0, 7.0, 0.0])
    found = most_wrong(item)
    assert [clip.clip_id for clip in found] == ["c", "a"]  # b is right, d is tied
    (label,), (mistaken,) = found[0].labels, found[0].mistaken
    assert (label.name, mistaken.name) == ("z", "y")
    total = np.exp([0.0, 8.0, 1.0]).sum()
    assert (label.probability, mistaken.probability) == pytest.approx((np.e / total, np.exp(8.0) / total))
    assert found[0].groups == {"subject": "3"}


def test_adding_a_constant_to_the_logits_of_a_clip_changes_no_margin() -> None:
    item = toy_runs.predictions()
    expected = clip_errors(item)
    item.logits[:] += 3
    np.testing.assert_allclose(clip_errors(item), expected, atol=1e-5)


def test_multi_label_clips_are_ordered_by_their_cross_entropy_and_an_unlabelled_one_can_be_worst() -> None:
    item = _predictions(
        "multi", [[2.0, -2.0, -2.0], [5.0, -5.0, -5.0], [-1.0, 3.0, 2.0]], [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    )
    errors = clip_errors(item)
    signs = np.where(item.targets == 1, 1.0, -1.0)
    chances = 1 / (1 + np.exp(-signs * item.logits.astype(np.float64)))
    np.testing.assert_allclose(errors, -np.log(chances).mean(axis=1))
    found = most_wrong(item)
    assert [clip.clip_id for clip in found] == ["b", "c", "a"]
    assert (found[0].num_labels, found[0].labels) == (0, [])
    assert [belief.name for belief in found[0].mistaken] == ["x"]
    assert ([belief.name for belief in found[1].labels], found[1].num_labels) == (["x"], 2)  # y was believed
    assert [belief.name for belief in found[1].mistaken] == ["z"]
    assert [belief.name for belief in found[2].labels] == ["x"]  # nothing is wrong: the least certain of each


def test_scores_beyond_what_exp_can_take_give_finite_errors_and_probabilities() -> None:
    logits = [[-3e4, 3e4, 0.0], [3e4, -3e4, 0.0]]
    for item in (_predictions("single", logits, [0, 2]), _predictions("multi", logits, [[1, 0, 0], [0, 1, 1]])):
        assert np.isfinite(clip_errors(item)).all()
        for clip in most_wrong(item):
            assert all(0 <= belief.probability <= 1 for belief in (*clip.labels, *clip.mistaken))
