"""The arithmetic of means, deviations and two-level differences."""

import numpy as np
import pytest

from evaluate.uncertainty import Interval
from pipeline.study import scores
from pipeline.study.questions import LABELS, SCENES, differences, successes
from pipeline.study.results import first
from pipeline.study.scores import Difference, WorldScores, combined, corrected, difference, spread
from pipeline.study.variants import OURS
from tests.pipeline.study.worlds_of import activities, finished


def test_a_spread_is_the_mean_and_deviation_over_replicates() -> None:
    found = spread([0.2, 0.4, 0.9])
    assert found.mean == pytest.approx(0.5)
    assert found.values == (0.2, 0.4, 0.9)
    assert found.deviation == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert spread([0.3]).deviation is None


def test_heads_are_averaged_within_a_world() -> None:
    one, other = activities(seed=1, skill=1.0), activities(seed=2, skill=1.0)
    accuracies = [float((each.logits.argmax(axis=1) == each.targets).mean()) for each in (one, other)]
    world = WorldScores({"TCI": [one, other]}, seed=0)
    assert accuracies[0] != accuracies[1]
    assert world.points["TCI"]["acc1"] == pytest.approx(np.mean(accuracies))


def test_worlds_that_disagree_widen_the_interval_however_many_videos_they_have() -> None:
    exact = [np.full(50, value) for value in (0.0, 0.1, 0.2)]
    agreed, _ = combined([0.1, 0.1, 0.1], [np.full(50, 0.1) + 1e-6 * np.arange(50)] * 3)
    wide, p_value = combined([0.0, 0.1, 0.2], exact)
    assert wide.estimate == pytest.approx(0.1)
    assert wide.high - wide.low > 0.15
    assert agreed.high - agreed.low < 0.001
    assert 0.03 < p_value < 0.3  # all three draws are the world of no difference in 1 of 27


def test_the_interval_and_the_p_value_say_the_same() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.01, 0.02, 0.03, 0.05):
        draws = [shift + 0.02 * rng.standard_normal(200) for _ in range(4)]
        interval, p_value = combined([shift] * 4, draws)
        assert (p_value < 0.05) == (interval.low > 0 or interval.high < 0)


def test_worlds_that_differ_by_chance_alone_are_seldom_found_to_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "RESAMPLES", 2000)
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(300):
        true = 0.04 * rng.standard_normal(10)  # of ten worlds whose mean is zero
        found = true + 0.02 * rng.standard_normal(10)
        p_values.append(combined(list(found), [value + 0.02 * rng.standard_normal(100) for value in found])[1])
    assert np.mean(np.array(p_values) < 0.05) < 0.09
    assert np.mean(np.array(p_values) < 0.5) > 0.4


def test_no_difference_at_all_is_never_significant() -> None:
    same = [activities(seed=3, skill=1.0)]
    world = WorldScores({"a": same, "b": same}, seed=0)
    interval, p_value, per_world = difference([world, world], "a", "b", "acc1")
    assert (interval.estimate, p_value, per_world) == (0.0, 1.0, (0.0, 0.0))


def test_half_of_another_rows_gain_is_subtracted_where_it_is_asked_for() -> None:
    rows = {name: [activities(seed=4, skill=skill)] for name, skill in (("low", 0.3), ("mid", 1.5), ("high", 3.0))}
    world = WorldScores(rows, seed=0)
    low, mid, high = (world.points[name]["acc1"] for name in rows)
    _, _, (found,) = difference([world], "mid", "low", "acc1", share=0.5, of="high")
    assert found == pytest.approx(mid - (low + 0.5 * (high - low)))


def test_worlds_of_other_videos_are_refused() -> None:
    short = activities(seed=0, skill=1.0)
    with pytest.raises(ValueError, match="must be the same"):
        WorldScores({"a": [short], "b": [first(short, 8)]}, seed=0)


def test_holm_is_over_all_the_differences_given() -> None:
    def one(p_value: float, num_worlds: int = 5) -> Difference:
        interval = Interval(estimate=0.1, low=0.05, high=0.15, level=0.95, method="")
        return Difference(
            strength=0.7,
            variant="a",
            reference="b",
            task="activity",
            split="test_iid",
            metric="acc1",
            interval=interval,
            per_world=(0.1,) * num_worlds,
            p_value=p_value,
        )

    found = corrected([one(0.01), one(0.04), one(0.02)])
    assert [item.p_holm for item in found] == pytest.approx([0.03, 0.04, 0.04])
    assert {item.verdict for item in found} == {"more"}
    assert corrected([one(0.03), one(0.04)])[0].verdict == "open"
    assert one(1e-4).verdict == "open"  # not yet corrected
    assert corrected([one(1e-4, num_worlds=4)])[0].verdict == "open"


def test_success_takes_both_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "RESAMPLES", 4000)
    skills = dict.fromkeys(OURS, 0.7) | {"baseline": 0.3, "control": 0.8, "TCI": 1.5, "SEE": 2.5}
    worlds = [finished(seed, skills) for seed in range(10, 16)]
    found = {one.row: one for one in successes(0.7, worlds)}
    assert found["SEE"].is_reached
    assert not found["TCI, bank of biases"].is_reached
    half = np.mean([_half(world.scores[LABELS].points) for world in worlds])
    assert found["SEE"].labels.interval.estimate == pytest.approx(half)
    assert successes(0.7, [finished(10, {"baseline": 1.0, "control": 1.0, "SEE": 1.0})]) == []
    some = [finished(10, {name: skills[name] for name in ("baseline", "control", "TCI", "SEE")})]
    assert [one.row for one in successes(0.7, some)] == ["SEE"]


def _half(points) -> float:  # type: ignore[no-untyped-def]  # noqa: ANN001
    values = {row: metrics["map_macro"] for row, metrics in points.items()}
    return float(values["SEE"] - 0.5 * (values["baseline"] + values["TCI"]))


def test_rows_are_subtracted_from_their_references_where_something_is_broken() -> None:
    found = differences(0.7, [finished(10, {"baseline": 0.5, "control": 0.5, "PeVL": 0.5})])
    more = differences(
        0.7,
        [finished(10, {"baseline": 0.5, "control": 0.5, "PeVL": 0.5}), finished(11, {"baseline": 0.5, "control": 1})],
    )
    counts = {(one.variant, one.reference): len(one.per_world) for one in more}
    assert (counts["PeVL", "baseline"], counts["control", "baseline"]) == (1, 2)
    pairs = {(one.variant, one.reference, one.task, one.split) for one in found}
    assert ("PeVL", "baseline", *SCENES) in pairs
    assert ("control", "baseline", *LABELS) in pairs
    assert not any(one.variant == "PeVL" and one.task == "atomic" for one in found)
    assert not any(one.split == "test_iid" for one in found)
