"""Intervals and tests: coverage on synthetic scores, other implementations, and determinism."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cache.errors import ConfigError
from cache.manifest import TaskKind
from evaluate import metrics, uncertainty
from evaluate.clusters import resamples_of
from evaluate.compare import compare, compare_drawn, why_not_comparable
from evaluate.ranking import Floats
from evaluate.summary import summarise
from evaluate.uncertainty import Draws, Resamples
from tests.evaluate import toy_runs

EARLIER = (0.054075566044022305, -0.004986200294461382)
"""Of macro mAP when both models were drawn together for their pair: estimate, bias."""


def test_students_interval_by_hand_holds_its_estimate_and_reaches_to_the_value_on_endless_clips() -> None:
    draws = np.array([0.5, 0.6, 0.7])  # standard deviation 0.1; of 4 units 0.1 x sqrt(4 / 3), with 3 degrees of freedom
    half = 3.182446 * 0.1 * np.sqrt(4 / 3)
    found = uncertainty.student_interval(0.5, draws, num_units=4, bounds=(-1.0, 1.0))
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert found.bias == pytest.approx(0.1)
    longer = uncertainty.student_interval(0.5, draws, num_units=4, endless=0.3, bounds=(-1.0, 1.0))
    assert (longer.low, longer.high) == pytest.approx((0.3 - half, 0.5 + half), abs=1e-6)
    assert uncertainty.student_interval(0.2, draws, num_units=4).low == 0.0
    with pytest.raises(ValueError, match="needs two"):
        uncertainty.student_interval(0.5, draws, num_units=1)


def test_the_p_value_of_a_difference_is_that_of_a_t_test_and_one_where_its_two_estimates_disagree_in_sign() -> None:
    draws = np.random.default_rng(0).normal(0.03, 0.01, size=4000)
    error = draws.std(ddof=1) * np.sqrt(20 / 19)
    found = uncertainty.student_interval(0.02, draws, num_units=20, bounds=(-1.0, 1.0))
    assert found.p_value == pytest.approx(2 * stats.t.sf(0.02 / error, df=19))
    nearer = uncertainty.student_interval(0.02, draws, num_units=20, endless=0.01, bounds=(-1.0, 1.0))
    assert nearer.p_value == pytest.approx(2 * stats.t.sf(0.01 / error, df=19))
    assert uncertainty.student_interval(0.02, draws, num_units=20, endless=-0.01, bounds=(-1.0, 1.0)).p_value == 1.0


def test_the_basic_interval_by_hand_moves_against_the_bias_and_may_lie_beside_its_estimate() -> None:
    interval = uncertainty.basic_interval(0.5, np.linspace(0.6, 0.8, 2001))
    assert (interval.low, interval.high) == pytest.approx((0.205, 0.395), abs=1e-3)
    assert interval.bias == pytest.approx(0.2)
    assert interval.is_known


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_where_every_resample_agrees_there_is_no_bootstrap_interval(kind: TaskKind) -> None:
    item = toy_runs.predictions(kind=kind, skill=1000.0)
    intervals = uncertainty.bootstrap(Draws.of(metrics.resampled_card(item), Resamples(num_clips=60, count=20)))
    assert {(found.estimate, found.is_known) for found in intervals.values()} == {(1.0, False)}


def test_the_paired_difference_is_narrower_than_the_difference_of_independent_draws() -> None:
    first = toy_runs.predictions(kind="multi", n=200, seed=0)
    better = toy_runs.predictions(kind="multi", n=200, seed=0, skill=1.7)
    cards = [metrics.resampled_card(item) for item in (first, better)]
    same = [Draws.of(card, Resamples(num_clips=200, count=300)) for card in cards]
    paired = uncertainty.paired_differences(*same)["map_macro"]
    draws = [
        Draws.of(card, Resamples(num_clips=200, count=300, seed=seed)).values["map_macro"]
        for seed, card in enumerate(cards)
    ]
    assert paired.high - paired.low < 0.5 * 4 * np.std(draws[1] - draws[0])
    assert paired.low > 0


def test_a_model_against_itself_differs_by_nothing() -> None:
    item = toy_runs.predictions()
    found = compare(item, item, num_resamples=50)
    assert found.p_value == 1.0
    assert {(gain.estimate, gain.low, gain.high) for gain in found.differences.values()} == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("cluster", [None, "subject"])
def test_the_difference_of_stored_draws_is_that_of_drawing_both_together(kind: TaskKind, cluster: str | None) -> None:
    first, second = (toy_runs.predictions(kind=kind, seed=seed) for seed in (0, 1))
    resamples = resamples_of(first, cluster=cluster, num_resamples=50, seed=3)
    cards = {name: metrics.resampled_card(item) for name, item in (("first", first), ("second", second))}
    together = uncertainty.draw(cards, resamples)
    found = compare(first, second, cluster=cluster, num_resamples=50, seed=3).differences
    assert found.keys() == together["first"].keys()
    for name, interval in found.items():
        gain = cards["second"](None)[name] - cards["first"](None)[name]
        drawn = together["second"][name] - together["first"][name]
        expected = uncertainty.student_interval(
            gain, drawn, num_units=resamples.units()[1], endless=interval.endless, bounds=(-1.0, 1.0)
        )
        for key in ("estimate", "low", "high", "bias", "p_value"):
            assert getattr(interval, key) == pytest.approx(getattr(expected, key), abs=1e-12)


def test_an_earlier_comparison_keeps_its_digits() -> None:
    first, second = (toy_runs.predictions(seed=seed) for seed in (0, 1))
    found = compare(first, second, num_resamples=50).differences["map_macro"]
    assert (found.estimate, found.bias) == pytest.approx(EARLIER, abs=1e-12)


def test_other_clusters_of_the_second_are_drawn_again_as_the_first_ones() -> None:
    first, second = (toy_runs.predictions(seed=seed) for seed in (0, 1))
    expected = compare(first, second, cluster="subject", num_resamples=20)
    object.__setattr__(second, "groups", {"subject": first.groups["subject"][::-1]})
    before, after = (
        Draws.of(metrics.resampled_card(item), resamples_of(item, cluster="subject", num_resamples=20, seed=0))
        for item in (first, second)
    )
    assert compare_drawn(first, second, before, after) == expected
    with pytest.raises(ValueError, match="same resamples"):
        uncertainty.paired_differences(before, after)


def test_every_run_is_drawn_once_however_many_pairs_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    blocks = Resamples.blocks

    def counted(resamples: Resamples) -> Iterator[Floats]:
        calls.append(resamples.count)
        return blocks(resamples)

    monkeypatch.setattr(Resamples, "blocks", counted)
    runs = [toy_runs.run(tmp_path / str(seed), splits=("iid",), seed=seed) for seed in range(3)]
    assert len(summarise(runs, num_resamples=10)["comparisons"]) == 2
    assert calls == [10] * 3


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_many_resamples_at_once_give_what_one_after_another_gives(
    kind: TaskKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = metrics.resampled_card(toy_runs.predictions(kind=kind, n=50))
    resamples = Resamples(num_clips=50, count=17)
    expected = uncertainty.draw({"": card}, resamples)[""]
    monkeypatch.setattr(uncertainty, "_CELLS", 5 * 50)
    for name, values in Draws.of(card, resamples).values.items():
        assert values == pytest.approx(expected[name], abs=1e-12)


def test_clusters_are_drawn_whole() -> None:
    clusters = ["a", "a", "b", "c", "c", "c"]
    for weights in Resamples(num_clips=6, clusters=clusters, count=20).weights():
        assert weights[0] == weights[1]
        assert weights[3] == weights[4] == weights[5]
        assert weights[0] + weights[2] + weights[3] == 3


def test_intervals_by_cluster_are_wider_when_clips_of_a_cluster_are_alike() -> None:
    rng = np.random.default_rng(0)
    hits = np.repeat((rng.random(20) < 0.6).astype(np.float64), 10)

    def card(weights: np.ndarray | None) -> dict[str, float]:
        return {"acc": float(np.average(hits, weights=weights))}

    clusters = np.repeat(np.arange(20), 10).tolist()
    alone, together = (
        uncertainty.bootstrap(Draws.of(card, Resamples(num_clips=200, clusters=drawn, count=500)))["acc"]
        for drawn in (None, clusters)
    )
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_a_clip_of_unknown_subject_is_drawn_alone() -> None:
    item = toy_runs.predictions(n=4)
    object.__setattr__(item, "groups", {"subject": ("P1", "P1", "", "")})
    assert resamples_of(item, cluster="subject", num_resamples=2, seed=0).units()[1] == 3
    with pytest.raises(ConfigError, match=r"knows the groups \['subject'\]"):
        resamples_of(item, cluster="camera", num_resamples=2, seed=0)


def test_equal_seeds_give_equal_intervals_and_other_seeds_others() -> None:
    card = metrics.resampled_card(toy_runs.predictions(kind="multi"))
    runs = [uncertainty.bootstrap(Draws.of(card, Resamples(num_clips=60, count=60, seed=seed))) for seed in (4, 4, 5)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (7, 10), (343, 355)])
def test_wilson_equals_scipy(hits: int, n: int) -> None:
    found = uncertainty.wilson(hits, n)
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("only_first", "only_second"), [(60, 40), (75, 40), (0, 3), (5, 5), (0, 0)])
def test_flips_of_single_clips_equal_the_binomial_test_of_mcnemar(only_first: int, only_second: int) -> None:
    gains = np.array([-1] * only_first + [1] * only_second + [0] * 7)
    total = only_first + only_second
    expected = stats.binomtest(only_first, total).pvalue if total else 1.0
    assert uncertainty.sign_flip_test(gains) == pytest.approx(expected, abs=1e-12)


def test_flips_of_clusters_equal_the_count_over_all_signs() -> None:
    gains = np.array([5, -2, 3, 0, 4, 4, -1])
    totals = [abs(np.dot(signs, gains)) for signs in itertools.product([-1, 1], repeat=len(gains))]
    expected = np.mean(np.array(totals) >= abs(gains.sum()))
    assert uncertainty.sign_flip_test(gains) == pytest.approx(expected, abs=1e-12)


def test_with_a_cluster_alike_clips_of_one_subject_count_once() -> None:
    first, second = (toy_runs.predictions(n=40, seed=seed, skill=0.0) for seed in (0, 1))
    rows = np.arange(40)
    first.logits[:] = second.logits[:] = 0.0
    second.logits[rows, second.targets] = 1.0
    first.logits[rows, (first.targets + (rows < 20)) % 8] = 1.0  # wrong on the first 20 clips, right on the others
    object.__setattr__(first, "groups", {"subject": tuple("ABCDEFGH"[number // 5] for number in rows)})
    assert compare(first, second, num_resamples=2).p_value == pytest.approx(2 / 2**20)
    clustered = compare(first, second, cluster="subject", num_resamples=2)
    assert clustered.p_value == pytest.approx(2 / 2**4)  # four subjects of five clips each
    assert (clustered.only_first_right, clustered.only_second_right) == (0, 20)


def test_holm_by_hand() -> None:
    assert uncertainty.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert uncertainty.holm([]) == []


def test_other_clips_targets_or_classes_are_not_compared() -> None:
    item = toy_runs.predictions()
    assert why_not_comparable(item, toy_runs.predictions(seed=9)) == ""
    assert "different clips" in why_not_comparable(item, toy_runs.predictions(n=50))
    assert "different classes" in why_not_comparable(item, toy_runs.predictions(class_names=("a", "b")))
    other = toy_runs.predictions()
    other.targets[0] = (other.targets[0] + 1) % 8
    assert "different targets" in why_not_comparable(item, other)
    with pytest.raises(ConfigError, match="cannot compare"):
        compare(item, other)


def test_a_resample_that_keeps_no_positive_is_left_out() -> None:
    item = toy_runs.predictions(kind="multi", n=6)
    item.targets[:] = 0
    item.targets[0, 0] = 1
    draws = Draws.of(metrics.resampled_card(item), Resamples(num_clips=6, count=100)).values["map_macro"]
    assert 0 < np.isnan(draws).sum() < 60
    assert uncertainty.basic_interval(0.5, draws).low >= 0
    with pytest.raises(ValueError, match="0 of 3 resamples"):
        uncertainty.basic_interval(0.5, np.full(3, np.nan))
