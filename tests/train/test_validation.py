import numpy as np
import pytest

from train.validation import score


def test_accuracy_is_counted_by_hand() -> None:
    logits = np.array([[2, 1], [0, 3], [5, 4]], np.float32)
    assert score("single", logits, np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_map_is_counted_by_hand_over_classes_with_a_positive() -> None:
    logits = np.array([[3, 0, 0], [2, 5, 0], [1, 4, 0]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.uint8)
    first = (1 / 1 + 2 / 3) / 2
    assert score("multi", logits, targets) == pytest.approx((first + 1.0) / 2)
