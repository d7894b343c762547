"""Reports of real run directories: complete, the same twice, equal to their JSON, loud about what matters."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from cache import atomic
from cache.errors import ConfigError
from cache.run import Run
from evaluate import analysis, metrics, report_text, summary
from evaluate.report import write_report
from evaluate.summary import summarise
from tests.evaluate import toy_runs

FILES = ("index.html", "metrics.json", "per_class.csv", "report.md")
ACTIVITIES = toy_runs.class_names(10)
RANDOM = 'visual_prompts: ViT-B-32 with random weights (pretrained = "none")'


def _runs(folder: Path) -> list[Run]:
    on_breakfast: dict[str, Any] = {"dataset": "breakfast", "class_names": ACTIVITIES}
    return [
        toy_runs.run(folder / "v1-0", variant="v1", skill=1.0, seed=0, notices=(RANDOM,), **on_breakfast),
        toy_runs.run(folder / "v1-1", variant="v1", skill=1.0, seed=1, **on_breakfast),
        toy_runs.run(folder / "full-0", skill=2.0, seed=0, **on_breakfast),
        toy_runs.run(folder / "atomic", kind="multi", dataset="breakfast"),
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(_runs(folder / "runs"), folder / "out", num_resamples=60)
    return folder / "out"


def test_the_json_holds_what_the_metrics_say(report: Path) -> None:
    body = atomic.read_json(report / "metrics.json")
    item = toy_runs.predictions(skill=2.0, seed=0, split="iid", dataset="breakfast", class_names=ACTIVITIES)
    found = body["runs"][2]["splits"]["iid"]
    for name, value in metrics.evaluate(item).items():
        assert found[name] == value
    assert found["confusion"] == analysis.confusion_matrix(item).tolist()
    assert found["intervals"]["acc1"]["low"] < found["acc1"] < found["intervals"]["acc1"]["high"]
    assert found["skipped"] == {"truncated": 2}


def test_equal_runs_give_equal_files(report: Path, tmp_path: Path) -> None:
    write_report(_runs(tmp_path / "runs"), tmp_path / "out", num_resamples=60)
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (report / name).read_bytes(), name


def test_notices_stand_above_the_first_number(report: Path) -> None:
    page, text = ((report / name).read_text() for name in ("index.html", "report.md"))
    assert 0 < page.index("random weights") < page.index("<table")
    assert "Warning: v1-0" in page
    assert 0 < text.index("random weights") < text.index("| run |")


def test_the_page_shows_figures_papers_pairs_seeds_and_what_was_skipped(report: Path) -> None:
    page = (report / "index.html").read_text()
    # two tasks compared, three curves of each, bars of 8 run-splits, confusions or co-classification of each
    assert page.count("<svg") == 2 + 2 * 3 + 8 + 8
    for words in ("96.62", "CMDCL, table 1", "sign-flip p", "Over seeds", "truncated", "By subject", "learning_rate"):
        assert words in page, words


def test_pairs_have_the_first_run_of_the_task_as_reference(report: Path) -> None:
    body = atomic.read_json(report / "metrics.json")
    pairs = {(row["first"], row["second"]) for row in body["comparisons"]}
    assert pairs == {("v1-0", "v1-1"), ("v1-0", "full-0")}
    gain = next(row for row in body["comparisons"] if row["second"] == "full-0" and row["split"] == "iid")
    values = [run["splits"]["iid"]["acc1"] for run in (body["runs"][0], body["runs"][2])]
    assert gain["differences"]["acc1"]["estimate"] == pytest.approx(values[1] - values[0])
    assert gain["p_value_holm"] >= gain["p_value"]
    assert [row["num_seeds"] for row in body["over_seeds"]] == [2, 2]


def test_over_seeds_counts_one_run_per_seed_of_one_configuration(tmp_path: Path) -> None:
    def spread(*runs: Run) -> list[tuple[list[str], int]]:
        return [(row["runs"], row["num_seeds"]) for row in summarise(runs, num_resamples=10)["over_seeds"]]

    def run(name: str, **options: Any) -> Run:  # noqa: ANN401
        return toy_runs.run(tmp_path / name, splits=("iid",), **options)

    runs = [run("a", seed=0), run("again", seed=0), run("b", seed=1)]
    assert spread(*runs[:2]) == []
    assert spread(*runs) == [(["a", "b"], 2)]
    notices = [item["notices"] for item in summarise(runs, num_resamples=10)["runs"]]
    assert notices == [[], ["the same configuration and seed as a: over seeds that run alone counts"], []]
    # No label says that this one is an ablation; its configuration does.
    assert spread(runs[0], run("c", seed=1, switches={"vci": False})) == []


def test_where_every_resample_agrees_no_interval_is_printed_and_the_page_says_so(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "run", kind="multi", splits=("iid",), skill=1000.0)
    body = write_report([run], tmp_path / "out", num_resamples=20)
    assert body["runs"][0]["splits"]["iid"]["intervals"].keys() == set()
    page = (tmp_path / "out" / "index.html").read_text()
    assert "100.0 (" not in page
    assert "no interval is printed" in page


def test_perfect_accuracies_keep_wilsons_interval(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "run", splits=("iid",), skill=1000.0)
    intervals = summarise([run], num_resamples=20, cluster=None)["runs"][0]["splits"]["iid"]["intervals"]
    assert intervals.keys() == {"acc1", "acc5"}
    assert intervals["acc1"]["method"] == "Wilson"
    assert intervals["acc1"]["low"] < intervals["acc1"]["high"] == 1.0


def test_with_a_cluster_no_mcnemar_is_printed_and_the_caption_says_why(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / str(seed), splits=("iid",), seed=seed) for seed in (0, 1)]
    write_report(runs, tmp_path / "out", cluster="subject", num_resamples=20)
    for name in ("index.html", "report.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "McNemar p" not in text
        assert "sign-flip p" in text
        assert "over subject groups: McNemar" in text


def test_subjects_are_drawn_whole_by_default_and_the_report_says_of_which_splits(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "a")
    item = run.predictions("counterfactual")
    object.__setattr__(item, "groups", {"subject": ("P1", "P2") * 30})
    item.write(run.predictions_path("counterfactual"))
    by_default, by_clip = (summarise([run], num_resamples=20, **options) for options in ({}, {"cluster": None}))  # type: ignore[arg-type]
    splits = by_default["runs"][0]["splits"]
    assert (splits["iid"]["cluster"], splits["iid"]["num_clusters"]) == ("subject", 8)
    assert (splits["counterfactual"]["cluster"], splits["counterfactual"]["num_clusters"]) == (None, 60)
    assert splits["iid"]["intervals"]["acc1"]["method"] == "bootstrap, Student's t"
    said = report_text.drawn_sentence(by_default)
    assert "all clips of one subject together (of 8) on iid" in said
    assert "each clip alone on counterfactual" in said
    assert report_text.drawn_sentence(by_clip) == "Resamples draw each clip alone."


def test_the_csv_has_one_row_per_run_split_and_class(report: Path) -> None:
    with (report / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (3 * 10 + 8)
    assert rows[0].keys() == {
        "run", "split", "class", "num_positives", "average_precision", "recall", "num_predicted",
    }  # fmt: skip


def test_hostile_class_names_become_text_in_every_file(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "a|b", "`c`", '"quoted", comma', "$x$")
    run = toy_runs.run(tmp_path / "<b>bold", class_names=names)
    write_report([run], tmp_path / "out", num_resamples=20)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in (tmp_path / "out" / "report.md").read_text()
    with (tmp_path / "out" / "per_class.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)][:5] == list(names)


def test_runs_on_other_clips_are_listed_as_not_compared(tmp_path: Path) -> None:
    first = toy_runs.run(tmp_path / "a", splits=("iid",))
    second = toy_runs.run(tmp_path / "b", splits=("iid",))
    toy_runs.predictions(n=50, name="b").write(second.predictions_path("iid"))
    body = write_report([first, second], tmp_path / "out", num_resamples=20)
    assert body["comparisons"] == []
    assert body["not_compared"][0]["reason"] == "different clips: 10 are in one alone"
    assert "different clips" in (tmp_path / "out" / "index.html").read_text()


def test_unfinished_unpredicted_and_empty_runs_say_so(tmp_path: Path) -> None:
    running = toy_runs.run(tmp_path / "running", splits=("iid",))
    running.update(status="running")
    bare = toy_runs.run(tmp_path / "bare", splits=("iid",))
    bare.predictions_path("iid").unlink()
    empty = toy_runs.run(tmp_path / "empty", splits=("iid",))
    toy_runs.predictions(n=0, name="empty").write(empty.predictions_path("iid"))
    body = write_report([running, bare, empty], tmp_path / "out", num_resamples=20)
    notices = [" ".join(run["notices"]) for run in body["runs"]]
    for words, notice in zip(("not finished", "no predictions yet", "nothing to evaluate"), notices, strict=True):
        assert words in notice


def test_one_subject_gives_no_interval_rather_than_a_narrow_one(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "a", splits=("iid",))
    item = toy_runs.predictions()
    object.__setattr__(item, "groups", {"subject": ("P1",) * 60})
    item.write(run.predictions_path("iid"))
    assert summarise([run], cluster="subject", num_resamples=20)["runs"][0]["splits"]["iid"]["intervals"] == {}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / where / "same", splits=("iid",)) for where in "ab"]
    runs += [toy_runs.run(tmp_path / name, splits=("iid",)) for name in ("b/other", "c/alone")]
    runs.append(Run.open(tmp_path / "b" / "same"))
    labels = [run["label"] for run in summarise(runs, num_resamples=10)["runs"]]
    assert labels == ["a/same", "b/same (1)", "b/other", "alone", "b/same (2)"]


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one run"):
        write_report([], tmp_path)
    run = toy_runs.run(tmp_path / "bare", splits=("iid",))
    with pytest.raises(ConfigError, match="knows the groups"):
        write_report([run], tmp_path, cluster="camera")
    run.predictions_path("iid").unlink()
    with pytest.raises(ConfigError, match="deconfound predict"):
        write_report([run], tmp_path)


@pytest.mark.parametrize(
    "ablation", [{"variant": "no TCI"}, {"switches": {"tci": False}}, {"switches": {"temporal_control": True}}]
)
def test_an_ablation_does_not_get_the_full_models_figures_beside_it(tmp_path: Path, ablation: Any) -> None:  # noqa: ANN401
    for name, options, quoted in (("whole", {}, True), ("ablated", ablation, False)):
        run = toy_runs.run(tmp_path / name, dataset="breakfast", class_names=ACTIVITIES, **options)
        write_report([run], tmp_path / "out", num_resamples=20)
        assert ("96.62" in (tmp_path / "out" / "index.html").read_text()) is quoted


def test_metrics_json_has_the_documented_keys_and_no_others(report: Path) -> None:
    body = atomic.read_json(report / "metrics.json")
    documented = set(re.findall(r'"(\w+)"', (summary.__doc__ or "").split('A run\'s "dataset"')[0]))
    seeds = {"num_resamples", "seed", "cluster", "level"}
    assert body.keys() == seeds | {"runs", "comparisons", "not_compared", "over_seeds", "over_folds", "sweeps"}
    run = body["runs"][0]
    split = run["splits"]["iid"]
    rows = (
        body, run, run["benchmark"], split, split["intervals"]["acc1"], split["groups"]["subject"]["P01"],
        split["worst_clips"][0], body["comparisons"][0], body["over_seeds"][0],
        body["comparisons"][0]["differences"]["acc1"],
    )  # fmt: skip
    assert set().union(*rows) - {*metrics.evaluate(toy_runs.predictions())} <= documented
