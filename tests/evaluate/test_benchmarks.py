"""The benchmarks' rules: found by name, and followed by every number that stands first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import atomic
from cache.manifest import TaskKind
from evaluate import analysis, metrics
from evaluate.benchmarks import DEFAULTS, benchmark_names, rule_of
from evaluate.coverage import coverage
from evaluate.report import write_report
from evaluate.summary import summarise
from evaluate.tables import METRIC_NAMES
from pipeline.datasets.benchmarks import BENCHMARKS
from tests.evaluate import toy_runs

RULES: dict[tuple[str, str, str, TaskKind], tuple[str, ...]] = {
    ("breakfast", "default", "activity", "single"): ("acc1",),
    ("breakfast", "split2", "atomic", "multi"): ("map_macro", "map_macro_without_sil"),
    ("coin", "default", "task", "single"): ("acc1", "acc5"),
    ("coin", "default", "step", "multi"): ("map_macro", "map_macro_all_zero"),
    ("charades", "default", "atomic", "multi"): ("map_charades", "map_macro"),
    ("diving48", "default", "action", "single"): ("acc1", "mean_class_accuracy"),
    ("haa500", "default", "action", "single"): ("acc1",),
    ("finegym", "gym99-v1.0", "gym99", "single"): ("acc1", "mean_class_accuracy"),
    ("finegym", "gym288-v1.1", "gym288", "single"): ("acc1", "mean_class_accuracy"),
    ("toyota_smarthome", "CS", "action", "single"): ("mean_class_accuracy", "acc1"),
}
PLACES = [pytest.param(*place, found, id=f"{place[0]}-{place[2]}") for place, found in RULES.items()]


@pytest.mark.parametrize(("dataset", "protocol", "task", "kind", "expected"), PLACES)
def test_every_benchmark_has_its_rule(
    dataset: str, protocol: str, task: str, kind: TaskKind, expected: tuple[str, ...]
) -> None:
    rule = rule_of(dataset=dataset, protocol=protocol, task=task, kind=kind)
    assert rule.metrics == expected
    assert rule.headline == expected[0]
    assert rule.title.lower()[:4] == dataset[:4]
    assert rule.sentence.startswith(f"Rule of {rule.title}: ")
    assert rule.sentence.endswith(".")


def test_every_data_set_that_can_be_prepared_has_a_rule() -> None:
    assert {dataset for dataset, *_ in RULES} == {benchmark.name for benchmark in BENCHMARKS.values()}


@pytest.mark.parametrize("name", ["Toyota_Smarthome", "toyota-smarthome", "Toyota Smarthome", "smarthome", "TOYOTA"])
def test_spellings_of_one_benchmark_have_one_rule(name: str) -> None:
    assert rule_of(dataset=name, protocol="CS", task="action", kind="single").headline == "mean_class_accuracy"


def test_the_protocol_or_the_task_may_name_the_benchmark() -> None:
    assert rule_of(dataset="gymnastics", protocol="all", task="Gym99", kind="single").title == "FineGym"
    assert rule_of(dataset="videos", protocol="charades", task="t", kind="multi").title == "Charades"


@pytest.mark.parametrize(
    ("dataset", "kind"), [("kitchen", "single"), ("kitchen", "multi"), ("charades", "single"), ("?", "multi")]
)
def test_what_is_no_benchmark_has_the_default_of_its_kind(dataset: str, kind: TaskKind) -> None:
    rule = rule_of(dataset=dataset, protocol="", task="", kind=kind)
    assert rule is DEFAULTS[kind]
    assert (rule.title, rule.sentence) == ("", "")
    assert benchmark_names("?", "", "Gym 99") == ("gym99",)


def test_every_headline_has_an_interval_and_every_metric_a_name() -> None:
    for (dataset, protocol, task, kind), expected in RULES.items():
        item = toy_runs.predictions(kind=kind, class_names=(*toy_runs.CLASS_NAMES, "SIL"))
        assert expected[0] in metrics.resampled_card(item)(None), (dataset, protocol, task)
        assert {*expected} <= {*metrics.evaluate(item)} & {*METRIC_NAMES}, (dataset, protocol, task)


# What follows a rule.


def _charades(folder: Path, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    runs = [
        toy_runs.run(folder / f"run-{seed}", kind="multi", dataset="charades", splits=("iid",), seed=seed, **options)
        for seed in (0, 1)
    ]
    return write_report(runs, folder / "out", num_resamples=60)


def test_a_report_on_charades_puts_the_official_rule_first_everywhere(tmp_path: Path) -> None:
    body = _charades(tmp_path)
    assert atomic.read_json(tmp_path / "out" / "metrics.json") == body
    run, item = body["runs"][0], toy_runs.predictions(kind="multi")
    split = run["splits"]["iid"]
    assert (run["headline"], run["main_metrics"]) == ("map_charades", ["map_charades", "map_macro"])
    assert run["benchmark"]["name"] == "Charades"
    assert run["benchmark"]["metrics"] == run["main_metrics"]
    assert split["map_charades"] == metrics.map_charades(item.logits, item.targets) > split["map_macro"]
    assert split["intervals"]["map_charades"]["low"] < split["intervals"]["map_charades"]["high"]
    assert body["comparisons"][0]["differences"]["map_charades"]["method"] == "basic bootstrap"
    assert [row["metric"] for row in body["over_seeds"]] == ["map_charades"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| run | split | mAP, Charades rule | mAP, macro | clips |" in text
    assert "| run | minus | split | mAP, Charades rule | mAP, macro |" in text
    assert "the headline metric is mAP, Charades rule" in text
    assert "Rule of Charades: " in text
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.index("mAP, Charades rule, iid") < page.index("Results: atomic</h2>")  # the tiles
    assert page.count("Rule of Charades: ") == 1
    assert "mAP, Charades rule, %" in page[page.index("By subject") :]
    assert "mAP, Charades rule by test split" in page


def test_a_group_is_judged_by_the_same_rule_as_the_whole() -> None:
    item = toy_runs.predictions(kind="multi", dataset="charades")
    item.targets[::3] = 0
    inside = np.array(item.groups["subject"]) == "P03"
    _, value = analysis.per_group(item, "subject")["P03"]
    assert value == pytest.approx(metrics.map_charades(item.logits[inside], item.targets[inside]), abs=1e-12)
    assert value != pytest.approx(metrics.map_macro(item.logits[inside], item.targets[inside]))
    toyota = toy_runs.predictions(dataset="smarthome")
    _, value = analysis.per_group(toyota, "subject")["P03"]
    inside = np.array(toyota.groups["subject"]) == "P03"
    assert value == pytest.approx(metrics.mean_class_accuracy(toyota.logits[inside], toyota.targets[inside]))


def test_where_clips_are_counted_and_classes_judge_the_test_says_what_it_is_of(tmp_path: Path) -> None:
    for dataset, said in (("toyota_smarthome", True), ("kitchen", False)):
        runs = [
            toy_runs.run(tmp_path / dataset / str(seed), splits=("iid",), seed=seed, dataset=dataset) for seed in (0, 1)
        ]
        write_report(runs, tmp_path / dataset, num_resamples=20)
        text = (tmp_path / dataset / "report.md").read_text()
        assert ("it is one of Acc@1, not of mean class accuracy" in text) is said


def test_what_is_no_benchmark_is_reported_as_before(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / kind, kind=kind, splits=("counterfactual",)) for kind in ("single", "multi")]
    body = write_report(runs, tmp_path / "out", num_resamples=20)
    assert [(run["headline"], run["benchmark"]) for run in body["runs"]] == [("acc1", None), ("map_macro", None)]
    assert body["headline"] == {"single": "acc1", "multi": "map_macro"}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| run | split | Acc@1 | Acc@5 | mean class accuracy | clips |" in text
    assert "| run | split | mAP, macro | mAP, micro | mAP, Charades rule | clips |" in text
    assert "Rule of" not in text


def test_a_run_without_predictions_is_judged_by_nothing(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / name, splits=("iid",), dataset="charades") for name in ("bare", "other")]
    runs[0].predictions_path("iid").unlink()
    bare = summarise(runs, num_resamples=10)["runs"][0]
    assert (bare["headline"], bare["main_metrics"], bare["benchmark"]) == (None, [], None)


# On how many of the official clips.


@pytest.mark.parametrize(
    ("skipped", "official", "expected"),
    [
        ({}, None, ""),
        ({}, 60, ""),
        ({}, 65, "60 clips; the benchmark has 65"),
        ({}, 59, "60 clips; the benchmark has 59"),
        ({"x": "no label"}, None, "60 of 61 clips (1 no label)"),
        ({"x": "no label", "y": "frames: missing", "z": "frames: missing"}, 63,
         "60 of 63 clips (2 frames: missing, 1 no label); the benchmark has 63"),
    ],
)  # fmt: skip
def test_missing_clips_are_counted_with_their_reasons(
    skipped: dict[str, str], official: int | None, expected: str
) -> None:
    item = toy_runs.predictions(num_official=official)
    object.__setattr__(item, "skipped", skipped)
    assert coverage(item) == expected


def test_the_report_says_on_how_many_clips_its_numbers_stand(tmp_path: Path) -> None:
    body = _charades(tmp_path, num_official=65)
    split = body["runs"][0]["splits"]["iid"]
    assert (split["num_clips"], split["skipped"], split["num_official"]) == (60, {"truncated": 2}, 65)
    assert split["coverage"] == "60 of 62 clips (2 truncated); the benchmark has 65"
    for name in ("index.html", "report.md"):
        assert (tmp_path / "out" / name).read_text().count(f"iid: {split['coverage']}") == 1


def test_runs_that_lack_different_clips_are_told_apart_and_whole_ones_stay_silent(tmp_path: Path) -> None:
    runs = [
        toy_runs.run(tmp_path / "whole", splits=("counterfactual",), num_official=60),
        toy_runs.run(tmp_path / "part", splits=("counterfactual",), num_official=61),
    ]
    write_report(runs, tmp_path / "out", num_resamples=20)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "counterfactual of part: 60 clips; the benchmark has 61" in text
    assert "counterfactual of whole" not in text
