"""What `evaluate` prints for people."""

from pathlib import Path

from cache.run import Run
from evaluate.comparison_report import summarise_comparison
from evaluate.summary import summarise
from pipeline.printing import comparison_to_text, metrics_to_text
from tests.evaluate import toy_runs


def printed(*runs: Run, cluster: str | None = None) -> list[str]:
    return metrics_to_text(summarise(runs, num_resamples=20, cluster=cluster)).splitlines()


def test_the_benchmarks_own_metric_stands_first_and_its_rule_below(tmp_path: Path) -> None:
    names = toy_runs.class_names(157)
    options = {"splits": ("iid",), "dataset": "charades", "num_official": 65}
    lines = printed(toy_runs.run(tmp_path / "r", kind="multi", class_names=names, **options))  # type: ignore[arg-type]
    assert "mAP, Charades rule" in lines[1]
    assert lines[-2] == 'iid: 60 of 62 clips; left out: 2 for "truncated"; the benchmark has 65'
    assert lines[-1].startswith("Rule of Charades: ")


def test_where_no_benchmark_applies_and_nothing_is_missing_there_is_the_table_alone(tmp_path: Path) -> None:
    lines = printed(toy_runs.run(tmp_path / "r", splits=("counterfactual",), num_official=60))
    titles = ["Acc@1", "Acc@5", "mean class accuracy", "mean class accuracy, mmaction2", "mAP, macro"]
    assert [title in line for title, line in zip(titles, lines[1:], strict=True)] == [True] * 5
    assert all(line.startswith(("run", "r ")) for line in lines)


def test_runs_of_several_tasks_say_whose_clips_are_missing(tmp_path: Path) -> None:
    runs = [
        toy_runs.run(tmp_path / "a", splits=("iid",), num_official=65),
        toy_runs.run(tmp_path / "b", kind="multi", splits=("iid",)),
    ]
    assert printed(*runs)[-2:] == [
        'iid of a: 60 of 62 clips; left out: 2 for "truncated"; the benchmark has 65',
        'iid of b: 60 of 62 clips; left out: 2 for "truncated"',
    ]


def test_two_runs_are_compared_metric_by_metric_with_the_test_of_each_in_its_row(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / name, splits=("iid",), seed=seed) for seed, name in enumerate("ab")]
    body = summarise(runs, num_resamples=20, cluster=None)
    lines = metrics_to_text(body).splitlines()
    assert len([line for line in lines if line.startswith("run ")]) == 2
    start = next(number for number, line in enumerate(lines) if "minus" in line)
    assert lines[start].split()[-5:] == ["interval", "test", "p", "p,", "Holm"]
    (pair,) = body["comparisons"]
    gains = pair["differences"]
    titles = ["Acc@1", "Acc@5", "mean class accuracy", "mAP, macro"]
    for title, metric, line in zip(titles, gains, lines[start + 1 : start + 5], strict=True):
        gain = gains[metric]
        ends = (f"{100 * gain[key]:+.1f}".replace("-", "−") for key in ("estimate", "low", "high"))
        estimate, low, high = ends
        test, tested = ("McNemar", pair) if metric == "acc1" else ("bootstrap", gain)
        tests = [f"{tested[key]:.2g}" for key in ("p_value", "p_value_holm")]
        assert line.split() == ["b", "a", "iid", *title.split(), estimate, low, "to", high, test, *tests]
    assert lines[start + 5] == ""
    seeds = lines[start + 6 : start + 8]
    assert seeds[0].startswith("method")
    assert seeds[1].endswith("a, b")
    assert "sign-flip" in "".join(printed(*runs, cluster="subject"))


def test_multi_label_runs_have_the_bootstraps_test_alone(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / name, kind="multi", splits=("iid",), seed=seed) for seed, name in enumerate("ab")]
    text = "\n".join(printed(*runs))
    assert "bootstrap" in text
    assert "McNemar" not in text
    assert "sign-flip" not in text


def test_a_comparison_prints_what_changed_and_the_classes_that_changed_for_sure(tmp_path: Path) -> None:
    runs = [
        toy_runs.run(tmp_path / name, splits=("iid",), skill=skill, num_clips=400)
        for name, skill in (("a", 0.5), ("b", 4.0))
    ]
    body = summarise_comparison(runs, num_resamples=20, cluster=None)
    lines = comparison_to_text(body).splitlines()
    (pair,) = body["comparisons"]
    changed = pair["changed"]
    assert f"b minus a, iid: {changed['num_fixed']} clips fixed, {changed['num_broken']} broken." in lines
    certain = [row["name"] for row in pair["per_class"] if row["p_value_holm"] < 0.05]
    assert certain
    assert [line.strip().partition(":")[0] for line in lines if line.endswith("(Holm)")] == certain[:10]


def test_runs_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / name, splits=("iid",)) for name in "ab"]
    toy_runs.predictions(n=50, name="b").write(runs[1].predictions_path("iid"))
    lines = printed(*runs)
    assert "not compared: b and a on iid: different clips: 10 are in one alone" in lines
    assert not any("minus" in line for line in lines)


def test_absent_classes_have_a_line_below_the_table(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "r", kind="multi", splits=("counterfactual",))
    item = run.predictions("counterfactual")
    item.targets[:, 2] = 0
    item.write(run.predictions_path("counterfactual"))
    expected = "counterfactual: 1 of 8 classes has no clip and is left out of means over the classes"
    assert printed(run)[-1] == expected
