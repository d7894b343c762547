from itertools import product

import pytest

from pipeline.config import load_recipe, recipe_names
from pipeline.demo.variants import METHODS, SHORT_LIST, VARIANTS
from train.config import METHODS as METHOD_KEYS
from train.config import TrainConfig, to_json


def _config(name: str, task: str) -> TrainConfig:
    variant = VARIANTS[name]
    return load_recipe(f"demo-{variant.method}-{task}", variant.overrides()).train


def test_every_method_is_shown_whole_beside_the_baseline_and_its_control() -> None:
    assert {VARIANTS[name].method for name in METHODS} == set(METHOD_KEYS)
    assert set(SHORT_LIST) == {"baseline", "control", *METHODS}
    assert set(SHORT_LIST) < set(VARIANTS)


@pytest.mark.parametrize("name", METHODS)
def test_a_full_method_is_its_recipe_unchanged(name: str) -> None:
    for task in VARIANTS[name].tasks:
        assert _config(name, task) == load_recipe(f"demo-{name.lower()}-{task}").train


def test_each_variant_learns_all_tasks_that_its_method_has_a_recipe_for() -> None:
    for variant, task in product(VARIANTS.values(), ("atomic", "activity")):
        assert (task in variant.tasks) == (f"demo-{variant.method}-{task}" in recipe_names())


def test_the_control_differs_from_the_baseline_in_the_temporal_layers_alone() -> None:
    switches = VARIANTS["baseline"].switches
    assert dict(VARIANTS["control"].switches) == {**switches, "temporal_control": True}
    assert to_json(_config("control", "activity"))["cmdcl"]["temporal_control"] is True
    assert not any(switches.values())


def test_another_backbone_is_never_compared_with_the_control_nor_without_a_caveat() -> None:
    for name, variant in VARIANTS.items():
        assert name not in variant.references
        assert set(variant.references) <= {"baseline", "control"} <= set(VARIANTS)
        if variant.method == "pevl":
            assert variant.references == ("baseline",)
            assert "no effect of an intervention" in variant.caveat
        else:
            assert not variant.caveat


def test_all_methods_see_the_same_videos_and_splits() -> None:
    keys = ("train_split", "validation_split", "predict_splits", "protocol", "num_frames")
    for task in ("atomic", "activity"):
        configs = [_config(name, task) for name, variant in VARIANTS.items() if task in variant.tasks]
        assert len({tuple(getattr(config, key) for key in keys) for config in configs}) == 1
