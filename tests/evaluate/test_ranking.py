"""Many weightings at once, and what is estimated for endless clips."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score

from evaluate.ranking import Floats, RankedScores, Scores


def _sample(n: int, num_classes: int, *, ties: bool = False, seed: int = 0) -> tuple[Scores, npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, num_classes)) < 0.15).astype(np.uint8)
    targets[:, 2] = 0
    targets[:3, 0] = 1
    scores = (rng.normal(size=targets.shape) + targets).astype(np.float32)
    return (np.round(scores, 1) if ties else scores), targets


def _weights(n: int, count: int) -> Floats:
    rng = np.random.default_rng(5)
    return np.array([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(count)], dtype=np.float64)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_products_and_running_sums_give_the_same_to_the_last_bits(pooled: bool, ties: bool) -> None:
    scores, targets = _sample(300, 20, ties=ties)  # pooled, positives take several blocks of rows
    ranked, weights = RankedScores(scores, targets, pooled=pooled), _weights(300, 30)
    expected = np.array([ranked.average_precision(row) for row in weights])
    np.testing.assert_allclose(ranked._by_products(weights), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(ranked._by_products(weights / 3), expected, rtol=0, atol=1e-12)


def test_the_cheaper_way_is_products_for_many_resamples_of_many_classes_and_sums_for_few_classes() -> None:
    wide, narrow = RankedScores(*_sample(100, 50)), RankedScores(*_sample(4000, 3))
    assert wide._is_product_cheaper(1000)
    assert not wide._is_product_cheaper(1)
    assert not narrow._is_product_cheaper(1000)
    for ranked in (wide, narrow):
        weights = _weights(ranked.num_clips, 3)
        expected = [ranked.average_precision(row) for row in weights]
        np.testing.assert_allclose(ranked.average_precisions(weights), expected, rtol=0, atol=1e-13)


def test_pooled_decisions_under_clip_weights_equal_scikit_learn_on_all_of_them() -> None:
    scores, targets = _sample(60, 7, ties=True)
    (weights,) = _weights(60, 1)
    repeated = np.repeat(weights, 7)
    expected = average_precision_score(targets.ravel(), scores.ravel(), sample_weight=repeated)
    assert RankedScores(scores, targets, pooled=True).average_precision(weights)[0] == pytest.approx(expected)


def test_ranks_beyond_what_float32_counts_exactly_are_counted_in_float64() -> None:
    ranked = RankedScores(*_sample(50, 4))
    assert ranked._exact_type(np.ones((2, 50))) is np.float32
    assert ranked._exact_type(np.full((2, 50), 2.0**20)) is np.float64
    assert ranked._exact_type(np.full((2, 50), 0.5)) is np.float64


def test_positives_judged_by_the_other_clips_by_hand() -> None:
    # Best first: + - + - -, and 1 + + alone. Of two positives the other one is weighted up to 2.
    scores = np.array([[5.0, 5.0], [4.0, 4.0], [3.0, 3.0], [2.0, 2.0], [1.0, 1.0]])
    targets = np.array([[1, 1], [0, 1], [1, 0], [0, 0], [0, 0]])
    # Column 0. The first leads alone: judged down to the next, 2 / (2 + 1). The third: 2 / (2 + 1).
    # Column 1. The first: 2 / 2. The second: 2 / 2.
    np.testing.assert_allclose(RankedScores(scores, targets).endless_precision(), [2 / 3, 1.0])


def test_a_single_positive_says_nothing_of_others_and_a_class_without_any_has_no_value() -> None:
    found = RankedScores(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1, 0], [0, 0]])).endless_precision()
    assert found[0] == 0.0
    assert np.isnan(found[1])


@pytest.mark.parametrize("pooled", [False, True])
def test_small_test_sets_are_too_high_on_average_and_the_estimate_for_endless_clips_is_not(pooled: bool) -> None:
    rng = np.random.default_rng(3)

    def world(n: int) -> RankedScores:
        targets = (rng.random((n, 6)) < 0.2).astype(np.uint8)
        return RankedScores((rng.normal(size=targets.shape) + targets), targets, pooled=pooled)

    truth = float(np.mean(world(100_000).average_precision()))
    small = [world(100) for _ in range(300)]
    plain = float(np.mean([np.mean(ranked.average_precision()) for ranked in small]))
    endless = float(np.mean([np.mean(ranked.endless_precision()) for ranked in small]))
    assert abs(endless - truth) < 0.006
    assert plain - truth > (0.004 if pooled else 0.025)
