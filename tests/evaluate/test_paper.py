"""The papers' figures: offered to the right runs, found by their row."""

from typing import Any, get_args, get_type_hints

import pytest

from evaluate.paper import is_full_method, paper_results, printed, published
from train.config import TrainConfig, to_json


def values(dataset: str, method: str, kind: Any, protocol: str = "s1", task: str = "t") -> list[float]:  # noqa: ANN401
    rows = published(dataset=dataset, protocol=protocol, task=task, method=method, kind=kind)
    return [row.value for row in rows]


def test_papers_are_quoted_for_their_dataset_method_and_kind_of_task_alone() -> None:
    assert values("breakfast", "cmdcl", "single") == [96.62]
    assert values("breakfast", "cmdcl", "multi") == [89.1]
    assert values("coin", "cmdcl", "single") == [92.28, 99.28]
    assert values("breakfast", "pcmci", "single") == [97.46]
    assert values("coin", "pcmci", "multi") == [86.54]
    assert values("finegym", "pevl", "single", "gym99") == [96.5, 91.6, 97.0, 91.8]
    assert values("kitchen", "cmdcl", "single") == []
    assert values("breakfast", "timesformer", "single") == []
    assert len(paper_results()) == 297


def test_rows_of_an_ablation_are_not_quoted_for_the_full_method() -> None:
    assert values("Diving48", "pevl", "single") == [91.9, 92.5, 99.6]
    assert values("toyota_smarthome", "pevl", "single", "CS") == values("smarthome", "pevl", "single") == [73.3, 73.8]


def test_a_gym_run_is_on_the_benchmark_that_its_task_names() -> None:
    (figure,) = (row for row in paper_results() if row.value == 63.9 and row.dataset == "gym288")
    assert figure.is_of(dataset="finegym", protocol="gym288-v1.0", task="gym288")
    assert not figure.is_of(dataset="finegym", protocol="gym99-v1.0", task="gym99")


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
    assert not any(row.is_of(dataset="-", protocol="", task="?") for row in costs)


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
