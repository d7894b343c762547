import pytest

from pipeline.config import load_recipe
from pipeline.demo.variants import VARIANTS
from pipeline.study.variants import CLIP_ALONE, OURS, ROWS
from pipeline.study.worlds import slug
from train.config import TrainConfig


def _configs(row: str) -> list[TrainConfig]:
    variant = ROWS[row]
    return [load_recipe(f"demo-{variant.method}-{task}", variant.overrides()).train for task in variant.tasks]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_configuration_with_references_that_exist(row: str) -> None:
    assert bool(_configs(row)) == (row != CLIP_ALONE)
    assert set(ROWS[row].references) <= set(ROWS) - {row}


def test_all_rows_of_the_demo_are_there_with_the_same_switches_and_none_twice() -> None:
    assert all(dict(ROWS[name].switches) == dict(variant.switches) for name, variant in VARIANTS.items())
    assert len({slug(row) for row in ROWS}) == len(ROWS)
    settings = [(config.method, config.cmdcl, config.pcmci) for row in ROWS for config in _configs(row)[:1]]
    assert all(settings.index(one) == number for number, one in enumerate(settings) if one[0] != "pevl")


def test_what_is_ours_says_so_and_is_subtracted_from_control_and_tci() -> None:
    for row in OURS:
        assert ROWS[row].text.startswith("ours: ")
        assert {"baseline", "control", "TCI"} <= set(ROWS[row].references)
