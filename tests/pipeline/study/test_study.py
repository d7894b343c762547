import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cache.atomic import read_json
from cache.errors import ConfigError
from cache.run import Run
from pipeline.cli import cli
from pipeline.study import study
from pipeline.study.plan import Size, StudyPlan
from pipeline.study.study import run_study

TINY = StudyPlan(
    seeds=(10,),
    strengths=(0.7,),
    heads=1,
    learning_rates=(1e-3, 3e-3),
    tuning_heads=1,
    rows=("baseline", "SEE"),
    size=Size(num_train=8, num_validation=2, num_test=8, num_probes=4, epochs=1),
)


def test_a_folder_of_other_sizes_is_refused_with_the_difference(tmp_path: Path) -> None:
    study._claim(tmp_path, TINY)
    study._claim(tmp_path, replace(TINY, seeds=(11, 12), heads=3))  # more of the same may be added
    with pytest.raises(ConfigError, match="num_test: there 8, asked for 9"):
        study._claim(tmp_path, replace(TINY, size=replace(TINY.size, num_test=9)))


def test_slow_rows_are_trained_on_the_first_worlds_at_the_main_strength_alone() -> None:
    plan = replace(TINY, rows=(), seeds=tuple(range(10, 18)), strengths=(0.9, 0.7))
    slow = [one for one in (plan.tuning, *plan.replicates) if "PeVL" in dict(study._rows(plan, one))]
    assert [(one.strength, one.seed) for one in slow] == [(0.7, 0), *((0.7, seed) for seed in range(10, 15))]
    assert list(dict(study._rows(TINY, TINY.tuning))) == ["baseline", "SEE"]


def test_with_one_learning_rate_nothing_is_tuned(tmp_path: Path) -> None:
    rates = study._tune(tmp_path, replace(TINY, learning_rates=(2e-3,)), 1)
    assert rates.of("TCI", "atomic") == 2e-3
    assert rates.to_json() == []
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_what_is_no_plan_before_it_works(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["study", "--out", str(tmp_path / "study"), "--strengths", "2"])
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_study_from_nothing_to_its_page_and_the_same_command_reads_what_stands(tmp_path: Path) -> None:
    out = tmp_path / "study"
    body = run_study(out, TINY, workers=1)
    assert read_json(out / "study.json") == json.loads(json.dumps(body))
    assert set(body["strengths"][0]["tables"]["atomic"]) == {"CLIP alone", "baseline", "SEE"}
    assert list(body["rows"]) == ["CLIP alone", "baseline", "SEE"]
    assert set(body["strengths"][0]["model_probe"][0]["score"]) >= {"as filmed", "cause covered"}
    assert "Which causal claims hold" in (out / "index.html").read_text()
    runs = sorted((out / "runs").glob("*/*"))
    assert len(runs) == 2 * 2 * 2 + 2 * 2  # rows x tasks x rates on the tuning world, rows x tasks on the other
    assert all("validation" in Run.open(run).splits for run in runs)
    assert Run.open(out / "runs/rho0.7-world0-frozen0/baseline-atomic-rate0.001-head0").splits == ("validation",)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    assert run_study(out, TINY, workers=1) == body
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")} == times
