"""Ablation tables: the data against the papers' figures, and a table trained on toys."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import atomic
from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.run import Run
from evaluate.metrics import evaluate
from evaluate.paper import is_full_method, paper_results
from pipeline import ablate as module
from pipeline.ablate import ablate, table_to_markdown, table_to_text
from pipeline.ablations import ABLATIONS, Ablation, Row, find_ablation
from pipeline.config import load_recipe
from pipeline.seeds import ScoredRun
from tests.evaluate import toy_runs
from tests.train.runs import write_toys
from train.config import TrainConfig, to_json

TABLES = list(ABLATIONS.values())
ROWS = [pytest.param(table, row, id=f"{table.name}, {row.label}") for table in TABLES for row in table.rows]
SIZES = {"cmdcl-fig7a", "cmdcl-fig7b", "pcmci-bases", "pcmci-alignment"}
"""Tables of sizes and weights; the others turn switches."""
TINY = """
description = "a model of a few thousand parameters"
[train]
task = "activity"
num_frames = 4
epochs = 2
batch_size = 3
[train.video_encoder]
pretrained = "none"
frozen = true
image_size = 16
resize = 16
patch_size = 8
width = 16
depth = 1
heads = 2
[train.optimizer]
learning_rate = 0.01
[train.cmdcl]
dim = 16
sta_layers = 1
sta_heads = 2
qformer_heads = 2
qformer_ffn = 32
"""


def config_of(table: Ablation, row: Row, recipe: str, **changes: Any) -> TrainConfig:  # noqa: ANN401
    values = {**table.settings(row), **changes}
    return load_recipe(recipe, [f"train.{key}={json.dumps(value)}" for key, value in values.items()]).train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toys with a cache, and the recipe of a tiny CMDCL."""
    folder = tmp_path_factory.mktemp("ablate")
    write_toys(folder)
    (folder / "tiny.toml").write_text(TINY)
    return folder


