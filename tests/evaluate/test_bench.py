"""The bench of average precision: what it times agrees, and its ratios are what they say. No speed is asserted."""

import numpy as np
import pytest

from evaluate import bench
from evaluate.bench import Timing, bench_evaluate, largest_difference, synthetic
from evaluate.metrics import average_precision
from evaluate.ranking import Floats, Scores, Targets


def test_ratios_are_times_as_fast_by_round_and_their_median_counts() -> None:
    timing = Timing(ours=[1.0, 2.0, 0.5], scikit_learn=[8.0, 10.0, 50.0])
    assert timing.ratios == [8.0, 5.0, 100.0]
    body = timing.to_json()
    assert (body["ratio_to_scikit_learn"], body["seconds"], body["scikit_learn_seconds"]) == (8.0, 1.0, 10.0)


@pytest.mark.parametrize(("num_clips", "num_classes"), [(60, 5), (7, 1), (12, 40)])
def test_both_implementations_agree_on_the_set_and_on_its_resamples(num_clips: int, num_classes: int) -> None:
    found = bench_evaluate(num_clips=num_clips, num_classes=num_classes, repeats=2, num_resamples=300)
    assert found.max_difference < 1e-12
    assert found.sizes["scikit_learn_resamples"] == 3
    for timing in (found.once, found.resample):
        assert len(timing.ours) == len(timing.scikit_learn) == 2
        assert min(timing.ratios) > 0
    assert found.to_json()["bootstrap"]["ratio_to_scikit_learn"] == found.resample.to_json()["ratio_to_scikit_learn"]


def test_a_wrong_value_shows_in_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(scores: Scores, targets: Targets) -> Floats:
        return average_precision(scores, targets) + np.array([0, 0, 0.01, 0, 0])

    monkeypatch.setattr(bench, "average_precision", wrong)
    found = bench_evaluate(num_clips=60, num_classes=5, repeats=1, num_resamples=2)
    assert found.max_difference == pytest.approx(0.01)


def test_a_value_that_one_implementation_lacks_is_an_infinite_difference() -> None:
    nan, one = np.array([np.nan, 0.5]), np.array([0.25, 0.5])
    assert largest_difference([nan], [nan]) == 0
    assert largest_difference([nan], [one]) == np.inf


def test_the_made_up_set_is_seeded_and_has_every_class() -> None:
    scores, targets = synthetic(400, 157, seed=3)
    again, _ = synthetic(400, 157, seed=3)
    other, _ = synthetic(400, 157, seed=4)
    np.testing.assert_array_equal(scores, again)
    assert not np.array_equal(scores, other)
    assert targets.any(axis=0).all()
    assert targets.sum(axis=1).mean() == pytest.approx(6.8 + 157 / 400, abs=0.4)  # one is added to every class
