"""Every number of a page is the one of metrics.json, rounded as the page rounds: cell by cell, not somewhere."""

import re
from pathlib import Path
from typing import Any

import pytest

from cache import atomic
from evaluate.comparison_report import write_comparison
from evaluate.report import write_report
from evaluate.tables import METRIC_NAMES
from tests.evaluate import toy_runs
from tests.evaluate.page_reader import ReadPage, leaves, printed_forms
from tests.evaluate.toy_frames import frames_cache

NUM_CLIPS = 110
ACTIVITIES = toy_runs.class_names(10)
NAMES = {title: metric for metric, title in METRIC_NAMES.items()}


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def small(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


class Report:
    """A page and the JSON beside it."""

    def __init__(self, folder: Path) -> None:
        self.page = ReadPage((folder / "index.html").read_text())
        self.body: dict[str, Any] = atomic.read_json(folder / "metrics.json")
        self.runs = {run["label"]: run for run in self.body["runs"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    on_breakfast: dict[str, Any] = {"dataset": "breakfast", "class_names": ACTIVITIES, "num_clips": NUM_CLIPS}
    runs = [
        toy_runs.run(folder / "v1-0", variant="v1", skill=1.0, seed=0, **on_breakfast),
        toy_runs.run(folder / "v1-1", variant="v1", skill=1.0, seed=1, **on_breakfast),
        toy_runs.run(folder / "full-0", skill=2.0, seed=0, **on_breakfast),
    ]
    atomic_runs = [
        toy_runs.run(folder / f"atomic-{seed}", kind="multi", seed=seed, num_clips=NUM_CLIPS) for seed in range(2)
    ]
    cache = frames_cache(
        folder / "cache", [f"{split}-{n:03d}" for split in ("iid", "counterfactual") for n in range(NUM_CLIPS)]
    )
    write_report([*runs, atomic_runs[0]], folder / "report", num_resamples=40, cache=cache)
    write_comparison(runs, folder / "comparison", num_resamples=40, cache=cache)
    write_comparison(atomic_runs, folder / "atomic", num_resamples=40, cache=folder)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return Report(folder / "report")


def _interval(split: dict[str, Any], metric: str) -> str:
    edges = split["intervals"].get(metric)
    return percent(split[metric]) + (f" ({percent(edges['low'])} to {percent(edges['high'])})" if edges else "")


def test_tables_of_results_hold_the_metrics_and_intervals_of_their_run_and_split(report: Report) -> None:
    seen = 0
    for table in report.page.tables:
        metrics = [title for title in table.columns if title in NAMES]
        if metrics and "split" in table.columns and "minus" not in table.columns:
            for row in table.records():
                label = row.get("run", "atomic-0")  # left out where a table is about one run
                split = report.runs[label]["splits"][row["split"]]
                assert row["clips"] == f"{split['num_clips']:.0f}"
                for title in metrics:
                    expected = _interval(split, NAMES[title]) if NAMES[title] in split else "–"
                    assert row[title] == expected
                    seen += 1
    assert seen == 6 * (1 + 5) + 2 * (3 + 5)


def test_tiles_hold_the_headline_of_a_single_task(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    write_report(runs, tmp_path / "out", num_resamples=40)
    found = Report(tmp_path / "out")
    assert len(found.page.tiles) == 4
    for label, value, remark in found.page.tiles:
        _, name, run = label.split(", ")
        split = found.runs[run]["splits"][name]
        assert value == f"{percent(split['acc1'])} %"
        low, high = (percent(split["intervals"]["acc1"][key]) for key in ("low", "high"))
        assert remark == f"95 % interval {low} to {high}"


def _differences(found: Report) -> int:
    seen = 0
    rows = {(row["second"], row["first"], row["split"]): row for row in found.body["comparisons"]}
    for table in found.page.with_columns("minus"):
        for cells in table.records():
            row = rows[cells["run"], cells["minus"], cells["split"]]
            for title in (title for title in table.columns if title in NAMES):
                gain = row["differences"][NAMES[title]]
                edges = f" ({points(gain['low'])} to {points(gain['high'])})" if gain["low"] < gain["high"] else ""
                assert cells[title] == points(gain["estimate"]) + edges
                seen += 1
            if "sign-flip p" in cells:
                counts = (row["only_second_right"], row["only_first_right"])
                assert (cells["only this right"], cells["only that right"]) == tuple(map(str, counts))
                assert (cells["sign-flip p"], cells["p, Holm"]) == (small(row["p_value"]), small(row["p_value_holm"]))
            else:
                gain = row["differences"]["map_macro"]
                expected = (small(gain["p_value"]), small(gain["p_value_holm"]))
                assert (cells["p of mAP, macro"], cells["p, Holm"]) == expected
    return seen


def test_tables_of_differences_hold_those_of_their_pair(folder: Path) -> None:
    assert _differences(Report(folder / "report")) == 4
    assert _differences(Report(folder / "comparison")) == 4
    assert _differences(Report(folder / "atomic")) == 2 * 3


def test_tables_of_groups_hold_the_headline_of_every_value(report: Report) -> None:
    (worst,) = report.page.with_columns("worst", "run")
    assert len(worst.rows) == 3 * 2
    for row in worst.records():
        run = report.runs[row["run"]]
        split = run["splits"][row["split"]]
        value = split["worst_groups"][row["group"]]
        found = split["groups"][row["group"]][value]
        assert (row["worst"], row["clips"]) == (value, str(found["num_clips"]))
        assert (row["Acc@1, %"], row["all clips, %"]) == (percent(found["value"]), percent(split["acc1"]))
        large = {name: item["value"] for name, item in split["groups"][row["group"]].items() if item["num_clips"] >= 10}
        assert found["value"] == min(large.values())
    tables = [table for table in report.page.tables if table.columns[0] == "subject"]
    assert len(tables) == 2 + 1  # a table per split of three runs, one for the run alone
    for table in tables:
        for row in table.records():
            for column, cell in list(row.items())[1:]:
                name, _, what = column.rpartition(": ")
                label = what if what in report.runs else ("v1-0" if not name else "atomic-0")
                name = name or table.caption.split()[-1].rstrip(".")
                item = report.runs[label]["splits"][name]["groups"]["subject"][row["subject"]]
                assert cell == (str(item["num_clips"]) if what == "clips" else percent(item["value"]))


def test_tables_of_classes_hold_precision_and_recall_of_every_split(report: Report) -> None:
    tables = report.page.with_columns("class")
    assert len(tables) == 4
    for table, run in zip(tables, report.body["runs"], strict=True):
        for number, row in enumerate(table.records()):
            for name, split in run["splits"].items():
                item = split["per_class"][number]
                assert row["class"] == item["name"]
                assert row[f"{name}: AP, %"] == percent(item["average_precision"])
                assert row[f"{name}: clips"] == str(item["num_positives"])
                if run["kind"] == "single":
                    assert row[f"{name}: recall, %"] == percent(item["recall"])


def test_captions_of_wrong_clips_hold_their_error_and_probabilities(report: Report) -> None:
    captions = [text for text in report.page.captions if "taken for" in text]
    clips = [clip for run in report.body["runs"] for split in run["splits"].values() for clip in split["worst_clips"]]
    assert len(captions) == len(clips) == 4 * 2 * 8
    for text, clip in zip(captions, clips, strict=True):
        name, shows, taken, rest = text.split("\n")
        assert name == clip["clip_id"]
        for line, key in ((shows, "labels"), (taken, "mistaken")):
            for belief in clip[key]:
                assert f"{belief['name']} {percent(belief['probability'])} %" in line
        assert rest == f"error {clip['error']:.2f}; subject {clip['groups']['subject']}"
    counts = [
        f"{split['num_wrong']} of {NUM_CLIPS} clips are wrong."
        for run in report.body["runs"][:3]
        for split in run["splits"].values()
    ]
    assert [text for text in report.page.paragraphs if text.endswith("clips are wrong.")] == counts


def test_costs_seeds_papers_and_skipped_clips_are_those_of_the_json(report: Report) -> None:
    (costs,) = report.page.with_columns("epochs")
    assert [row["epochs"] for row in costs.records()] == ["10"] * 4
    (seeds,) = report.page.with_columns("seeds")
    expected = [(percent(row["mean"]), percent(row["sd"])) for row in report.body["over_seeds"]]
    assert [(row["mean, %"], row["sd, points"]) for row in seeds.records()] == expected
    (papers,) = report.page.with_columns("printed, %")
    printed = {f"{item['percent']:g}" for item in report.runs["full-0"]["published"]}
    assert {row["printed, %"] for row in papers.records()} == printed
    for row in papers.records():
        assert row["this run, %"] == f"Acc@1 {percent(report.runs['full-0']['splits'][row['split']]['acc1'])}"
    (skipped,) = report.page.with_columns("reason")
    assert [row["clips"] for row in skipped.records()] == ["2"] * 4


@pytest.mark.parametrize("name", ["comparison", "atomic"])
def test_tables_of_a_comparison_hold_its_classes_and_groups(folder: Path, name: str) -> None:
    found = Report(folder / name)
    comparisons = found.body["comparisons"]
    for first_column, key in (("class", "name"), ("subject", "value")):
        tables = [table for table in found.page.with_columns("before", "after") if table.columns[0] == first_column]
        assert len(tables) == len(comparisons)
        for table, pair in zip(tables, comparisons, strict=True):
            rows = pair["per_class"] if key == "name" else pair["groups"]["subject"]
            for cells, row in zip(table.records(), rows, strict=True):
                assert cells[first_column] == row[key]
                assert cells["clips"] == str(row["num_clips"])
                assert (cells["before"], cells["after"]) == (percent(row["first"]), percent(row["second"]))
                shows_edges = row["low"] is not None and (key == "value" or name == "atomic")
                edges = f" ({points(row['low'])} to {points(row['high'])})" if shows_edges else ""
                assert cells["points"] == points(row["difference"]) + edges
                assert (cells["p"], cells["p, Holm"]) == (small(row["p_value"]), small(row["p_value_holm"]))
            differences = [row["difference"] for row in rows]
            assert differences == sorted(differences, reverse=True)


def test_changed_clips_of_a_comparison_are_told_with_their_numbers(folder: Path) -> None:
    found = Report(folder / "comparison")
    text = "\n".join([*found.page.captions, *found.page.paragraphs])
    for pair in found.body["comparisons"]:
        changed = pair["changed"]
        assert f"{changed['num_fixed']} clips fixed, {changed['num_broken']} broken." in text
        for what in ("fixed", "broken"):
            for clip in changed[what]:
                start = text.index(f"{what}: {clip['clip_id']}\n{pair['first']}, ")
                for key in ("first", "second"):
                    told = clip[key]
                    (label,), (other,) = told["labels"], told["mistaken"]
                    lines = (
                        f"{pair[key]}, error {told['error']:.2f}\n"
                        f"label: {label['name']} {percent(label['probability'])} %\n"
                        f"other: {other['name']} {percent(other['probability'])} %"
                    )
                    assert text.index(lines, start) > 0


@pytest.mark.parametrize("name", ["report", "comparison", "atomic"])
def test_no_table_tile_or_caption_has_a_number_that_the_json_lacks(folder: Path, name: str) -> None:
    found = Report(folder / name)
    known = set().union(*map(printed_forms, leaves(found.body)))
    known |= {"1", "5", "95", "10"}  # Acc@1, Acc@5, 95 % interval, ten clips and more
    cells = [cell for table in found.page.tables for row in table.rows for cell in row]
    texts = [*cells, *(text for tile in found.page.tiles for text in tile), *found.page.captions]
    numbers = re.findall(r"(?<![\w.-])\d+(?:\.\d+)?(?:e-\d+)?(?![\w.])", " ".join(texts))
    assert len(numbers) > 200
    assert sorted(set(numbers) - known) == []
