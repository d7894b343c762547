"""`deconfound ablate`: a table of a paper, every row trained with every seed, beside the figures that the paper prints.

    OUT/<table>/<row>-seed<k>/    a run directory each, as `deconfound train` makes them
    OUT/<table>/table.json        means and deviations over seeds, the printed figures, where the runs are
    OUT/<table>/table.md          the same for people

Runs that are finished are read, a stopped one continues: the same command goes on. The decision to question: seeds are
the outer loop and the table is written after every run, so that a stop leaves a whole table of fewer seeds and not half
a table of all. A printed figure is never shown without the name of its dataset: beside a run on another one it says
what the paper found there, and nothing about this run.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import atomic
from cache.errors import ConfigError
from cache.manifest import Dataset
from evaluate.benchmarks import Rule
from evaluate.paper import PaperResult
from evaluate.tables import METRIC_NAMES
from pipeline.ablations import Ablation, Row
from pipeline.config import load_recipe
from pipeline.seeds import PlannedRun, ScoredRun, over_runs, spread_text, train_all, what_they_share
from pipeline.tables import format_table
from train.config import TrainConfig
from train.loop import train

_PAPER_METRICS = {"acc1": "Acc@1", "acc5": "Acc@5", "mean_class_acc": "mean class accuracy", "map": "mAP"}


def ablate(
    dataset: Dataset,
    dataset_folder: Path,
    cache: Path,
    recipe: str,
    table: Ablation,
    out: Path,
    *,
    seeds: Sequence[int] = (0,),
    overrides: Sequence[str] = (),
    device: str = "cpu",
    verify: bool = True,
    token_cache: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains what is missing of a table, and evaluates it.

    Args:
        dataset: the manifest.
        dataset_folder: where it was read from.
        cache: the feature cache.
        recipe: a name or a path; its method must be the table's.
        table: which rows.
        out: the table gets a folder of its own in it.
        seeds: each row is trained with each.
        overrides: `a.b=value`, for all rows; not the keys that the table sets.
        device: a torch device.
        verify: check the sha256 of every shard, once per cache.
        token_cache: folder of a frozen video encoder's tokens; by default CACHE/video_tokens.
        progress: show progress on stderr.

    Returns:
        What table.json holds.

    Raises:
        ConfigError: a row has no valid configuration (nothing was trained), or cannot be trained (rows before it stay).
        DeconfoundError: as `train`.
    """
    folder = out / table.name
    configs = _configs(recipe, table, seeds, overrides)
    planned = [
        PlannedRun(
            name=f"table {table.name}, row {label!r}, seed {seed}", path=folder / _run_name(label, seed), config=config
        )
        for (label, seed), config in configs.items()
    ]
    train_one = functools.partial(
        train,
        dataset,
        dataset_folder,
        cache,
        recipe=recipe,
        device=device,
        verify=verify,
        token_cache=token_cache,
        progress=progress,
    )
    results: dict[tuple[str, int], ScoredRun] = {}
    document: dict[str, Any] = {}
    for key, run in zip(configs, train_all(planned, dataset, train_one, device=device), strict=True):
        results[key] = ScoredRun.of(run)
        document = _document(table, results)
        document |= {"recipe": recipe, "overrides": list(overrides), "seeds": list(seeds)}
        atomic.write_json(folder / "table.json", document)
        atomic.write_bytes(folder / "table.md", table_to_markdown(document).encode())
    return document


def _configs(
    recipe: str, table: Ablation, seeds: Sequence[int], overrides: Sequence[str]
) -> dict[tuple[str, int], TrainConfig]:
    """The configuration of every (label, seed): the recipe, then `--set`, then what the table sets."""
    taken = {"train.seed", "train.variant", *(f"train.{key}" for row in table.rows for key in table.settings(row))}
    for key in (override.partition("=")[0].strip() for override in overrides):
        if key in taken:
            raise ConfigError(
                f"--set {key}: table {table.name} sets this key for every row; seeds are given by --seeds"
            )
    method = load_recipe(recipe, overrides).train.method
    if method != table.method:
        raise ConfigError(
            f"table {table.name} is one of {table.method}, recipe {recipe} of {method}; the paper's is {table.recipe}"
        )
    return {(row.label, seed): _config(recipe, table, row, seed, overrides) for seed in seeds for row in table.rows}