def run_table(world: Path, name: str, out: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    dataset = Dataset.read(world / "dataset")
    return ablate(
        dataset,
        world / "dataset",
        world / "cache",
        str(world / "tiny.toml"),
        find_ablation(name),
        world / out,
        progress=False,
        **options,
    )


# The tables as data.


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_is_a_valid_configuration_of_the_papers_recipe(table: Ablation, row: Row) -> None:
    body = to_json(config_of(table, row, table.recipe))
    assert body["method"] == table.method
    for key, value in table.settings(row).items():
        section, _, name = key.rpartition(".")
        found = body[section][name] if section else body[name]
        assert found == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_full_model_of_a_table_is_the_papers_recipe(table: Ablation) -> None:
    assert config_of(table, Row(label=""), table.recipe) == load_recipe(table.recipe).train
    changed = {key for row in table.rows for key in row.changes}
    assert changed == table.full.keys() or table.name == "pevl-9"  # whose full model is none of its rows


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_only_the_full_model_counts_as_the_papers_method(table: Ablation, row: Row) -> None:
    body = {"train": to_json(config_of(table, row, table.recipe))}
    differs = any(table.full[key] != value for key, value in row.changes.items())
    assert is_full_method(table.method, body) == (not differs or table.name in SIZES)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_rows_differ_in_name_in_folder_and_in_what_they_train(table: Ablation) -> None:
    assert len({module._run_name(row.label, 0) for row in table.rows}) == len(table.rows)
    assert len({repr(config_of(table, row, table.recipe)) for row in table.rows}) == len(table.rows) > 1


def test_every_printed_row_of_these_tables_is_claimed_once() -> None:
    names = {"CMDCL": ("3", "fig7a", "fig7b"), "PCMCI": ("stages", "order"), "PeVL": (*"456789", "text4.3.3")}
    asked = {
        (row.paper, row.table, row.method, row.settings)
        for row in paper_results()
        if row.table in names[row.paper] and row.metric in ("acc1", "acc5", "map", "mean_class_acc")
    }
    claims = Counter((table.paper, *row.figures) for table in TABLES for row in table.rows if row.figures)
    assert asked == {claim for claim in claims if claim[1] in names[claim[0]]}
    assert set(claims.values()) == {1}


def test_rows_of_one_configuration_print_one_figure() -> None:
    printed: dict[tuple[str, ...], set[float]] = {}
    for table in TABLES:
        for row in table.rows:
            made_of = repr(config_of(table, row, table.recipe))
            for figure in table.figures(row):
                printed.setdefault((made_of, figure.dataset, figure.metric), set()).add(figure.value)
    assert {key: values for key, values in printed.items() if len(values) > 1} == {}


def test_an_unknown_table_lists_all_of_them() -> None:
    with pytest.raises(ConfigError, match="did you mean cmdcl-3") as raised:
        find_ablation("cmdcl3")
    assert all(f"  {name} " in str(raised.value) for name in ABLATIONS)


# A table on toys.


def test_a_table_is_trained_evaluated_and_kept(world: Path) -> None:
    document = run_table(world, "cmdcl-3", "kept", seeds=(0, 1))
    folder = world / "kept" / "cmdcl-3"
    assert atomic.read_json(folder / "table.json") == document
    runs = {(run.info.variant, run.info.seed): run for run in map(Run.open, folder.glob("*-seed*"))}
    assert runs.keys() == {(row["label"], seed) for row in document["rows"] for seed in (0, 1)}
    for row in document["rows"]:
        members = [runs[row["label"], seed] for seed in (0, 1)]
        assert list(row["runs"].values()) == [run.path.name for run in members]
        switches = members[0].config["train"]["cmdcl"]
        assert {f"cmdcl.{key}": switches[key] for key in ("tci", "vci")} == row["settings"]
        values = [evaluate(run.predictions("test"))["acc1"] for run in members]
        spread = row["splits"]["test"]["acc1"]
        assert (spread["mean"], spread["values"]) == (pytest.approx(np.mean(values)), values)
    notes = [notice for notice in document["notices"] if "random" in notice]
    for text in ((folder / "table.md").read_text(), table_to_text(document)):
        assert 0 <= text.index(notes[0]) < text.index("Variant 1: none")
        assert "printed Acc@1, breakfast" in text
        assert "none is for toy" in text
        assert "±" in text


@pytest.mark.parametrize(
    ("dataset", "num_classes", "titles", "rule"),
    [
        ("toyota_smarthome", 31, ["mean class accuracy", "Acc@1"], "Rule of Toyota Smarthome: "),
        ("toyota_smarthome", 30, ["Acc@1", "Acc@5", "mean class accuracy"], ""),
        ("kitchen", 31, ["Acc@1", "Acc@5", "mean class accuracy"], ""),
    ],
)
def test_a_table_shows_the_metrics_of_its_benchmark(
    tmp_path: Path, dataset: str, num_classes: int, titles: list[str], rule: str
) -> None:
    names = toy_runs.class_names(num_classes)
    run = toy_runs.run(tmp_path / "run", dataset=dataset, splits=("test",), class_names=names)
    scores = evaluate(run.predictions("test"))
    document = module._document(find_ablation("cmdcl-3"), {("Variant 1: none", 0): ScoredRun.of(run)})
    header, lines = module._cells(document)
    assert header[3 : 3 + len(titles)] == titles
    assert header[3 + len(titles)].startswith("printed ")
    assert [line[3] for line in lines if line[1] == "test"] == [f"{100 * scores[document['main_metrics'][0]]:.1f}"]
    assert document["rule"].startswith(rule)
    assert document["rule"] in module._caption(document)
    assert bool(document["rule"]) is bool(rule)


def test_a_table_says_on_how_many_clips_each_run_stands(tmp_path: Path) -> None:
    runs = {
        ("Variant 1: none", 0): toy_runs.run(tmp_path / "none-seed0", splits=("iid",), num_official=65),
        ("Variant 2: TCI", 0): toy_runs.run(tmp_path / "tci-seed0", splits=("iid",), num_official=62),
    }
    document = module._document(find_ablation("cmdcl-3"), {key: ScoredRun.of(run) for key, run in runs.items()})
    assert document["remarks"] == [
        'iid of none-seed0: 60 of 62 clips; left out: 2 for "truncated"; the benchmark has 65',
        'iid of tci-seed0: 60 of 62 clips; left out: 2 for "truncated"',
    ]
    for text in (table_to_text(document), table_to_markdown(document)):
        assert all(f"{remark}." in text for remark in document["remarks"])


def test_the_same_command_trains_nothing_again(world: Path) -> None:
    before = run_table(world, "cmdcl-3", "again")
    files = {path: path.stat().st_mtime_ns for path in (world / "again").glob("*/*/**/*") if path.is_file()}
    assert run_table(world, "cmdcl-3", "again") == before
    assert {path: path.stat().st_mtime_ns for path in files} == files
    more = run_table(world, "cmdcl-3", "again", seeds=(0, 5))
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert [list(row["runs"]) for row in more["rows"]] == [["0", "5"]] * 4


def test_figures_of_the_runs_own_benchmark_stand_alone(tmp_path: Path) -> None:
    def text(num_classes: int) -> str:
        run = toy_runs.run(
            tmp_path / str(num_classes), splits=("test",), dataset="COIN", class_names=toy_runs.class_names(num_classes)
        )
        return table_to_text(module._document(find_ablation("cmdcl-3"), {("Variant 1: none", 0): ScoredRun.of(run)}))

    on_coin, own = text(180), text(3)
    assert "printed Acc@1, coin" in on_coin
    assert "92.28" in on_coin
    assert "breakfast" not in on_coin
    assert "on other data" not in on_coin
    assert "printed Acc@1, breakfast" in own  # three classes are no COIN, whatever the data set is called
    assert "none is for COIN" in own


def test_a_row_that_cannot_be_trained_is_named_and_the_rows_before_it_stay(world: Path) -> None:
    with pytest.raises(ConfigError, match="'L = 16', seed 0"):
        run_table(world, "cmdcl-fig7b", "stopped")
    document = atomic.read_json(world / "stopped" / "cmdcl-fig7b" / "table.json")
    assert [bool(row["splits"]) for row in document["rows"]] == [True, False, False, False]
    assert "L = 64      -      0" in table_to_text(document)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("cmdcl-3", ["train.cmdcl.tci=false"], "table cmdcl-3 sets this key"),
        ("cmdcl-3", ["train.seed=3"], "--seeds"),
        ("cmdcl-3", ["train.cmdcl.dims=3"], "did you mean"),
        ("pcmci-stages", [], "the paper's is pcmci-breakfast-activity"),
        ("cmdcl-3", ["train.cmdcl.temporal_control=true", "train.cmdcl.vci=false"], "sets this key"),
    ],
)
def test_what_cannot_be_a_table_is_refused_before_anything_is_trained(
    world: Path, name: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_table(world, name, "refused", overrides=overrides)
    assert not (world / "refused").exists()
