import numpy as np
import pytest

from evaluate.metrics import acc1
from train.validation import score


def test_accuracy_is_counted_by_hand() -> None:
    logits = np.array([[2, 1], [0, 3], [5, 4]], np.float32)
    assert score("single", logits, np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_a_collapsed_epoch_scores_chance_and_a_shared_first_place_its_share() -> None:
    targets = np.array([0, 0, 0, 1])
    assert score("single", np.ones((4, 10), np.float32), targets) == pytest.approx(0.1)
    logits = np.array([[2, 2, 1], [0, 3, 3], [5, 4, 4], [1, 2, 2]], np.float32)
    assert score("single", logits, np.array([0, 0, 0, 2])) == pytest.approx((1 / 2 + 0 + 1 + 1 / 2) / 4)


def test_accuracy_is_the_one_that_evaluation_reports() -> None:
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(size=(200, 5))).astype(np.float32)
    targets = rng.integers(5, size=200)
    assert score("single", logits, targets) == pytest.approx(acc1(logits, targets), abs=1e-12)
    assert abs(score("single", logits, targets) - np.mean(logits.argmax(axis=1) == targets)) > 1e-3


def test_map_is_counted_by_hand_over_classes_with_a_positive() -> None:
    logits = np.array([[3, 0, 0], [2, 5, 0], [1, 4, 0]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.uint8)
    first = (1 / 1 + 2 / 3) / 2
    assert score("multi", logits, targets) == pytest.approx((first + 1.0) / 2)
