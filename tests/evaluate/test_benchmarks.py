"""The benchmarks' rules: found by name, and followed by every number that stands first."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline.recipes
from cache import atomic
from cache.manifest import TaskKind
from cache.predictions import Predictions
from evaluate import metrics
from evaluate.benchmarks import DEFAULTS, RULES, judge, rule_of
from evaluate.groups import per_group
from evaluate.report import write_report
from evaluate.summary import summarise
from evaluate.tables import METRIC_NAMES
from pipeline.datasets import breakfast_names, coin, diving48, finegym, haa500, toyota_smarthome
from pipeline.datasets.benchmarks import BENCHMARKS
from tests.evaluate import toy_runs

PLACES: dict[tuple[str, str, str, TaskKind, int], tuple[str, ...]] = {
    ("breakfast", "default", "activity", "single", len(breakfast_names.ACTIVITIES)): ("acc1",),
    ("breakfast", "split2", "atomic", "multi", len(breakfast_names.ATOMIC)): ("map_macro", "map_macro_without_sil"),
    ("coin", "default", "task", "single", coin._NUM_CLASSES[0]): ("acc1", "acc5"),
    ("coin", "default", "step", "multi", coin._NUM_CLASSES[1]): ("map_macro", "map_macro_all_zero"),
    ("charades", "default", "atomic", "multi", 157): ("map_charades", "map_macro"),
    ("diving48", "default", "action", "single", diving48.NUM_CLASSES): ("acc1", "mean_class_accuracy"),
    ("haa500", "default", "action", "single", haa500._NUM_CLASSES): ("acc1",),
    ("finegym", "gym99-v1.0", "gym99", "single", finegym.NUM_CLASSES["gym99"]): ("acc1", "mean_class_accuracy"),
    ("finegym", "gym288-v1.1", "gym288", "single", finegym.NUM_CLASSES["gym288"]): ("acc1", "mean_class_accuracy"),
    ("toyota_smarthome", "CS", "action", "single", len(toyota_smarthome.CLASSES)): ("mean_class_accuracy", "acc1"),
}
"""Dataset, protocol, task, kind and number of classes as the adapters write them, with the metrics of the rule."""
CASES = [pytest.param(*place, found, id=f"{place[0]}-{place[2]}") for place, found in PLACES.items()]
CHARADES = toy_runs.class_names(157)
TOYOTA = toy_runs.class_names(31)


@pytest.mark.parametrize(("dataset", "protocol", "task", "kind", "num_classes", "expected"), CASES)
def test_every_benchmark_has_its_rule(
    dataset: str, protocol: str, task: str, kind: TaskKind, num_classes: int, expected: tuple[str, ...]
) -> None:
    rule = rule_of(dataset=dataset, protocol=protocol, task=task, kind=kind, num_classes=num_classes)
    assert rule.metrics == expected
    assert rule.headline == expected[0]
    assert rule.title.lower()[:4] == dataset[:4]
    assert rule.sentence.startswith(f"Rule of {rule.title}: ")
    assert rule.sentence.endswith(".")


def test_there_is_a_rule_for_every_prepared_task_and_none_beside() -> None:
    assert {dataset for dataset, *_ in PLACES} == {benchmark.name for benchmark in BENCHMARKS.values()}
    used = [
        rule_of(dataset=dataset, protocol=protocol, task=task, kind=kind, num_classes=number)
        for dataset, protocol, task, kind, number in PLACES
    ]
    assert [rule.title for rule in used] == [rule.title for rule in RULES]


def test_the_recipes_train_the_tasks_that_have_a_rule() -> None:
    found = set()
    for path in Path(pipeline.recipes.__file__).parent.glob("*.toml"):
        task = tomllib.loads(path.read_text())["train"].get("task")
        name = re.fullmatch(r"(?:cmdcl|pcmci|pevl)-(.+?)(?:-[bl]1[46])?", path.stem)
        if task and name:
            benchmark = name[1].removesuffix(f"-{task}")
            found.add(({"gym99": "finegym", "gym288": "finegym"}.get(benchmark, benchmark).replace("-", "_"), task))
    assert found == {(dataset, task) for dataset, _, task, *_ in PLACES}


@pytest.mark.parametrize("name", ["Toyota_Smarthome", "toyota-smarthome", "Toyota Smarthome", "smarthome", "TOYOTA"])
def test_spellings_of_one_benchmark_have_one_rule(name: str) -> None:
    rule = rule_of(dataset=name, protocol="CS", task="action", kind="single", num_classes=31)
    assert rule.headline == "mean_class_accuracy"


def test_protocol_and_task_name_a_benchmark_in_finegym_alone() -> None:
    def title(dataset: str, protocol: str, task: str, kind: TaskKind, num_classes: int) -> str:
        return rule_of(dataset=dataset, protocol=protocol, task=task, kind=kind, num_classes=num_classes).title

    assert title("gymnastics", "all", "Gym99", "single", 99) == "FineGym, Gym99"
    assert title("gymnastics", "gym288", "t", "single", 288) == "FineGym, Gym288"
    assert title("finegym", "p", "t", "single", 288) == "FineGym, Gym288"
    assert title("videos", "charades", "charades", "multi", 157) == ""
    assert title("videos", "p", "coin", "single", 180) == ""
    assert title("gymnastics", "p", "gym99", "single", 288) == ""


@pytest.mark.parametrize(("dataset", "protocol", "task", "kind", "num_classes", "expected"), CASES)
def test_another_number_of_classes_is_no_benchmark_whatever_the_name(
    dataset: str, protocol: str, task: str, kind: TaskKind, num_classes: int, expected: tuple[str, ...]
) -> None:
    for number in (num_classes - 1, num_classes + 1):
        rule = rule_of(dataset=dataset, protocol=protocol, task=task, kind=kind, num_classes=number)
        assert rule is DEFAULTS[kind]
        assert rule.metrics != expected


@pytest.mark.parametrize(
    ("dataset", "kind"), [("kitchen", "single"), ("kitchen", "multi"), ("charades", "single"), ("?", "multi")]
)
def test_what_is_no_benchmark_has_the_default_of_its_kind(dataset: str, kind: TaskKind) -> None:
    rule = rule_of(dataset=dataset, protocol="", task="", kind=kind, num_classes=157)
    assert rule is DEFAULTS[kind]
    assert (rule.title, rule.sentence) == ("", "")


def test_every_headline_has_an_interval_and_every_metric_a_name() -> None:
    for (dataset, protocol, task, kind, _), expected in PLACES.items():
        item = toy_runs.predictions(kind=kind, class_names=(*toy_runs.CLASS_NAMES, "SIL"))
        assert expected[0] in metrics.resampled_card(item)(None), (dataset, protocol, task)
        assert {*expected} <= {*metrics.evaluate(item)} & {*METRIC_NAMES}, (dataset, protocol, task)


# Of what the predictions say.


def _charades_item(**options: Any) -> Predictions:  # noqa: ANN401
    return toy_runs.predictions(kind="multi", dataset="charades", class_names=CHARADES, **options)


def test_splits_under_one_rule_are_judged_by_it_and_others_by_the_default_with_a_notice() -> None:
    one, same = _charades_item(), _charades_item(split="other")
    assert (judge({"iid": one})[0].title, judge({"iid": one, "other": same})) == ("Charades", judge({"iid": one}))
    elsewhere = toy_runs.predictions(kind="multi", class_names=CHARADES)
    rule, notice = judge({"iid": one, "other": elsewhere})
    assert rule is DEFAULTS["multi"]
    for words in ("iid: charades", "other: kitchen", "(Charades, no benchmark)", "default metrics"):
        assert words in notice
    spelt = toy_runs.predictions(kind="multi", dataset="Charades", class_names=CHARADES)
    rule, notice = judge({"iid": one, "other": spelt})
    assert rule.title == "Charades"
    assert "default" not in notice
    assert "other: Charades" in notice


def test_a_run_is_judged_by_what_it_predicted_and_not_by_what_it_was_trained_on(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "r", kind="multi", splits=("iid",), class_names=CHARADES)
    _charades_item(name="r").write(run.predictions_path("iid"))
    (body,) = summarise([run], num_resamples=10)["runs"]
    assert (body["headline"], body["dataset"]) == ("map_charades", "charades")
    assert "trained on dataset kitchen, predicted on charades" in body["notices"]


def test_splits_of_two_datasets_show_one_headline_everywhere_and_no_printed_figure(tmp_path: Path) -> None:
    splits = ("iid", "other")
    run = toy_runs.run(tmp_path / "r", kind="multi", splits=splits, dataset="charades", class_names=CHARADES)
    whole = summarise([run], num_resamples=10)["runs"][0]
    assert (whole["headline"], bool(whole["published"])) == ("map_charades", True)
    elsewhere = toy_runs.predictions(kind="multi", split="other", class_names=CHARADES)
    elsewhere.write(run.predictions_path("other"))
    (body,) = write_report([run], tmp_path / "out", num_resamples=10)["runs"]
    assert (body["headline"], body["published"], body["benchmark"]) == ("map_macro", [], None)
    assert any("not of one dataset" in notice for notice in body["notices"])
    for split in splits:
        item = run.predictions(split)
        for value, found in body["splits"][split]["groups"]["subject"].items():
            inside = np.array(item.groups["subject"]) == value
            assert found["value"] == pytest.approx(metrics.map_macro(item.logits[inside], item.targets[inside]))
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.index("not of one dataset") < page.index("<table")


def test_runs_judged_by_different_rules_have_tables_of_their_own_and_no_common_spread(tmp_path: Path) -> None:
    runs = [
        toy_runs.run(
            tmp_path / name, kind="multi", splits=("iid", "other"), dataset="charades", class_names=CHARADES, seed=seed
        )
        for seed, name in enumerate("ab")
    ]
    assert len(summarise(runs, num_resamples=2)["over_seeds"]) == 2
    toy_runs.predictions(kind="multi", split="other", class_names=CHARADES).write(runs[1].predictions_path("other"))
    body = write_report(runs, tmp_path / "out", num_resamples=10)
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count("the headline metric is mAP, Charades rule") == 1
    assert text.count("the headline metric is mAP, macro") == 1
    assert [(row["second"], row["split"]) for row in body["comparisons"]] == [("b", "iid"), ("b", "other")]
    assert body["over_seeds"] == []


# What follows a rule.


def _charades(folder: Path, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    runs = [
        toy_runs.run(
            folder / f"run-{seed}", kind="multi", dataset="charades", class_names=CHARADES, splits=("iid",), seed=seed,
            **options,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    for run in runs:
        item = run.predictions("iid")
        item.targets[:7] = 0
        item.write(run.predictions_path("iid"))
    return write_report(runs, folder / "out", num_resamples=20)


def test_a_report_on_charades_puts_the_official_rule_first_everywhere(tmp_path: Path) -> None:
    body = _charades(tmp_path)
    assert atomic.read_json(tmp_path / "out" / "metrics.json") == body
    run, item = body["runs"][0], _charades_item()
    item.targets[:7] = 0
    split = run["splits"]["iid"]
    assert (run["headline"], run["main_metrics"]) == ("map_charades", ["map_charades", "map_macro"])
    assert run["benchmark"].keys() == {"name", "rule"}
    assert run["benchmark"]["name"] == "Charades"
    assert split["map_charades"] == metrics.map_charades(item.logits, item.targets) > split["map_macro"]
    assert split["intervals"]["map_charades"]["low"] < split["intervals"]["map_charades"]["high"]
    assert body["comparisons"][0]["differences"]["map_charades"]["method"] == "bootstrap, Student's t"
    assert [row["metric"] for row in body["over_seeds"]] == ["map_charades"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| run | split | mAP, Charades rule | mAP, macro | clips |" in text
    assert "| run | minus | split | mAP, Charades rule | mAP, macro | p of mAP, Charades rule | p, Holm |" in text
    assert "the headline metric is mAP, Charades rule" in text
    assert "Rule of Charades: " in text
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.index("mAP, Charades rule, iid") < page.index("Results: atomic</h2>")  # the tiles
    assert page.count("Rule of Charades: ") == 1
    assert "mAP, Charades rule, %, on iid." in page[page.index("By subject") :]
    assert "mAP, Charades rule by test split" in page


def test_the_classes_of_charades_average_to_its_headline_and_say_so(tmp_path: Path) -> None:
    split = _charades(tmp_path)["runs"][0]["splits"]["iid"]
    values = [row["average_precision"] for row in split["per_class"]]
    assert np.mean(values) == pytest.approx(split["map_charades"], abs=1e-12)
    assert split["map_charades"] > split["map_macro"] + 1e-3
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("their mean is mAP, Charades rule.</figcaption>") == 2  # one for each run
    assert page.count("The mean of AP over the classes is mAP, Charades rule.") == 2
    assert f"mean {100 * split['map_charades']:.1f}<" in page


def test_charades_says_what_becomes_of_clips_without_logits() -> None:
    (rule,) = (rule for rule in RULES if rule.title == "Charades")
    for text in (rule.sentence, " ".join((metrics.map_charades.__doc__ or "").split())):
        assert "without logits are left out here" in text
        assert "the official script ranks them last" in text


def test_a_group_is_judged_by_the_same_rule_as_the_whole() -> None:
    item = _charades_item()
    item.targets[::3] = 0
    inside = np.array(item.groups["subject"]) == "P03"
    value = per_group(item, "subject", headline="map_charades")["P03"].value
    assert value == pytest.approx(metrics.map_charades(item.logits[inside], item.targets[inside]), abs=1e-12)
    assert value != pytest.approx(metrics.map_macro(item.logits[inside], item.targets[inside]))


def test_where_clips_are_counted_and_classes_judge_the_test_says_what_it_is_of(tmp_path: Path) -> None:
    for dataset, said in (("toyota_smarthome", True), ("kitchen", False)):
        runs = [
            toy_runs.run(
                tmp_path / dataset / str(seed), splits=("iid",), seed=seed, dataset=dataset, class_names=TOYOTA
            )
            for seed in (0, 1)
        ]
        write_report(runs, tmp_path / dataset, num_resamples=20)
        text = (tmp_path / dataset / "report.md").read_text()
        assert ("it is one of Acc@1, not of mean class accuracy" in text) is said


def test_what_is_no_benchmark_is_reported_as_before(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / kind, kind=kind, splits=("counterfactual",)) for kind in ("single", "multi")]
    body = write_report(runs, tmp_path / "out", num_resamples=20)
    assert [(run["headline"], run["benchmark"]) for run in body["runs"]] == [("acc1", None), ("map_macro", None)]
    assert "headline" not in body
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| run | split | Acc@1 | Acc@5 | mean class accuracy | clips |" in text
    assert "| run | split | mAP, macro | mAP, micro | mAP, Charades rule | clips |" in text
    assert "Rule of" not in text


def test_a_run_without_predictions_is_judged_by_nothing(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / name, splits=("iid",), dataset="charades") for name in ("bare", "other")]
    runs[0].predictions_path("iid").unlink()
    bare = summarise(runs, num_resamples=10)["runs"][0]
    assert (bare["headline"], bare["main_metrics"], bare["benchmark"]) == (None, [], None)
