"""`compare`: the same numbers as a report of the same runs, details checked by hand, other data refused."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cache.errors import ConfigError
from cache.predictions import Predictions
from cache.run import Run
from evaluate import metrics
from evaluate.comparison_report import check_same_data, summarise_comparison, write_comparison
from evaluate.summary import summarise
from evaluate.uncertainty import holm
from evaluate.wrong_clips import clip_errors
from tests.evaluate import toy_runs

FILES = ("index.html", "metrics.json", "per_class.csv", "report.md")


def _pair(folder: Path, **options: Any) -> list[Run]:  # noqa: ANN401
    return [toy_runs.run(folder / name, seed=seed, splits=("iid",), **options) for seed, name in enumerate("ab")]


def _compared(runs: list[Run], **options: Any) -> dict[str, Any]:  # noqa: ANN401
    (row,) = summarise_comparison(runs, num_resamples=30, **options)["comparisons"]
    found: dict[str, Any] = row
    return found


def test_its_differences_are_those_of_a_report_on_the_same_runs(tmp_path: Path) -> None:
    runs = [*_pair(tmp_path), toy_runs.run(tmp_path / "c", seed=2, splits=("iid",))]
    detailed, plain = summarise_comparison(runs, num_resamples=30), summarise(runs, num_resamples=30)
    for row in detailed["comparisons"]:
        for key in ("per_class", "groups", "changed"):
            row.pop(key)
    assert detailed == plain


def test_recalls_of_classes_have_mcnemars_test_and_holms_correction_over_the_classes(tmp_path: Path) -> None:
    runs = _pair(tmp_path, num_clips=200)
    row = _compared(runs, cluster=None)
    first, second = (run.predictions("iid") for run in runs)
    right = [item.logits.argmax(axis=1) == item.targets for item in (first, second)]
    for item in row["per_class"]:
        inside = first.targets == first.class_names.index(item["name"])
        assert item["num_clips"] == inside.sum()
        assert item["first"] == pytest.approx(right[0][inside].mean())
        assert item["difference"] == pytest.approx(right[1][inside].mean() - right[0][inside].mean())
        gained, lost = (int((a & ~b)[inside].sum()) for a, b in (right[::-1], right))
        assert item["p_value"] == pytest.approx(stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1)
    values = [item["p_value"] for item in row["per_class"]]
    assert [item["p_value_holm"] for item in row["per_class"]] == holm(values)


def test_precisions_of_classes_have_the_paired_bootstrap_and_few_positives_wide_intervals(tmp_path: Path) -> None:
    runs = _pair(tmp_path, kind="multi")
    for run in runs:
        item = run.predictions("iid")
        item.targets[:, 0], item.targets[:2, 0] = 0, 1  # two positives
        item.targets[:, 1], item.targets[0, 1] = 0, 1  # one
        item.targets[:, 2] = 0
        item.write(run.predictions_path("iid"))
    row = _compared(runs, cluster=None)
    found = {item["name"]: item for item in row["per_class"]}
    names = toy_runs.CLASS_NAMES
    assert names[2] not in found
    assert found[names[1]]["p_value"] is None
    rare, common = found[names[0]], found[names[3]]
    assert rare["high"] - rare["low"] > 3 * (common["high"] - common["low"])
    first, second = (run.predictions("iid") for run in runs)
    before, after = (metrics.average_precision(item.logits, item.targets) for item in (first, second))
    for number, name in enumerate(names):
        if name in found:
            assert found[name]["difference"] == pytest.approx(after[number] - before[number])


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_groups_are_compared_on_their_own_clips(tmp_path: Path, kind: Any) -> None:  # noqa: ANN401
    runs = _pair(tmp_path, kind=kind, num_clips=120)
    headline = "acc1" if kind == "single" else "map_macro"
    (rows,) = _compared(runs)["groups"].values()
    items = [run.predictions("iid") for run in runs]
    for row in rows:
        inside = np.array(items[0].groups["subject"]) == row["value"]
        before, after = (getattr(metrics, headline)(item.logits[inside], item.targets[inside]) for item in items)
        assert (row["first"], row["second"]) == pytest.approx((before, after))
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["p_value_holm"] >= row["p_value"]


def test_fixed_and_broken_clips_are_those_that_one_run_alone_gets_right_and_mirror_when_runs_change_places(
    tmp_path: Path,
) -> None:
    runs = _pair(tmp_path)
    forth, back = _compared(runs)["changed"], _compared(runs[::-1])["changed"]
    assert [clip["clip_id"] for clip in forth["fixed"]] == [clip["clip_id"] for clip in back["broken"]]
    assert (forth["num_fixed"], forth["num_broken"]) == (back["num_broken"], back["num_fixed"])
    first, second = (run.predictions("iid") for run in runs)
    right = [item.logits.argmax(axis=1) == item.targets for item in (first, second)]
    fixed = {first.clip_ids[row] for row in np.flatnonzero(right[1] & ~right[0])}
    assert forth["num_fixed"] == len(fixed)
    assert {clip["clip_id"] for clip in forth["fixed"]} <= fixed
    gains = [clip["first"]["error"] - clip["second"]["error"] for clip in forth["fixed"]]
    assert gains == sorted(gains, reverse=True)


def test_of_many_labels_the_clips_changed_most_whose_error_did(tmp_path: Path) -> None:
    runs = _pair(tmp_path, kind="multi")
    changed = _compared(runs)["changed"]
    errors = [clip_errors(run.predictions("iid")) for run in runs]
    fell = errors[0] - errors[1]
    ids = runs[0].predictions("iid").clip_ids
    assert [clip["clip_id"] for clip in changed["fixed"]] == [ids[row] for row in np.argsort(-fell)[:8]]
    assert [clip["clip_id"] for clip in changed["broken"]] == [ids[row] for row in np.argsort(fell)[:8]]
    assert (changed["num_fixed"], changed["num_broken"]) == ((fell > 0).sum(), (fell < 0).sum())
    write_comparison(runs, tmp_path / "out", num_resamples=10)
    page = (tmp_path / "out" / "index.html").read_text()
    assert f"{(fell > 0).sum()} clips better, {(fell < 0).sum()} worse." in page
    assert "fixed" not in page


def test_the_page_says_what_differs_between_the_runs(tmp_path: Path) -> None:
    runs = [
        toy_runs.run(tmp_path / "whole", splits=("iid",)),
        toy_runs.run(tmp_path / "ablated", splits=("iid",), switches={"vci": False}, seed=1),
    ]
    write_comparison(runs, tmp_path / "out", num_resamples=10)
    page = (tmp_path / "out" / "index.html").read_text()
    start = page.index("What differs between the runs</h2>")
    table = page[start : page.index("</table>", start)]
    assert "config.train.cmdcl.vci" in table
    assert "config.train.seed" in table
    assert "config.train.cmdcl.tci" not in table


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_equal_runs_give_equal_files(tmp_path: Path, kind: Any) -> None:  # noqa: ANN401
    for where in "xy":
        write_comparison(_pair(tmp_path / where, kind=kind), tmp_path / where / "out", num_resamples=10)
    for name in FILES:
        assert (tmp_path / "x" / "out" / name).read_bytes() == (tmp_path / "y" / "out" / name).read_bytes(), name


def test_the_csv_has_a_row_per_comparison_and_class(tmp_path: Path) -> None:
    body = write_comparison(_pair(tmp_path), tmp_path / "out", num_resamples=10)
    with (tmp_path / "out" / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = body["comparisons"][0]["per_class"]
    assert [row["class"] for row in rows] == [row["name"] for row in expected]
    assert [float(row["difference"]) for row in rows] == [row["difference"] for row in expected]


def _other_clips(item: Predictions) -> Predictions:
    return replace(item, clip_ids=("new", *item.clip_ids[1:]))


def _other_order(item: Predictions) -> Predictions:
    return replace(item, clip_ids=item.clip_ids[::-1])


def _other_labels(item: Predictions) -> Predictions:
    return replace(item, targets=(item.targets + 1) % 8)


def _other_classes(item: Predictions) -> Predictions:
    return replace(item, class_names=("x", *item.class_names[1:]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other_clips, "2 are in one alone"),
        (_other_order, "the same clips in another order"),
        (_other_labels, "different targets"),
        (_other_classes, "different classes"),
    ],
)
def test_runs_on_other_clips_or_labels_are_refused(
    tmp_path: Path, change: Callable[[Predictions], Predictions], words: str
) -> None:
    runs = _pair(tmp_path)
    change(runs[1].predictions("iid")).write(runs[1].predictions_path("iid"))
    with pytest.raises(ConfigError, match=f"b and a on iid: .*{words}"):
        check_same_data(runs)


def test_runs_on_other_splits_are_refused_and_may_be_compared_on_those_that_both_have(tmp_path: Path) -> None:
    runs = [toy_runs.run(tmp_path / "a"), toy_runs.run(tmp_path / "b", splits=("iid",), seed=1)]
    with pytest.raises(ConfigError, match=r"predicted splits \['iid'\] and \['counterfactual', 'iid'\].*--split"):
        check_same_data(runs)
    body = summarise_comparison(runs, splits=["iid"], num_resamples=10)
    assert [row["split"] for row in body["comparisons"]] == ["iid"]
    assert [list(run["splits"]) for run in body["runs"]] == [["iid"], ["iid"]]
    with pytest.raises(ConfigError, match="predicted splits"):
        check_same_data(runs, ["counterfactual"])
    with pytest.raises(ConfigError, match="predicted splits"):
        check_same_data([runs[1], runs[1]], ["iid", "no such split"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "other"}, "dataset 'other' and 'kitchen'"),
        ({"protocol": "s2"}, "protocol 's2' and 's1'"),
        ({"kind": "multi"}, "task 'atomic' and 'activity'"),
    ],
)
def test_runs_on_another_dataset_task_or_protocol_are_refused(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    runs = [toy_runs.run(tmp_path / "a"), toy_runs.run(tmp_path / "b", **options)]
    with pytest.raises(ConfigError, match=words):
        check_same_data(runs)
    with pytest.raises(ConfigError, match="two runs and more"):
        check_same_data(runs[:1])
