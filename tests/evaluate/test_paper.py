"""The papers' figures: offered to the right runs, found by their row."""

from typing import Any, get_args, get_type_hints

import pytest

from evaluate.benchmarks import DEFAULTS, RULES, rule_of
from evaluate.paper import is_full_method, paper_results, printed, published
from train.config import TrainConfig, to_json


def values(dataset: str, method: str, kind: Any, num_classes: int, task: str = "t") -> list[float]:  # noqa: ANN401
    rule = rule_of(dataset=dataset, protocol="s1", task=task, kind=kind, num_classes=num_classes)
    return [row.value for row in published(rule, method=method)]


def test_papers_are_quoted_for_their_dataset_method_and_kind_of_task_alone() -> None:
    assert values("breakfast", "cmdcl", "single", 10) == [96.62]
    assert values("breakfast", "cmdcl", "multi", 48) == [89.1]
    assert values("coin", "cmdcl", "single", 180) == [92.28, 99.28]
    assert values("breakfast", "pcmci", "single", 10) == [97.46]
    assert values("coin", "pcmci", "multi", 778) == [86.54]
    assert values("finegym", "pevl", "single", 99, "gym99") == [96.5, 91.6, 97.0, 91.8]
    assert values("kitchen", "cmdcl", "single", 10) == []
    assert values("breakfast", "timesformer", "single", 10) == []
    assert len(paper_results()) == 297


def test_papers_are_not_quoted_for_what_has_the_name_of_a_benchmark_alone() -> None:
    assert values("breakfast", "cmdcl", "single", 8) == []
    assert values("coin", "pcmci", "multi", 180) == []
    assert values("kitchen", "cmdcl", "single", 180, "coin") == []
    assert not any(row.is_of(rule) for row in paper_results() for rule in DEFAULTS.values())


def test_rows_of_an_ablation_are_not_quoted_for_the_full_method() -> None:
    assert values("Diving48", "pevl", "single", 48) == [91.9, 92.5, 99.6]
    assert values("toyota_smarthome", "pevl", "single", 31) == values("smarthome", "pevl", "single", 31) == [73.3, 73.8]


def test_a_gym_run_is_on_the_benchmark_of_its_classes() -> None:
    (figure,) = (row for row in paper_results() if row.value == 63.9 and row.dataset == "gym288")
    assert [rule.title for rule in RULES if figure.is_of(rule)] == ["FineGym, Gym288"]


def test_a_printed_map_stands_beside_the_benchmarks_own_one_first() -> None:
    found = {row.dataset: row.metrics("multi") for row in paper_results() if row.metric == "map"}
    assert found["charades"] == ("map_charades", "map_macro", "map_micro")
    assert found["breakfast"] == ("map_macro", "map_macro_without_sil", "map_micro")
    assert found["coin"] == ("map_macro", "map_macro_all_zero", "map_micro")
    single = {row.metric: row.metrics("single") for row in paper_results() if row.dataset == "toyota_smarthome"}
    assert single == {"mean_class_acc": ("mean_class_accuracy",)}
    assert not any(row.metrics("multi") for row in paper_results() if row.metric != "map")


def test_figures_of_no_dataset_are_of_no_run() -> None:
    costs = [row for row in paper_results() if row.dataset == "-"]
    assert costs
    assert not any(row.is_of(rule) for row in costs for rule in (*RULES, *DEFAULTS.values()))


def test_a_row_of_a_table_is_found_by_its_own_words() -> None:
    rows = printed(paper="CMDCL", table="3", method="Variant 3", settings="tci=false; vci=true")
    found = {(row.dataset, row.metric): row.value for row in rows}
    assert found == {
        ("breakfast", "acc1"): 93.8,
        ("breakfast", "map"): 88.31,
        ("coin", "acc1"): 90.96,
        ("coin", "map"): 82.13,
    }
    with pytest.raises(ValueError, match="Variant 9"):
        printed(paper="CMDCL", table="3", method="Variant 9")


@pytest.mark.parametrize("method", get_args(get_type_hints(TrainConfig)["method"]))
def test_the_default_configuration_of_every_method_is_its_full_one(method: Any) -> None:  # noqa: ANN401
    body = to_json(TrainConfig(method=method, task="activity"))
    assert is_full_method(method, {"train": body})
    assert not is_full_method(method, {"train": {**body, "variant": "a"}})
    assert not is_full_method(method, {"train": {key: body[key] for key in body if key != method}})


def test_a_method_of_no_paper_is_never_full() -> None:
    assert not is_full_method("timesformer", {"train": {"variant": ""}})
