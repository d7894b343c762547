import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from pipeline.demo.scripts import (
    ACTIONS,
    ACTIVITIES,
    BACKGROUNDS,
    BAG_OF_FRAMES_CEILING,
    CAUSAL_ACTIONS,
    CO_OCCURRING_OF,
    DISTRACTOR_OF,
    NUM_FRAMES,
    ORDER_PAIRS,
    SCRIPTS,
    Recording,
    Split,
    WorldConfig,
    draw_recording,
)


def _action_set(activity: str) -> frozenset[str]:
    return frozenset(action for level in SCRIPTS[activity] for action in level)


def _recordings(split: Split, count: int, config: WorldConfig | None = None) -> list[Recording]:
    return [draw_recording(config or WorldConfig(), split, number) for number in range(count)]


def _causal_order(recording: Recording) -> list[str]:
    return [segment.action for segment in recording.segments if segment.action in CAUSAL_ACTIONS]


def test_the_activities_with_equal_action_sets_are_exactly_the_three_pairs() -> None:
    sets = [_action_set(name) for name in ACTIVITIES]
    equal = {
        (one, other)
        for i, one in enumerate(ACTIVITIES)
        for j, other in enumerate(ACTIVITIES)
        if i < j and sets[i] == sets[j]
    }
    assert equal == set(ORDER_PAIRS)
    assert BAG_OF_FRAMES_CEILING == (6 * 0.5 + 2) / 8


def test_no_order_of_one_script_is_an_order_of_its_partner() -> None:
    orders: dict[str, set[tuple[str, ...]]] = {name: set() for name in ACTIVITIES}
    for recording in _recordings("train", 800):
        orders[str(recording.activity)].add(tuple(_causal_order(recording)))
    for one, other in ORDER_PAIRS:
        assert orders[one]
        assert not orders[one] & orders[other]


def test_every_causal_action_belongs_to_a_script_and_confounders_are_bijections_of_activities() -> None:
    assert set(CAUSAL_ACTIONS) == {action for name in ACTIVITIES for action in _action_set(name)}
    assert len(set(ACTIONS)) == 16
    assert sorted(DISTRACTOR_OF) == list(range(8))
    for one, other in ORDER_PAIRS:
        assert CO_OCCURRING_OF[ACTIVITIES.index(one)] != CO_OCCURRING_OF[ACTIVITIES.index(other)]


@pytest.mark.parametrize("split", ["train", "test_counterfactual"])
def test_levels_keep_their_order_and_are_shuffled_inside(split: Split) -> None:
    seen: dict[str, set[tuple[str, ...]]] = {name: set() for name in ACTIVITIES}
    for recording in _recordings(split, 400):
        order, name = _causal_order(recording), str(recording.activity)
        seen[name].add(tuple(order))
        start = 0
        for level in SCRIPTS[name]:
            assert set(order[start : start + len(level)]) == set(level)
            start += len(level)
    assert all(len(orders) == 2 for orders in seen.values())  # every script has one level of two


def test_segments_fill_the_video_and_each_meets_one_of_eight_instants() -> None:
    for recording in _recordings("test_recombined", 300):
        edges = [(segment.start, segment.stop) for segment in recording.segments]
        assert edges[0][0] == 0
        assert edges[-1][1] == NUM_FRAMES
        assert all(one[1] == other[0] for one, other in itertools.pairwise(edges))
        shown = {recording.action_at(frame) for frame in range(5, NUM_FRAMES, 10)}
        assert shown == set(recording.actions)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_confounders_follow_the_activity_with_probability_rho_each_by_its_own_key(rho: float) -> None:
    config = WorldConfig(rho_background=rho, rho_distractor=0.0, rho_co_occurring=1.0)
    recordings = _recordings("train", 2400, config)
    numbers = [ACTIVITIES.index(str(recording.activity)) for recording in recordings]
    own_wall = np.mean([recording.background == k for recording, k in zip(recordings, numbers, strict=True)])
    own_corner = np.mean([r.distractor == DISTRACTOR_OF[k] for r, k in zip(recordings, numbers, strict=True)])
    extras = [
        recording.co_occurring == CO_OCCURRING_OF[k]
        for recording, k in zip(recordings, numbers, strict=True)
        if recording.co_occurring is not None
    ]
    assert own_wall == pytest.approx(rho + (1 - rho) / 8, abs=0.04)  # 4 standard errors of 2400 draws
    assert own_corner == pytest.approx(1 / 8, abs=0.03)
    assert all(extras)
    assert len(extras) / len(recordings) == pytest.approx(0.8, abs=0.035)


def test_counterfactual_surroundings_are_independent_of_the_activity() -> None:
    recordings = _recordings("test_counterfactual", 3200)
    for values, num_values in (
        ([recording.background for recording in recordings], 8),
        ([recording.distractor for recording in recordings], 8),
        ([recording.shirt for recording in recordings], 8),
        ([-1 if r.co_occurring is None else r.co_occurring for r in recordings], 5),
    ):
        table = np.zeros((8, num_values))
        for recording, value in zip(recordings, values, strict=True):
            table[ACTIVITIES.index(str(recording.activity)), value] += 1
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
        freedom = 7 * (num_values - 1)
        assert ((table - expected) ** 2 / expected).sum() < freedom + 4 * (2 * freedom) ** 0.5


def test_training_surroundings_do_depend_on_the_activity() -> None:
    recordings = _recordings("train", 800)
    common = Counter((recording.activity, recording.background) for recording in recordings).most_common(8)
    assert {pair for pair, _ in common} == {(name, number) for number, name in enumerate(ACTIVITIES)}
    assert len(BACKGROUNDS) == 8


def test_recombined_videos_have_no_activity_and_four_different_causal_actions_in_equal_shares() -> None:
    recordings = _recordings("test_recombined", 1200)
    assert all(recording.activity is None for recording in recordings)
    assert all(len(set(_causal_order(recording))) == 4 for recording in recordings)
    counts = Counter(action for recording in recordings for action in _causal_order(recording))
    assert all(count / 1200 == pytest.approx(1 / 3, abs=0.06) for count in counts.values())


def test_a_video_depends_on_seed_split_and_number_alone() -> None:
    config = WorldConfig()
    assert draw_recording(config, "train", 5) == draw_recording(dataclasses.replace(config, num_train=500), "train", 5)
    assert draw_recording(config, "train", 5) != draw_recording(config, "test_iid", 5)
    assert draw_recording(config, "train", 5) != draw_recording(dataclasses.replace(config, seed=1), "train", 5)


def test_rho_changes_surroundings_and_nothing_that_people_do() -> None:
    weak, strong = (WorldConfig(rho_background=rho) for rho in (0.0, 1.0))
    for number in range(40):
        one, other = draw_recording(weak, "train", number), draw_recording(strong, "train", number)
        assert (one.segments, one.look, one.distractor) == (other.segments, other.look, other.distractor)


@pytest.mark.parametrize("change", [{"rho_background": 1.1}, {"shirt_follows": -0.1}, {"num_test": 0}])
def test_a_world_that_cannot_be_drawn_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        WorldConfig(**change)  # type: ignore[arg-type]
