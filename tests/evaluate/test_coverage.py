"""On how many of the official clips a number stands, and what else it leaves out: a line where there is any."""

import html
from pathlib import Path

import numpy as np
import pytest

from evaluate import metrics
from evaluate.coverage import coverage, remarks
from evaluate.report import write_report
from tests.evaluate import toy_runs

SKIPPED = {"x": "no label for task action", "y": "frames: missing", "z": "frames: missing"}
LEFT_OUT = '60 of 63 clips; left out: 2 for "frames: missing", 1 for "no label for task action"'


@pytest.mark.parametrize(
    ("skipped", "official", "expected"),
    [
        ({}, None, ""),
        ({}, 60, ""),
        ({}, 65, "60 clips; the benchmark has 65"),
        ({}, 59, "60 clips; the benchmark has 59"),
        ({"x": "frames: missing"}, None, '60 of 61 clips; left out: 1 for "frames: missing"'),
        (SKIPPED, None, LEFT_OUT),
        (SKIPPED, 63, LEFT_OUT),
        (SKIPPED, 64, f"{LEFT_OUT}; the benchmark has 64"),
        (SKIPPED, 60, f"{LEFT_OUT}; the benchmark has 60"),
    ],
)
def test_missing_clips_are_counted_with_their_reasons(
    skipped: dict[str, str], official: int | None, expected: str
) -> None:
    item = toy_runs.predictions(num_official=official)
    object.__setattr__(item, "skipped", skipped)
    assert coverage(item) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((1863, 157, 0, 0), []),
        ((2797, 778, 29, 0), ["29 of 778 classes have no clip and are left out of means over the classes"]),
        ((8521, 99, 1, 0), ["1 of 99 classes has no clip and is left out of means over the classes"]),
        ((1000, 10, 0, 10), []),  # by accident: one float32 score in a thousand
        ((1000, 10, 0, 11), ["11 of 10000 scores are tied; ties count by chance"]),
        ((10, 4, 0, 1), ["1 of 40 scores is tied; ties count by chance"]),
    ],
)
def test_absent_classes_and_more_than_accidental_ties_have_a_line(counts: tuple[int, ...], expected: list[str]) -> None:
    names = ("num_clips", "num_classes", "num_classes_dropped", "num_ties")
    assert remarks(dict(zip(names, map(float, counts), strict=True))) == expected


def test_accidental_ties_of_float32_have_no_line_and_those_of_half_precision_do() -> None:
    item = toy_runs.predictions(n=4000, kind="multi")
    assert metrics.evaluate(item)["num_ties"] > 0
    assert remarks(metrics.evaluate(item)) == []
    item.logits[:] = item.logits.astype(np.float16)
    assert "scores are tied" in remarks(metrics.evaluate(item))[0]


def test_the_report_says_on_how_many_clips_and_classes_its_numbers_stand(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "r", kind="multi", splits=("iid",), num_official=65)
    item = run.predictions("iid")
    item.targets[:, 2] = 0
    item.logits[:10] = np.round(item.logits[:10])
    item.write(run.predictions_path("iid"))
    split = write_report([run], tmp_path / "out", num_resamples=20)["runs"][0]["splits"]["iid"]
    assert (split["num_clips"], split["skipped"], split["num_official"]) == (60, {"truncated": 2}, 65)
    assert split["coverage"] == '60 of 62 clips; left out: 2 for "truncated"; the benchmark has 65'
    assert split["remarks"] == [
        "1 of 8 classes has no clip and is left out of means over the classes",
        f"{split['num_ties']:.0f} of 480 scores are tied; ties count by chance",
    ]
    for name in ("index.html", "report.md"):
        text = html.unescape((tmp_path / "out" / name).read_text())
        for line in (split["coverage"], *split["remarks"]):
            assert text.count(f"iid: {line}") == 1, (name, line)


def test_runs_that_lack_different_clips_are_told_apart_and_whole_ones_stay_silent(tmp_path: Path) -> None:
    runs = [
        toy_runs.run(tmp_path / "whole", splits=("counterfactual",), num_official=60),
        toy_runs.run(tmp_path / "part", splits=("counterfactual",), num_official=61),
    ]
    write_report(runs, tmp_path / "out", num_resamples=20)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "counterfactual of part: 60 clips; the benchmark has 61" in text
    assert "counterfactual of whole" not in text
