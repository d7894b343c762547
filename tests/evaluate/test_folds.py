"""The mean over the folds of one configuration, and when there is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.run import Run
from evaluate.folds import over_folds
from evaluate.report import write_report
from evaluate.summary import summarise
from tests.evaluate import toy_runs
from tests.evaluate.page_reader import ReadPage

BREAKFAST: dict[str, Any] = {"dataset": "breakfast", "class_names": toy_runs.class_names(10), "splits": ("iid",)}


def _fold(folder: Path, number: int, *, seed: int = 0, **options: Any) -> Run:  # noqa: ANN401
    name = f"fold{number}-{seed}-{options.get('variant', '')}"
    options = BREAKFAST | {"protocol": f"split{number}"} | options
    return toy_runs.run(folder / name, seed=seed, num_clips=30 + number, **options)


def _rows(*runs: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = summarise(runs, num_resamples=5)["over_folds"]
    return found


def test_all_folds_give_their_mean_and_three_of_four_give_none(tmp_path: Path) -> None:
    runs = [_fold(tmp_path, number) for number in (2, 1, 4, 3)]
    (row,) = _rows(*runs)
    assert [fold["protocol"] for fold in row["folds"]] == ["split1", "split2", "split3", "split4"]
    values = [fold["value"] for fold in row["folds"]]
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["sd"] == pytest.approx(np.std(values, ddof=1))
    bodies = {run["label"]: run for run in summarise(runs, num_resamples=5)["runs"]}
    assert values == [bodies[fold["runs"][0]]["splits"]["iid"]["acc1"] for fold in row["folds"]]
    assert _rows(*runs[:3]) == []


def test_seeds_of_a_fold_count_as_their_mean(tmp_path: Path) -> None:
    runs = [_fold(tmp_path, number) for number in (1, 2, 3, 4)]
    again = _fold(tmp_path, 1, seed=1)
    (row,) = _rows(*runs, again)
    bodies = {run["label"]: run for run in summarise([runs[0], again], num_resamples=5)["runs"]}
    expected = np.mean([body["splits"]["iid"]["acc1"] for body in bodies.values()])
    assert row["folds"][0]["value"] == pytest.approx(expected)
    assert len(row["folds"][0]["runs"]) == 2


def test_other_configurations_are_other_rows_and_other_protocols_none(tmp_path: Path) -> None:
    plain = [_fold(tmp_path, number) for number in (1, 2, 3, 4)]
    other = [_fold(tmp_path, number, switches={"tci": False}, variant="no tci") for number in (1, 2, 3, 4)]
    assert [row["variant"] for row in _rows(*plain, *other)] == ["", "no tci"]
    assert _rows(plain[0], other[1], *plain[2:]) == []
    assert _rows(*(_fold(tmp_path / "s", number, protocol=f"s{number}") for number in (1, 2))) == []


@pytest.mark.parametrize(
    ("numbers", "is_complete"), [((1, 2), True), ((1, 2, 3), True), ((1, 3), False), ((2,), False)]
)
def test_where_no_benchmark_says_how_many_there_are_folds_count_from_one(
    tmp_path: Path, numbers: tuple[int, ...], is_complete: bool
) -> None:
    rows = _rows(*(_fold(tmp_path, number, dataset="own") for number in numbers))
    assert bool(rows) is is_complete


def test_the_page_and_the_markdown_show_every_fold_and_the_mean(tmp_path: Path) -> None:
    runs = [_fold(tmp_path, number) for number in (1, 2, 3, 4)]
    body = write_report(runs, tmp_path / "out", num_resamples=5)
    (table,) = ReadPage((tmp_path / "out" / "index.html").read_text()).with_columns("split1", "split4")
    (cells,) = table.records()
    (row,) = body["over_folds"]
    assert cells["mean, %"] == f"{100 * row['mean']:.1f}"
    assert [cells[fold["protocol"]] for fold in row["folds"]] == [f"{100 * fold['value']:.1f}" for fold in row["folds"]]
    assert "## Over folds" in (tmp_path / "out" / "report.md").read_text()
    assert over_folds([]) == []
