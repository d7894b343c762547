from dataclasses import replace

import pytest

from cache.errors import ConfigError
from pipeline.study.plan import FULL, QUICK_PLAN, StudyPlan, plan_of


def test_a_replicate_varies_world_heads_and_frozen_models_at_once() -> None:
    plan = StudyPlan(seeds=(10, 11, 12), strengths=(0.7, 0.5), heads=2, frozen_sets=2)
    found = list(plan.replicates)
    assert [(one.strength, one.seed, one.frozen_set) for one in found[:3]] == [(0.7, 10, 0), (0.7, 11, 1), (0.7, 12, 0)]
    assert [one.strength for one in found] == [0.7] * 3 + [0.5] * 3
    assert found[1].head_seeds == (1100, 1101)
    assert len({one.name for one in found}) == 6


def test_strengths_beside_the_main_one_take_the_first_worlds_alone() -> None:
    plan = StudyPlan(seeds=tuple(range(20, 28)), strengths=(0.9, 0.7))
    seeds = {rho: [one.seed for one in plan.replicates if one.strength == rho] for rho in plan.strengths}
    assert seeds == {0.9: list(range(20, 25)), 0.7: list(range(20, 28))}


def test_all_three_confounders_have_the_strength_of_the_replicate() -> None:
    plan = StudyPlan(seeds=(10,), strengths=(0.5,))
    world = plan.world(next(plan.replicates))
    assert (world.seed, world.rho_background, world.rho_distractor, world.rho_co_occurring) == (10, 0.5, 0.5, 0.5)
    assert (world.num_train, world.num_test, world.num_probes) == (FULL.num_train, FULL.num_test, FULL.num_probes)


def test_the_tuning_world_is_another_and_has_validation_videos_in_place_of_tests() -> None:
    plan = StudyPlan()
    world = plan.world(plan.tuning)
    assert world.seed not in plan.seeds
    assert (world.num_train, world.num_validation, world.num_test) == (FULL.num_train, FULL.num_test, 1)
    with pytest.raises(ConfigError, match="world 0 tunes"):
        StudyPlan(seeds=(0, 10))


def test_a_full_study_tests_on_four_hundred_videos_a_split_and_worlds_that_designed_nothing() -> None:
    assert FULL.num_test >= 400
    assert len(StudyPlan().seeds) >= 5
    assert not set(StudyPlan().seeds) & set(range(33))
    assert StudyPlan().frozen_sets > 1
    assert set(StudyPlan().strengths) == {0.5, 0.7, 0.9}


def test_options_change_the_plan_they_are_given_for() -> None:
    plan = plan_of(seeds="10-12", strengths="0.7,0.9", heads=3, rows="baseline; TCI")
    assert (plan.seeds, plan.strengths, plan.heads, plan.rows) == ((10, 11, 12), (0.7, 0.9), 3, ("baseline", "TCI"))
    assert plan_of(quick=True) == QUICK_PLAN
    assert plan_of(quick=True, seeds="20", frozen_sets=2) == replace(QUICK_PLAN, seeds=(20,), frozen_sets=2)
    assert plan_of() == StudyPlan()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": "ten"}, "--seeds"),
        ({"strengths": "strong"}, "--strengths"),
        ({"strengths": "1.7"}, "probability"),
        ({"strengths": "0.7,0.7"}, "none twice"),
        ({"rows": "TCI; nothing"}, "no row 'nothing'.*SEE"),
        ({"heads": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(**options)  # type: ignore[arg-type]
