import numpy as np
import pytest

from pipeline.demo.probe import match


def test_the_matching_score_is_own_cosine_minus_the_mean_over_classes() -> None:
    text = np.eye(4)
    images = np.array([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]])
    hits, scores = match(images, text, np.array([[0, 0]]))
    assert hits == pytest.approx([0.5])
    assert scores == pytest.approx([((1 - 0.25) + (0 - 0.25)) / 2])


def test_an_encoder_that_sees_no_class_scores_zero() -> None:
    images = np.ones((3, 2, 4)) / 2
    _, scores = match(images, np.eye(4), np.zeros((3, 2), dtype=np.int64))
    assert scores == pytest.approx([0.0, 0.0, 0.0])