def _config(recipe: str, table: Ablation, row: Row, seed: int, overrides: Sequence[str]) -> TrainConfig:
    settings = {**table.settings(row), "variant": row.label, "seed": seed}
    # Texts, numbers, truth values and lists of them are written alike in JSON and TOML.
    changes = [f"train.{key}={json.dumps(value)}" for key, value in settings.items()]
    try:
        return load_recipe(recipe, [*overrides, *changes]).train
    except ConfigError as error:
        raise ConfigError(f"table {table.name}, row {row.label!r}: {error}") from error


def _run_name(label: str, seed: int) -> str:
    return f"{re.sub(r'[^a-z0-9.]+', '-', label.lower()).strip('-')}-seed{seed}"


def _document(table: Ablation, results: Mapping[tuple[str, int], ScoredRun]) -> dict[str, Any]:
    shared = what_they_share(list(results.values()))
    rule = next(iter(results.values())).rule
    rows = []
    for row in table.rows:
        done = {seed: result for (label, seed), result in results.items() if label == row.label}
        runs = {str(seed): result.run.path.name for seed, result in done.items()}
        splits = over_runs(list(done.values()))
        printed = [_figure(figure, rule) for figure in table.figures(row) if figure.metrics(rule.kind)]
        settings = table.settings(row)
        rows.append({"label": row.label, "settings": settings, "runs": runs, "splits": splits, "printed": printed})
    heading = {"table": table.name, "title": table.title, "paper": table.paper, "method": table.method}
    return {**heading, **shared, "rows": rows}


def _figure(figure: PaperResult, rule: Rule) -> dict[str, Any]:
    return {
        **{key: getattr(figure, key) for key in ("dataset", "metric", "source")},
        "percent": figure.value,
        "compare_with": list(figure.metrics(rule.kind)),
        "same_dataset": figure.is_of(rule),
    }


def table_to_text(document: Mapping[str, Any]) -> str:
    """The table for the terminal, after the runs' notices."""
    header, rows = _cells(document)
    notes = [f"note: {notice}" for notice in document["notices"]]
    return "\n".join([*notes, _title(document), format_table(header, rows), _caption(document)])


def table_to_markdown(document: Mapping[str, Any]) -> str:
    """The table for table.md, after the runs' notices."""
    header, rows = _cells(document)
    lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, ["---"] * len(header), *rows)]
    notes = [f"> **{notice}**\n" for notice in document["notices"]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([f"# {_title(document)}\n", *notes, table, "", _caption(document), ""])


def _title(document: Mapping[str, Any]) -> str:
    where = f"{document['dataset']} (task {document['task']}, protocol {document['protocol']})"
    return f"{document['paper']}, {document['title']}, on {where}"


def _cells(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and a line per row and split; a row that is not trained yet has one line."""
    rows = document["rows"]
    found = {metric for row in rows for split in row["splits"].values() for metric in split}
    metrics = [metric for metric in document["main_metrics"] if metric in found]
    columns = _printed_columns(rows)
    header = ["row", "split", "seeds", *(METRIC_NAMES[metric] for metric in metrics)]
    header += [f"printed {_PAPER_METRICS[metric]}, {dataset}" for dataset, metric in columns]
    lines = []
    for row in rows:
        figures = {(figure["dataset"], figure["metric"]): f"{figure['percent']:g}" for figure in row["printed"]}
        paper = [figures.get(column, "-") for column in columns]
        for split, spreads in (row["splits"] or {"-": {}}).items():
            own = [spread_text(spreads.get(metric)) for metric in metrics]
            lines.append([row["label"], split, str(len(row["runs"])), *own, *paper])
    return header, lines


def _printed_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(dataset, metric) of the run's own benchmark; where the paper has no table for it, all those that it has."""
    figures = [figure for row in rows for figure in row["printed"]]
    same = [figure for figure in figures if figure["same_dataset"]]
    return list(dict.fromkeys((figure["dataset"], figure["metric"]) for figure in same or figures))


def _caption(document: Mapping[str, Any]) -> str:
    """What the numbers are, and what the printed ones are not."""
    sentences = ["In percent; mean ± standard deviation over seeds."]
    sentences += [f"{remark}." for remark in document["remarks"]]
    sentences += [document["rule"]] if document["rule"] else []
    figures = [figure for row in document["rows"] for figure in row["printed"]]
    sources = ", ".join(dict.fromkeys(figure["source"] for figure in figures))
    if not figures:
        sentences.append(f"{document['paper']} prints no figures for this table.")
    elif any(figure["same_dataset"] for figure in figures):
        sentences.append(f"Printed figures are those of {document['paper']} ({sources}).")
    else:
        sentences.append(
            f"Printed figures are those of {document['paper']} ({sources}) on other data: none is for "
            f"{document['dataset']}, so they say nothing about these runs."
        )
    return " ".join(sentences)
