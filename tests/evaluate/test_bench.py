"""The bench of average precision: what it times agrees, and its ratios are what they say. No speed is asserted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evaluate import bench
from evaluate.bench import Timing, bench_evaluate, largest_difference, synthetic
from evaluate.metrics import average_precision
from evaluate.ranking import Floats, Scores, Targets


def test_ratios_are_times_as_fast_by_round_and_their_median_counts() -> None:
    timing = Timing(ours=[1.0, 2.0, 0.5], loop=[8.0, 10.0, 50.0], call=[3.0, 4.0, 2.0])
    assert timing.ratios == [8.0, 5.0, 100.0]
    assert timing.to_json() == {
        "ratio_to_scikit_learn": 8.0,
        "ratios": [8.0, 5.0, 100.0],
        "ratio_to_scikit_learn_call": 3.0,
        "call_ratios": [3.0, 2.0, 4.0],
        "seconds": 1.0,
        "scikit_learn_seconds": 10.0,
        "scikit_learn_call_seconds": 3.0,
    }


@pytest.mark.parametrize(("num_clips", "num_classes"), [(60, 5), (7, 1), (12, 40)])
def test_all_three_agree_on_the_set_and_on_its_resamples(num_clips: int, num_classes: int) -> None:
    found = bench_evaluate(num_clips=num_clips, num_classes=num_classes, repeats=2, num_resamples=300)
    assert found.max_difference < 1e-12
    assert found.sizes["scikit_learn_resamples"] == 3
    for timing in (found.once, found.resample):
        assert len(timing.ours) == len(timing.loop) == len(timing.call) == 2
    assert found.to_json() == {
        **found.sizes,
        **found.once.to_json(),
        "max_abs_difference": found.max_difference,
        "bootstrap": found.resample.to_json(),
    }


def test_seconds_are_those_of_one_value_and_every_other_round_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock = [0.0]

    def of(name: str, seconds: float) -> Callable[..., list[Floats]]:
        def run(*arguments: Any) -> list[Floats]:  # noqa: ANN401
            order.append(name)
            num_values = len(arguments[-1]) if name == "_bootstrap" else 2 if name != "_once" else 1
            clock[0] += seconds * num_values
            return [np.ones(5)] * num_values

        return run

    for name, seconds in (("_once", 1.0), ("_bootstrap", 0.5), ("_loop", 8.0), ("_call", 4.0)):
        monkeypatch.setattr(bench, name, of(name, seconds))
    monkeypatch.setattr("evaluate.bench.time.perf_counter", lambda: clock[0])
    found = bench_evaluate(num_clips=60, num_classes=5, repeats=2, num_resamples=200)
    assert order == [
        *("_once", "_loop", "_call", "_bootstrap", "_loop", "_call"),
        *("_call", "_loop", "_once", "_call", "_loop", "_bootstrap"),
    ]
    assert (found.once.ours, found.once.loop, found.once.call) == ([1.0, 1.0], [8.0, 8.0], [4.0, 4.0])
    assert (found.resample.ratios, found.resample.call_ratios) == ([16.0, 16.0], [8.0, 8.0])


def test_the_loop_is_given_contiguous_columns() -> None:
    scores, targets = synthetic(50, 4, seed=0)
    columns = bench._columns(scores, targets)
    assert all(part.flags["C_CONTIGUOUS"] for column in columns for part in column)
    np.testing.assert_array_equal(np.stack([column for column, _ in columns], axis=1), scores)
    np.testing.assert_array_equal(np.stack([column for _, column in columns], axis=1), targets)


@pytest.mark.parametrize("reference", ["_loop", "_call"])
def test_a_reference_that_says_something_else_shows_in_the_difference(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(bench, reference)
    monkeypatch.setattr(bench, reference, lambda samples: [values + 0.25 for values in whole(samples)])
    found = bench_evaluate(num_clips=60, num_classes=5, repeats=1, num_resamples=2)
    assert found.max_difference == pytest.approx(0.25)


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
