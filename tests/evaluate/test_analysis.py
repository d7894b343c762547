"""Tables per class and group, and the questions that the controlled world lets us ask, on cases made by hand."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from cache.predictions import Predictions
from evaluate import analysis, metrics
from tests.evaluate import toy_runs

GROUPS = (("a", "b"),)


def _by_hand(predicted: list[int], targets: list[int]) -> Predictions:
    """Classes a, b share their actions, c stands alone; the predicted class scores 2, class b otherwise 1."""
    logits = np.zeros((len(predicted), 3), dtype=np.float32)
    logits[:, 1] = 1.0
    logits[np.arange(len(predicted)), predicted] = 2.0
    return Predictions(
        clip_ids=tuple(f"clip-{number}" for number in range(len(predicted))),
        logits=logits,
        targets=np.array(targets, dtype=np.int64),
        task="activity",
        kind="single",
        class_names=("a", "b", "c"),
        dataset="kitchen",
        protocol="p",
        split="test",
        run_name="r",
    )


def test_pair_accuracy_asks_for_the_set_and_order_accuracy_for_the_order() -> None:
    item = _by_hand(predicted=[0, 0, 2, 2, 1, 2], targets=[0, 1, 0, 2, 1, 1])
    assert analysis.pair_accuracy(item, GROUPS) == pytest.approx(4 / 6)
    # Within {a, b}: clips 0 and 4 right, clip 1 wrong; 2 and 5 miss the set and prefer b: wrong, and right.
    assert analysis.order_accuracy(item, GROUPS) == pytest.approx(3 / 5)


def test_the_order_blind_ceiling_of_three_pairs_in_eight_classes_is_62_5_percent() -> None:
    item = toy_runs.predictions(n=8)
    item.targets[:] = np.arange(8)
    names = item.class_names
    assert analysis.order_blind_ceiling(item, [names[0:2], names[2:4], names[4:6]]) == pytest.approx(0.625)


def test_same_set_groups_ignore_order_and_leave_single_classes_out() -> None:
    sets = {"tea": ("milk", "water"), "toast": ("bread",), "chai": ["water", "milk"]}
    assert analysis.same_set_groups(sets) == (("tea", "chai"),)


def test_unknown_and_repeated_classes_are_refused() -> None:
    item = _by_hand([0], [0])
    with pytest.raises(ValueError, match="'z'"):
        analysis.pair_accuracy(item, [("a", "z")])
    with pytest.raises(ValueError, match="two groups"):
        analysis.pair_accuracy(item, [("a", "b"), ("b", "c")])
    with pytest.raises(ValueError, match="multi-label"):
        analysis.confusion_matrix(toy_runs.predictions(kind="multi"))


def test_confusion_matrix_equals_scikit_learn() -> None:
    item = toy_runs.predictions()
    expected = confusion_matrix(item.targets, item.logits.argmax(axis=1), labels=np.arange(8))
    np.testing.assert_array_equal(analysis.confusion_matrix(item), expected)


def test_per_class_rows_average_to_the_card() -> None:
    item = toy_runs.predictions()
    rows, card = analysis.per_class(item), metrics.evaluate(item)
    assert sum(row.num_positives for row in rows) == sum(row.num_predicted or 0 for row in rows) == 60
    assert np.mean([row.recall for row in rows if row.recall is not None]) == pytest.approx(card["mean_class_accuracy"])
    assert np.mean([row.average_precision for row in rows if row.average_precision is not None]) == pytest.approx(
        card["map_macro"]
    )


def test_map_of_all_classes_is_the_macro_map_and_of_one_class_its_average_precision() -> None:
    item = toy_runs.predictions(kind="multi")
    assert analysis.map_of_classes(item, item.class_names) == pytest.approx(
        metrics.map_macro(item.logits, item.targets)
    )
    one = analysis.per_class(item)[3].average_precision
    assert analysis.map_of_classes(item, ["milk tea"]) == one
    item.targets[:, 3] = 0
    with pytest.raises(ValueError, match="none of the classes"):
        analysis.map_of_classes(item, ["milk tea"])
