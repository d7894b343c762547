"""The document and the page: their numbers are the worlds' numbers, and their sentences follow from them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from evaluate.uncertainty import Interval
from pipeline.demo.probe import ProbeRow
from pipeline.study import scores
from pipeline.study.claims import CLAIMS, tables
from pipeline.study.document import document, main_table, to_markdown
from pipeline.study.page import write_page
from pipeline.study.plan import StudyPlan
from pipeline.study.questions import SCENES
from pipeline.study.tuning import Rates
from pipeline.study.variants import OURS, ROWS
from tests.pipeline.study.worlds_of import finished

SKILLS = {row: 0.4 + 0.1 * number for number, row in enumerate(ROWS)}


@pytest.fixture(scope="module")
def body() -> dict:  # type: ignore[type-arg]
    patch = pytest.MonkeyPatch()
    patch.setattr(scores, "RESAMPLES", 500)
    patch.setattr(scores, "RESAMPLES_OF_VIDEOS", 20)
    plan = StudyPlan(seeds=(10, 11, 12), strengths=(0.7,))
    worlds = [finished(seed, SKILLS) for seed in (10, 11)]
    rates = Rates(scores={("TCI", "atomic"): {1e-3: 0.9, 3e-4: 0.95, 3e-3: 0.95}})
    interval = Interval(estimate=0.5, low=0.4, high=0.6, level=0.95, method="basic bootstrap")
    row = ProbeRow(condition="cause covered", question="activity", top1=interval, score=interval, kept=interval)
    found = document(plan, rates, worlds, {0: (row,)})
    patch.undo()
    return found


def test_the_document_is_plain_json(body: dict) -> None:  # type: ignore[type-arg]
    assert json.loads(json.dumps(body))["strengths"][0]["rho"] == 0.7
    assert "1 of 3 replicates are still missing" in body["statement"]
    assert "2 worlds at rho 0.7, each with 1 training" in body["statement"]


def test_the_rate_of_the_best_validation_score_is_taken_the_first_of_equals(body: dict) -> None:  # type: ignore[type-arg]
    assert body["rates"][0]["chosen"] == 3e-4
    assert body["rates"][0]["validation"] == [[1e-3, 0.9], [3e-4, 0.95], [3e-3, 0.95]]


def test_a_cell_is_the_mean_and_deviation_over_worlds(body: dict) -> None:  # type: ignore[type-arg]
    worlds = [finished(seed, {"TCI": SKILLS["TCI"]}) for seed in (10, 11)]
    values = [100 * world.scores["atomic", "test_recombined"].points["TCI"]["map_macro"] for world in worlds]
    table = main_table(body["strengths"][0])
    header, lines = table.header, table.lines
    line = dict(zip(header, next(line for line in lines if line[0] == "TCI"), strict=True))
    assert line["mAP, all 16, recombined"] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    assert dict(zip(header, next(line for line in lines if line[0] == "PeVL"), strict=True))[header[-1]] == "-"


def test_a_row_of_fewer_worlds_says_so(body: dict) -> None:  # type: ignore[type-arg]
    few = json.loads(json.dumps(body["strengths"][0]))
    for splits in few["tables"]["activity"]["PeVL"].values():
        for spread in splits.values():
            spread["values"] = spread["values"][:1]
    assert "PeVL (1 world)" in [line[0] for line in main_table(few).lines]
    assert "PeVL" in [line[0] for line in main_table(body["strengths"][0]).lines]


def test_every_number_of_the_markdown_and_the_page_is_one_of_the_document(
    body: dict,  # type: ignore[type-arg]
    tmp_path: Path,
) -> None:
    write_page(tmp_path / "index.html", body)
    page, text = (tmp_path / "index.html").read_text(), to_markdown(body)
    for line in main_table(body["strengths"][0]).lines:
        assert f"| {' | '.join(line)} |" in text
        assert all(f">{cell}</td>" in page for cell in line if cell != "-")
    write_page(tmp_path / "again.html", body)
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "index.html").read_bytes()


def test_the_table_of_a_task_has_its_columns_and_rows_alone(body: dict) -> None:  # type: ignore[type-arg]
    whole, atomic = main_table(body["strengths"][0]), main_table(body["strengths"][0], ["atomic"])
    assert atomic.header == ["row", *whole.header[5:]]
    assert atomic.lines == [[line[0], *line[5:]] for line in whole.lines if not line[0].startswith("PeVL")]


def test_under_every_claim_stand_its_tests_and_what_they_show(body: dict) -> None:  # type: ignore[type-arg]
    weaker = json.loads(json.dumps(body["strengths"][0])) | {"rho": 0.5}
    weaker["differences"] = [one for one in weaker["differences"] if one["variant"] != "PeVL"]
    found = {table.title: table for table in tables(body | {"strengths": [*body["strengths"], weaker]})}
    assert [claim.title for claim in CLAIMS] == list(found)[:-1]
    for claim in CLAIMS:
        table = found[claim.title]
        assert table.header == ["difference", "rho 0.7", "rho 0.5"]
        for line, (row, other, (task, _)) in zip(table.lines, claim.tests, strict=True):
            assert line[0].startswith(f"{row} minus {other}, {task}, ")
            assert re.fullmatch(r"[+-]?[\d.]+ \([+-]?[\d.]+ to [+-]?[\d.]+\)( ↑| ↓|)", line[1])
            assert line[2] == ("-" if line[0].startswith("PeVL") else line[1])
    one = next(
        one for one in body["strengths"][0]["differences"] if (one["variant"], one["split"]) == ("VCI", SCENES[1])
    )
    cell = found[CLAIMS[1].title].lines[0][1]
    assert cell.startswith(f"{100 * one['interval']['estimate']:+.1f} (")
    bar = found["The bar that was fixed beforehand"]
    assert [line[0] for line in bar.lines] == [f"{row}, rho {rho}" for rho in (0.7, 0.5) for row in OURS for _ in "12"]
    assert {line[1] for line in bar.lines} == {
        "control, activity, counterfactual",
        "baseline + 50% of TCI's gain, atomic, recombined",
    }
    assert {line[-1] for line in bar.lines} <= {"reached", "not reached"}


def test_every_test_of_a_claim_is_a_difference_that_is_computed() -> None:
    for claim in CLAIMS:
        for row, reference, (task, _) in claim.tests:
            assert reference in ROWS[row].references
            assert task in ROWS[row].tasks
