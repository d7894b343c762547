"""Co-classification against counting by hand."""

import numpy as np
import pytest

from cache.predictions import Predictions
from evaluate.coclassification import as_many_as_true, co_classification, shares
from tests.evaluate import toy_runs


def three_classes() -> Predictions:
    """Two clips with a and b, one with c: b and c change places in the second clip's logits."""
    names = ("a", "b", "c")
    item = toy_runs.predictions(kind="multi", n=3, class_names=names)
    targets = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.uint8)
    logits = np.array([[3, 2, 1], [3, 1, 2], [1, 2, 3]], np.float32)
    return Predictions(**{**vars(item), "targets": targets, "logits": logits})


def test_a_clip_predicts_as_many_classes_as_it_has() -> None:
    item = three_classes()
    chosen = as_many_as_true(item.logits, item.targets.astype(np.int64))
    assert chosen.tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 1]]
    tied = as_many_as_true(np.zeros((1, 3), np.float32), np.array([[0, 1, 0]]))
    assert tied.tolist() == [[1, 0, 0]]


def test_counts_shares_and_pairs_are_those_counted_by_hand() -> None:
    found = co_classification(three_classes())
    assert found["classes"] == ["a", "b", "c"]
    assert found["together"] == [[2, 2, 0], [2, 2, 0], [0, 0, 1]]
    assert found["predicted"] == [[2, 1, 1], [1, 1, 0], [1, 0, 2]]
    assert found["pairs"] == [{"first": "a", "second": "c", "together": 0, "predicted": 1}]
    # a -> b: 1 and 1/2; a -> c: 0 and 1/2; b -> a: 1 and 1; b -> c: 0 and 0; c -> a: 0 and 1/2; c -> b: 0 and 0
    assert found["difference"] == pytest.approx((0.5 + 0.5 + 0 + 0 + 0.5 + 0) / 6)
    assert shares(np.array([[2, 1], [1, 0]])).tolist() == [[1.0, 0.5], [0.0, 0.0]]


def test_a_class_without_clips_has_no_part_in_the_difference() -> None:
    item = three_classes()
    targets, logits = np.pad(item.targets, ((0, 0), (0, 1))), np.pad(item.logits, ((0, 0), (0, 1)), constant_values=-9)
    wider = Predictions(**{**vars(item), "class_names": ("a", "b", "c", "d"), "targets": targets, "logits": logits})
    assert co_classification(wider)["difference"] == co_classification(item)["difference"]
    nobody = Predictions(**{**vars(item), "targets": np.zeros_like(item.targets)})
    assert co_classification(nobody)["difference"] is None


def test_perfect_logits_differ_in_nothing_and_overstate_no_pair() -> None:
    item = toy_runs.predictions(kind="multi", skill=1000.0)
    found = co_classification(item)
    assert found["together"] == found["predicted"]
    assert (found["difference"], found["pairs"]) == (0.0, [])


def test_many_classes_are_cut_to_the_most_frequent_in_their_order() -> None:
    names = toy_runs.class_names(40)
    found = co_classification(toy_runs.predictions(kind="multi", n=200, class_names=names))
    assert len(found["classes"]) == len(found["together"]) == len(found["predicted"][0]) == 24
    assert [names.index(name) for name in found["classes"]] == sorted(names.index(name) for name in found["classes"])


def test_a_single_label_task_has_none() -> None:
    with pytest.raises(ValueError, match="one label a clip"):
        co_classification(toy_runs.predictions())
