"""What `evaluate` prints for people."""

from pathlib import Path

from evaluate.summary import summarise
from pipeline.printing import metrics_to_text
from tests.evaluate import toy_runs


def test_the_benchmarks_own_metric_stands_first_and_its_rule_below(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "r", kind="multi", splits=("iid",), dataset="charades", num_official=65)
    lines = metrics_to_text(summarise([run], num_resamples=10)).splitlines()
    assert "mAP, Charades rule" in lines[1]
    assert lines[-2] == "iid: 60 of 62 clips (2 truncated); the benchmark has 65"
    assert lines[-1].startswith("Rule of Charades: ")


def test_where_no_benchmark_applies_and_nothing_is_missing_there_is_the_table_alone(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "r", splits=("counterfactual",), num_official=60)
    lines = metrics_to_text(summarise([run], num_resamples=10)).splitlines()
    titles = ["Acc@1", "Acc@5", "mean class accuracy", "mean class accuracy, mmaction2", "mAP, macro"]
    assert [title in line for title, line in zip(titles, lines[1:], strict=True)] == [True] * 5
    assert all(line.startswith(("run", "r ")) for line in lines)


def test_runs_of_several_tasks_say_whose_clips_are_missing(tmp_path: Path) -> None:
    runs = [
        toy_runs.run(tmp_path / "a", splits=("iid",), num_official=65),
        toy_runs.run(tmp_path / "b", kind="multi", splits=("iid",)),
    ]
    lines = metrics_to_text(summarise(runs, num_resamples=10)).splitlines()
    assert lines[-2:] == [
        "iid of a: 60 of 62 clips (2 truncated); the benchmark has 65",
        "iid of b: 60 of 62 clips (2 truncated)",
    ]
